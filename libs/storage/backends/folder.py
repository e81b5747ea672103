"""A folder as an object store: each key is a path below the root.

For a laptop, tests, or a shared disk. Written atomically and flushed to disk. See ``s3`` for buckets.
"""

import errno
import hashlib
import mimetypes
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BufferedReader
from pathlib import Path
from shutil import copyfileobj
from stat import S_ISDIR, S_ISREG

from libs.errors import ArtifactMissingError, StorageError
from libs.files.atomic_write import atomic_write
from libs.storage.backends.disk_errors import disk_errors_explained
from libs.storage.backends.keys import check_key
from libs.storage.backends.store import ObjectInfo

_INCOMING = ".incoming"
_ABANDONED_AFTER_SECONDS = 24 * 3600
_PIECE = 1 << 20

_NOT_THERE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.ENXIO})
"""No such file; a link; a name longer than a file can have; a socket."""


class FolderObjectStore:
    """See :class:`libs.storage.backends.store.ObjectStore`; ``root`` is created when the first object is stored.

    Files arrive in ``<root>/.incoming`` and are renamed into place; what a killed process left there is removed after
    a day. Digests are computed when asked for, never recorded, so :meth:`head` always tells the truth; content types
    follow from the key's suffix. Symbolic links below a top-level folder are never followed.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def put_file(
        self,
        key: str,
        path: Path,
        sha256: str,
        content_type: str,  # noqa: ARG002 - a folder has no place for it
        cache_control: str | None = None,  # noqa: ARG002
    ) -> ObjectInfo:
        """Copy a file in, hashing what is copied.

        Raises:
            StorageError: the bytes do not have the digest ``sha256`` (the file changed meanwhile).
        """
        digest = hashlib.sha256()
        with path.open("rb") as source, self._replacing(key) as temporary, temporary.open("wb") as target:
            while piece := source.read(_PIECE):
                digest.update(piece)
                target.write(piece)
            if digest.hexdigest() != sha256:
                raise StorageError(f"{path} changed while it was stored as {self.uri(key)}; nothing was stored")
        return self._info(key, sha256)

    def put_bytes(
        self,
        key: str,
        data: bytes,
        content_type: str = "application/octet-stream",  # noqa: ARG002
    ) -> ObjectInfo:
        """See the protocol."""
        with self._replacing(key) as temporary:
            temporary.write_bytes(data)
        return self._info(key, hashlib.sha256(data).hexdigest())

    def get_file(self, key: str, destination: Path) -> None:
        """See the protocol."""
        with (
            self._reading(key) as source,
            atomic_write(destination) as temporary,
            temporary.open("wb") as target,
        ):
            copyfileobj(source, target, _PIECE)

    def get_bytes(self, key: str) -> bytes:
        """See the protocol."""
        with self._reading(key) as source:
            return source.read()

    def copy(self, source: ObjectInfo, target: str) -> ObjectInfo:
        """See the protocol; hashes what is copied."""
        digest = hashlib.sha256()
        with self._reading(source.key) as file, self._replacing(target) as temporary, temporary.open("wb") as copy:
            while piece := file.read(_PIECE):
                digest.update(piece)
                copy.write(piece)
            if _described(os.fstat(file.fileno()), source.key, None).version != source.version:
                raise ArtifactMissingError(f"{self.uri(source.key)} changed while it was copied")
        return self._info(target, digest.hexdigest())

    def head(self, key: str) -> ObjectInfo | None:
        """See the protocol; reads the whole file to compute its digest."""
        try:
            with self._reading(key) as source:
                digest = hashlib.file_digest(source, "sha256").hexdigest()
                return _described(os.fstat(source.fileno()), key, digest)
        except ArtifactMissingError:
            return None

    def stat(self, key: str) -> ObjectInfo | None:
        """See the protocol; nothing is read, so the digest is not known."""
        check_key(key)
        with disk_errors_explained(self.uri(key)), self._folder_of(key) as folder:
            status = folder.status() if folder else None
        return _described(status, key, None) if status and S_ISREG(status.st_mode) else None

    def exists(self, key: str) -> bool:
        """See the protocol."""
        return self.stat(key) is not None

    def list(self, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
        """See the protocol."""
        for key in sorted(key for key, is_link in self._found_below(prefix) if key > start_after and not is_link):
            with suppress(FileNotFoundError):  # deleted since it was found
                status = os.lstat(os.path.join(self.root, key))  # noqa: PTH118 - ten times as fast, for 100,000 files
                if S_ISREG(status.st_mode):  # people put files there: any name may be listed
                    yield _described(status, key, None)

    def folders(self, prefix: str) -> Iterator[str]:
        """See the protocol; a link is no folder."""
        above = self.root / prefix
        with disk_errors_explained(above.absolute().as_uri()), suppress(FileNotFoundError, NotADirectoryError):
            with os.scandir(above) as entries:
                found = sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
            yield from found

    def links(self, prefix: str = "") -> Iterator[str]:
        """See the protocol."""
        return iter(sorted(key for key, is_link in self._found_below(prefix) if is_link))

    def delete(self, key: str) -> None:
        """See the protocol; of a link the link itself goes, a folder stays."""
        check_key(key)
        with disk_errors_explained(self.uri(key)), self._folder_of(key) as folder:
            status = folder.status() if folder else None
            if folder and status and not S_ISDIR(status.st_mode):
                with suppress(FileNotFoundError):
                    os.unlink(folder.name, dir_fd=folder.descriptor)

    def delete_version(self, info: ObjectInfo) -> bool:
        """See the protocol: the file is taken aside first, and put back where it is another one."""
        key = check_key(info.key)
        with disk_errors_explained(self.uri(key)), self._folder_of(key) as folder:
            found = self.stat(key) if folder else None
            if folder is None or found is None or found.version != info.version:
                return False
            aside = self.root / _INCOMING / f"deleted-{uuid.uuid4().hex}"
            aside.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.rename(folder.name, aside, src_dir_fd=folder.descriptor)
            except FileNotFoundError:
                return False
            is_same = _described(aside.lstat(), key, None).version == info.version
            if not is_same:
                with suppress(FileExistsError):  # a still newer one
                    os.link(aside, folder.name, dst_dir_fd=folder.descriptor, follow_symlinks=False)
            aside.unlink()
            return is_same

    def deletes_exact_versions(self) -> bool:
        """See the protocol."""
        return True

    def uri(self, key: str) -> str:
        """A ``file://`` address."""
        return self._path(key).absolute().as_uri()

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def _info(self, key: str, sha256: str | None) -> ObjectInfo:
        return _described(self._path(key).lstat(), key, sha256)

    @contextmanager
    def _reading(self, key: str) -> Iterator[BufferedReader]:
        """The file of ``key``, open; what is no regular file, such as a pipe, counts as missing."""
        check_key(key)
        with disk_errors_explained(self.uri(key)), self._folder_of(key) as folder:
            file = folder.open_file() if folder else None
            if file is None:
                raise ArtifactMissingError(f"no object at {self.uri(key)}")
            with file:
                yield file

    @contextmanager
    def _folder_of(self, key: str) -> Iterator["_OpenFolder | None"]:
        """The folder in which the file of ``key`` lies; None when it is not there.

        Whoever may write to the inbox can put a link there, to anything that this process may read. So each folder is
        opened from the one above it and links are refused; only a top-level folder (``inbox``) may be one, which
        whoever set up the store made.
        """
        folders = key.split("/")[:-1]
        with ExitStack() as opened:
            try:
                descriptor = _open_folder(self.root, opened)
                for number, name in enumerate(folders):
                    descriptor = _open_folder(name, opened, descriptor, os.O_NOFOLLOW if number else 0)
            except OSError as error:
                if error.errno not in _NOT_THERE:
                    raise
                yield None
            else:
                yield _OpenFolder(descriptor, key.rpartition("/")[2])

    def _found_below(self, prefix: str) -> Iterator[tuple[str, bool]]:
        """Keys that start with ``prefix`` and, for each, whether it is a link; nothing where a folder is a link."""
        above = prefix.rpartition("/")[0]
        folder = self.root / above
        if any((self.root / Path(*above.split("/")[:depth])).is_symlink() for depth in range(2, above.count("/") + 2)):
            return
        with disk_errors_explained(folder.absolute().as_uri()):
            before = f"{above}/" if above else ""
            found = [(f"{before}{path}", is_link) for path, is_link in _entries_below(folder)]
        for key, is_link in found:
            if key.startswith(prefix) and not key.startswith(f"{_INCOMING}/"):
                yield key, is_link

    @contextmanager
    def _replacing(self, key: str) -> Iterator[Path]:
        """A temporary file that takes the place of ``key`` when the block ends.

        Raises:
            StorageError: a folder on the way is a link.
        """
        incoming = self.root / _INCOMING
        path = self._path(key)
        for parent in list(path.parents)[: key.count("/") - 1]:
            if parent.is_symlink():
                raise StorageError(f"{self.uri(key)}: {parent} is a symbolic link, which is not followed; remove it")
        with disk_errors_explained(self.uri(key)), atomic_write(path, staging=incoming) as temporary:
            self._remove_abandoned(incoming)
            yield temporary

    @staticmethod
    def _remove_abandoned(incoming: Path) -> None:
        oldest = time.time() - _ABANDONED_AFTER_SECONDS
        for path in incoming.iterdir():
            with suppress(FileNotFoundError):  # its writer finished
                if path.stat().st_mtime < oldest:
                    path.unlink()


