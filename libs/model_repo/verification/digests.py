"""SHA-256 of large files: in parallel, and not again while a file is unchanged.

A digest is remembered under the file's signature (size, modification time in nanoseconds, inode). A file written to
within the clock's granularity of being hashed could change without its signature changing, so hashing waits until the
last write is older than that. Bytes that rot without a write keep their signature: ``trust_cache=False`` reads all.

See ``lock`` for what a digest should be.
"""

import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple, Self

from filelock import FileLock

from libs.errors import ModelFilesError
from libs.files.atomic_write import atomic_write
from libs.files.json_file import read_json_file
from libs.model_repo.files.write_access import can_write
from libs.model_repo.layout import RepositoryLayout
from libs.progress import Progress, no_progress

CACHE_NAME = ".digest_cache.json"

_BLOCK_BYTES = 1024 * 1024
_CLOCK_GRANULARITY_SECONDS = 0.02  # above the timer tick by which file systems stamp writes
_FORMAT = 1


class Signature(NamedTuple):
    """What tells whether a file is still the one that was hashed."""

    size: int
    modified_ns: int
    inode: int

    @classmethod
    def of(cls, path: Path) -> Self:
        """The signature of the file ``path`` leads to.

        Raises:
            FileNotFoundError: there is no such file.
        """
        status = path.stat()
        return cls(status.st_size, status.st_mtime_ns, status.st_ino)


class DigestCache:
    """Signature -> digest, kept in one JSON file beside the repositories; losing it costs time, never correctness.

    Safe for threads. Several processes may use the same file: :meth:`save` merges.
    """

    def __init__(self, path: Path | None, also_known: Path | None = None) -> None:
        """Args: the file; and another one that is read, too, and never written."""
        self.path = path
        self._guard = threading.Lock()
        self._by_path = _read_entries(also_known) | _read_entries(path)
        self._by_signature = dict(self._by_path.values())
        self._new: dict[str, tuple[Signature, str]] = {}

    @classmethod
    def beside(cls, layout: RepositoryLayout, name: str = CACHE_NAME) -> Self:
        """The cache of the folder the repository lies in, shared by all variants there.

        Where nothing can be written there, what is learned is kept elsewhere.
        """
        beside = layout.root.parent / name
        if layout.writable_root is None or can_write(layout.root.parent):
            return cls(beside)
        return cls(layout.writable_root / name, also_known=beside)

    def known(self, path: Path) -> str | None:
        """The digest of ``path`` if its present bytes were hashed before; a hard link to a hashed file counts."""
        signature = Signature.of(path)
        with self._guard:
            return self._by_signature.get(signature)

    def changed(self, path: Path) -> bool:
        """True if ``path`` was hashed once and has been written to since."""
        with self._guard:
            entry = self._by_path.get(_key(path))
        return entry is not None and entry[0] != Signature.of(path)

    def record(self, path: Path, signature: Signature, digest: str) -> None:
        """Remember ``digest`` for ``path``; ``signature`` was taken before its bytes were read."""
        with self._guard:
            entry = (signature, digest)
            self._by_path[_key(path)] = self._new[_key(path)] = entry
            self._by_signature[signature] = digest

    def save(self) -> None:
        """Write what is new; where that fails (read-only, a full disk) the next time is slower, and nothing else."""
        with self._guard:
            new, self._new = self._new, {}
        if self.path is None or not new:
            return
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(f"{self.path}.lock"):
                content = {"format": _FORMAT, "files": _read_entries(self.path) | new}
                with atomic_write(self.path) as temporary:
                    temporary.write_text(json.dumps(content, indent=1))
        except OSError as error:
            logging.getLogger(__name__).warning("%s: could not be written: %s", self.path, error)


def _key(path: Path) -> str:
    return str(path.absolute())


def _read_entries(path: Path | None) -> dict[str, tuple[Signature, str]]:
    if path is None:
        return {}
    try:
        content = read_json_file(path, "digest cache")
        if content["format"] != _FORMAT:
            return {}
        return {
            name: (Signature(*map(int, signature)), str(digest))
            for name, (signature, digest) in content["files"].items()
        }
    except (OSError, ModelFilesError, ValueError, OverflowError, KeyError, TypeError, AttributeError):
        return {}


