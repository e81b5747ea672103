"""A folder as an object store: each key is a path below the root.

For a laptop, tests, or a shared disk. Written atomically and flushed to disk. What does not belong here: buckets
(``s3``).
"""

import errno
import hashlib
import mimetypes
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from shutil import copyfileobj

from libs.atomic_write import atomic_write
from libs.errors import ArtifactMissingError, StorageError
from libs.storage.disk_errors import disk_errors_explained
from libs.storage.keys import check_key
from libs.storage.objects import ObjectInfo
from libs.storage.sha256 import sha256_of_file

_INCOMING = ".incoming"
_ABANDONED_AFTER_SECONDS = 24 * 3600
_PIECE = 1 << 20


class FolderObjectStore:
    """See :class:`libs.storage.objects.ObjectStore`; ``root`` is created when the first object is stored.

    Files arrive in ``<root>/.incoming`` and are renamed into place; what a killed process left there is removed after
    a day. Digests are computed when asked for, never recorded, so :meth:`head` always tells the truth; content types
    follow from the key's suffix.
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
            self._reading(key) as path,
            path.open("rb") as source,
            atomic_write(destination) as temporary,
            temporary.open("wb") as target,
        ):
            copyfileobj(source, target, _PIECE)

    def get_bytes(self, key: str) -> bytes:
        """See the protocol."""
        with self._reading(key) as path:
            return path.read_bytes()

    def head(self, key: str) -> ObjectInfo | None:
        """See the protocol; reads the whole file to compute its digest."""
        try:
            with self._reading(key) as path:
                return self._info(key, sha256_of_file(path))
        except ArtifactMissingError:
            return None

    def exists(self, key: str) -> bool:
        """See the protocol."""
        return _is_file(self._path(key))

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See the protocol."""
        folder = self.root / prefix.rpartition("/")[0]
        with disk_errors_explained(folder.absolute().as_uri()):
            keys = [path.relative_to(self.root).as_posix() for path in _files_below(folder)]
        for key in sorted(key for key in keys if key.startswith(prefix) and not key.startswith(f"{_INCOMING}/")):
            with suppress(FileNotFoundError):  # deleted since it was found
                yield _described(self.root / key, key, None)  # people put files there: any name may be listed

    def delete(self, key: str) -> None:
        """See the protocol."""
        path = self._path(key)
        with disk_errors_explained(self.uri(key)):
            if _is_file(path):
                path.unlink(missing_ok=True)

    def uri(self, key: str) -> str:
        """A ``file://`` address."""
        return self._path(key).absolute().as_uri()

    def _path(self, key: str) -> Path:
        return self.root / check_key(key)

    def _info(self, key: str, sha256: str | None) -> ObjectInfo:
        return _described(self._path(key), key, sha256)

    @contextmanager
    def _reading(self, key: str) -> Iterator[Path]:
        path = self._path(key)
        with disk_errors_explained(self.uri(key)):
            if not _is_file(path):
                raise ArtifactMissingError(f"no object at {self.uri(key)}")
            yield path

    @contextmanager
    def _replacing(self, key: str) -> Iterator[Path]:
        """A temporary file that takes the place of ``key`` when the block ends."""
        incoming = self.root / _INCOMING
        with disk_errors_explained(self.uri(key)), atomic_write(self._path(key), staging=incoming) as temporary:
            self._remove_abandoned(incoming)
            yield temporary

    @staticmethod
    def _remove_abandoned(incoming: Path) -> None:
        oldest = time.time() - _ABANDONED_AFTER_SECONDS
        for path in incoming.iterdir():
            with suppress(FileNotFoundError):  # its writer finished
                if path.stat().st_mtime < oldest:
                    path.unlink()


def _is_file(path: Path) -> bool:
    """False also for a name that no file can have: ``inbox/rejected/<name>.error.txt`` of a document's longest name."""
    try:
        return path.is_file()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            return False
        raise


def _files_below(folder: Path) -> Iterator[Path]:
    """All files; a folder that cannot be read is an error: its files would look as if they were gone.

    Raises:
        OSError: no permission, or the disk does not answer. A folder that is not there, or goes meanwhile, is none.
    """

    def refuse(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            raise error

    for parent, _, names in os.walk(folder, onerror=refuse):
        yield from filter(Path.is_file, (Path(parent, name) for name in names))


def _described(path: Path, key: str, sha256: str | None) -> ObjectInfo:
    status = path.stat()
    modified = datetime.fromtimestamp(status.st_mtime, UTC)
    return ObjectInfo(key, status.st_size, modified, sha256, mimetypes.guess_type(key)[0])