@dataclass(frozen=True)
class _OpenFolder:
    """A folder, by its open descriptor, and the name of one file in it."""

    descriptor: int
    name: str

    def status(self) -> os.stat_result | None:
        """The status of the file or link itself; None if it does not exist or no file can have the name."""
        try:
            return os.stat(self.name, dir_fd=self.descriptor, follow_symlinks=False)
        except OSError as error:
            if error.errno in _NOT_THERE:
                return None
            raise

    def open_file(self) -> BufferedReader | None:
        """The regular file; None if there is none."""
        try:
            # Without waiting: a pipe would be waited for until somebody writes into it.
            descriptor = os.open(self.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=self.descriptor)
        except OSError as error:
            if error.errno in _NOT_THERE:
                return None
            raise
        if S_ISREG(os.fstat(descriptor).st_mode):
            return os.fdopen(descriptor, "rb")
        os.close(descriptor)
        return None


def _open_folder(path: Path | str, opened: ExitStack, above: int | None = None, flags: int = 0) -> int:
    """A descriptor of a folder in the folder ``above``, which ``opened`` closes."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | flags, dir_fd=above)
    opened.callback(os.close, descriptor)
    return descriptor


def _entries_below(folder: Path) -> Iterator[tuple[str, bool]]:
    """Paths below ``folder`` of all files, and of all links with True; links are not followed.

    A folder that cannot be read is an error: its files would look gone.

    Raises:
        OSError: no permission, or the disk does not answer. A folder that is not there, or goes meanwhile, is none.
    """
    unread = [""]
    while unread:
        before = unread.pop()
        try:
            with os.scandir(folder / before if before else folder) as entries:
                for entry in entries:
                    path = f"{before}{entry.name}"
                    is_link = entry.is_symlink()
                    if is_link or not entry.is_dir(follow_symlinks=False):
                        yield path, is_link
                    else:
                        unread.append(f"{path}/")
        except (FileNotFoundError, NotADirectoryError):
            continue


def _described(status: os.stat_result, key: str, sha256: str | None) -> ObjectInfo:
    version = f"{status.st_ino}-{status.st_mtime_ns}"
    return ObjectInfo(key, status.st_size, _time_of(status), sha256, mimetypes.guess_type(key)[0], version)


def _time_of(status: os.stat_result) -> datetime:
    """The modification time; a time outside the calendar (a year above 9999) becomes the nearest valid one."""
    try:
        return datetime.fromtimestamp(status.st_mtime, UTC)
    except (ValueError, OverflowError, OSError):
        return (datetime.max if status.st_mtime > 0 else datetime.min).replace(tzinfo=UTC)