def sha256_of_files(
    paths: Iterable[Path],
    cache: DigestCache,
    *,
    trust_cache: bool = True,
    progress: Progress = no_progress,
) -> dict[Path, str]:
    """SHA-256 of each file, those not in ``cache`` read in parallel, the largest first.

    Args:
        paths: existing files.
        cache: what is known already; saved at the end, also after an error.
        trust_cache: False reads every byte again.
        progress: called with bytes hashed.

    Raises:
        ModelFilesError: a file changed while it was read.
        OSError: a file cannot be read.
    """
    results = _hash(paths, cache, trust_cache=trust_cache, progress=progress, stop_at_error=True)
    return {path: result for path, result in results.items() if isinstance(result, str)}


def sha256_or_errors(
    paths: Iterable[Path],
    cache: DigestCache,
    *,
    trust_cache: bool = True,
    progress: Progress = no_progress,
) -> dict[Path, str | Exception]:
    """Hash files like :func:`sha256_of_files`, with the error of each file that could not be hashed."""
    return _hash(paths, cache, trust_cache=trust_cache, progress=progress, stop_at_error=False)


def _hash(
    paths: Iterable[Path], cache: DigestCache, *, trust_cache: bool, progress: Progress, stop_at_error: bool
) -> dict[Path, str | Exception]:
    wanted = list(dict.fromkeys(paths))
    digests: dict[Path, str | Exception] = {}
    inodes: dict[Signature, list[Path]] = {}
    for path in wanted:
        try:
            digest = cache.known(path) if trust_cache else None
            if digest is not None:
                digests[path] = digest
            else:
                inodes.setdefault(Signature.of(path), []).append(path)
        except OSError as error:
            if stop_at_error:
                raise
            digests[path] = error
    counter = _ByteCounter(progress, sum(signature.size for signature in inodes))
    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # hashing works outside the interpreter lock
            jobs = {
                pool.submit(_hash_and_record, same[0], cache, counter.of(same[0].name)): same
                for _, same in sorted(inodes.items(), key=lambda item: -item[0].size)
            }
            try:
                for job in as_completed(jobs):
                    problem = job.exception()
                    if isinstance(problem, OSError | ModelFilesError) and not stop_at_error:
                        digests.update(dict.fromkeys(jobs[job], problem))
                        continue
                    signature, digest = job.result()
                    for path in jobs[job]:  # one file by its several names
                        digests[path] = digest
                        cache.record(path, signature, digest)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
    finally:
        cache.save()
    return {path: digests[path] for path in wanted}


class _ByteCounter:
    """Adds up what several threads have read and reports it, one call at a time."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0
        self._guard = threading.Lock()

    def of(self, name: str) -> Callable[[int], None]:
        return lambda count: self._add(count, name)

    def _add(self, count: int, name: str) -> None:
        with self._guard:
            self._done += count
            self._progress("hashing", self._done, self._total, name)


def _hash_and_record(path: Path, cache: DigestCache, advance: Callable[[int], None]) -> tuple[Signature, str]:
    """What the file was before its bytes were read, and their digest; remembered at once, even if a later step
    fails."""
    _wait_until_settled(path)
    before = Signature.of(path)
    digest = hashlib.sha256()
    block = bytearray(_BLOCK_BYTES)
    view = memoryview(block)
    left = before.size
    with path.open("rb", buffering=0) as file:
        while left and (count := file.readinto(view[: min(left, _BLOCK_BYTES)])):  # it may grow without end
            digest.update(view[:count])
            advance(count)
            left -= count
    if Signature.of(path) != before:
        raise ModelFilesError(f"{path}: changed while it was read; wait until nothing writes to it and try again")
    cache.record(path, before, digest.hexdigest())
    return before, digest.hexdigest()


def _wait_until_settled(path: Path) -> None:
    age = time.time() - path.stat().st_mtime
    if 0 <= age < _CLOCK_GRANULARITY_SECONDS:
        time.sleep(_CLOCK_GRANULARITY_SECONDS - age)
