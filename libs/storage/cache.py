"""Verified local copies of stored files, shared by all processes of a machine.

    <folder>/files/<first 2 digits>/<sha256>     one copy of each content
    <folder>/artifacts/<digest>/<name>           hard links to them, as an artifact's folder

Every copy is hashed each time it is handed out: what a process reads is what was published. The folder may be deleted
at any time when no run is going on.
"""

import errno
import os
import stat
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from shutil import copyfile, rmtree

from filelock import FileLock, Timeout

from libs.files.atomic_write import PARTIAL_SUFFIX, atomic_write
from libs.storage.backends.sha256 import sha256_of_file
from libs.storage.manifest import Manifest, StoredFile

_NO_HARD_LINK = frozenset({errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.EACCES})
_ABANDONED_AFTER_SECONDS = 24 * 3600

Download = Callable[[StoredFile, Path], None]


@dataclass(frozen=True)
class PruneReport:
    """What :meth:`ArtifactCache.prune` did: artifacts and files removed, bytes before and after."""

    removed: int
    bytes_before: int
    bytes_after: int


class ArtifactCache:
    """The cache below ``folder``. Several processes may use it at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def artifact(self, manifest: Manifest, download: Download) -> Path:
        """A folder that holds exactly the files of ``manifest``, verified; missing ones come from ``download``.

        ``download(file, destination)`` must write ``destination`` with the right digest or raise.
        """
        view = self.folder / "artifacts" / manifest.digest
        with self._lock("artifact", manifest.digest):
            for file in manifest.files:
                self._place(file, view / file.name, download)
            os.utime(view)
        return view

    def file(self, file: StoredFile, download: Download) -> Path:
        """One verified file; comes from ``download`` when there is no intact copy."""
        path = self._path(file.sha256)
        with self._lock("file", file.sha256):
            if not _is_intact(path, file):
                with atomic_write(path) as temporary:
                    download(file, temporary)
                    temporary.chmod(0o444)  # shared by hard links: nobody may write into it
            os.utime(path)
        return path

    def add(self, path: Path, sha256: str) -> None:
        """Keep a file that was just published, where a hard link costs nothing; otherwise do nothing."""
        kept = self._path(sha256)
        with self._lock("file", sha256), suppress(OSError):
            if not kept.exists():
                kept.parent.mkdir(parents=True, exist_ok=True)
                os.link(path, kept)

    def prune(self, maximum_bytes: int, spare_younger_than: timedelta = timedelta(hours=6)) -> PruneReport:
        """Remove what was not used for longest until at most ``maximum_bytes`` are held.

        What was used within ``spare_younger_than`` stays whatever its size, so that runs keep their inputs. Leftovers
        of killed processes go after a day.
        """
        now = time.time()
        for leftover in self.folder.rglob(f"*{PARTIAL_SUFFIX}"):
            with suppress(FileNotFoundError):
                if now - leftover.stat().st_mtime > _ABANDONED_AFTER_SECONDS:
                    leftover.unlink()
        held = _Held.of(self.folder)
        before = held.bytes
        removed = 0
        for view in sorted(held.views, key=lambda view: view.last_use):
            if held.bytes <= maximum_bytes or now - view.last_use < spare_younger_than.total_seconds():
                break
            if self._remove_view(view.path):
                removed += 1
                unlinked = held.forget(view)
                removed += self._remove_unlinked(unlinked, held, now, spare_younger_than)
        if held.bytes > maximum_bytes:  # published here, never fetched
            removed += self._remove_unlinked(list(held.copies.values()), held, now, spare_younger_than)
        return PruneReport(removed, before, held.bytes)

    def _place(self, file: StoredFile, target: Path, download: Download) -> None:
        if _is_intact(target, file):
            return
        target.unlink(missing_ok=True)
        target.parent.mkdir(parents=True, exist_ok=True)
        source = self.file(file, download)
        try:
            os.link(source, target)
        except OSError as error:
            if error.errno not in _NO_HARD_LINK:
                raise
            with atomic_write(target) as temporary:
                copyfile(source, temporary)

    def _path(self, sha256: str) -> Path:
        return self.folder / "files" / sha256[:2] / sha256

    def _lock(self, kind: str, digest: str, timeout: float = -1) -> FileLock:
        """One of 256 locks per kind. A holder of an artifact's lock may take a file's lock, but not the reverse."""
        locks = self.folder / "locks"
        locks.mkdir(parents=True, exist_ok=True)
        return FileLock(locks / f"{kind}-{digest[:2]}.lock", timeout=timeout)

    def _remove_view(self, view: Path) -> bool:
        try:
            with self._lock("artifact", view.name, timeout=0):
                rmtree(view)
        except FileNotFoundError:  # another process was faster
            return not view.exists()
        except Timeout:  # in use
            return False
        return True

    def _remove_unlinked(self, copies: Iterable[Path], held: "_Held", now: float, spare_younger_than: timedelta) -> int:
        """Remove those of ``copies`` that no artifact's folder links to."""
        removed = 0
        for path in copies:
            with suppress(FileNotFoundError, Timeout):
                status = path.stat()
                if status.st_nlink == 1 and now - status.st_mtime >= spare_younger_than.total_seconds():
                    with self._lock("file", path.name, timeout=0):
                        path.unlink()
                        held.forget_copy(status.st_ino)
                        removed += 1
        return removed


@dataclass(frozen=True)
class _View:
    """The folder of one artifact, and the inodes of its files."""

    path: Path
    last_use: float
    inodes: tuple[int, ...]


@dataclass
class _Held:
    """What a cache holds, from one walk through it: what was removed is taken out here instead of walking again.

    ``sizes`` and ``links``: inode -> bytes, and how many names it has in the cache. ``copies``: inode -> path below
    ``files``.
    """

    views: list[_View]
    copies: dict[int, Path]
    sizes: dict[int, int]
    links: Counter[int]

    @classmethod
    def of(cls, folder: Path) -> "_Held":
        held = cls([], {}, {}, Counter())
        for path, status in _files_below(folder / "files"):
            held.copies[status.st_ino] = path
            held._add(status)
        for path in sorted(folder.glob("artifacts/*")):
            with suppress(FileNotFoundError):
                last_use = path.stat().st_mtime
                statuses = [status for _, status in _files_below(path)]
                held.views.append(_View(path, last_use, tuple(status.st_ino for status in statuses)))
                for status in statuses:
                    held._add(status)
        return held

    @property
    def bytes(self) -> int:
        """Bytes on disk, hard links counted once."""
        return self._bytes

    def forget(self, view: _View) -> list[Path]:
        """``view`` was removed; the copies that only its files linked to."""
        unlinked = []
        for inode in view.inodes:
            self._unlink(inode)
            if inode in self.copies and self.links[inode] == 1:
                unlinked.append(self.copies[inode])
        return unlinked

    def forget_copy(self, inode: int) -> None:
        """The copy with this inode was removed."""
        self.copies.pop(inode, None)
        self._unlink(inode)

    def __post_init__(self) -> None:
        self._bytes = sum(self.sizes.values())

    def _add(self, status: os.stat_result) -> None:
        if status.st_ino not in self.sizes:
            self.sizes[status.st_ino] = status.st_size
            self._bytes += status.st_size
        self.links[status.st_ino] += 1

    def _unlink(self, inode: int) -> None:
        self.links[inode] -= 1
        if self.links[inode] == 0:
            self._bytes -= self.sizes.pop(inode)


def _files_below(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            with suppress(FileNotFoundError):
                status = path.lstat()
                if stat.S_ISREG(status.st_mode):
                    yield path, status


def _is_intact(path: Path, file: StoredFile) -> bool:
    return path.is_file() and path.stat().st_size == file.size and sha256_of_file(path) == file.sha256
