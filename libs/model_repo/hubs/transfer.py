"""Bringing single files from a hub into a staging folder, several at a time, with patience and proof.

A file comes out of here whole, with the digest it should have, and flushed to disk. See ``download`` for where files go
then, and for the lock.
"""

import errno
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from libs.errors import DiskFullError, HubError, HubUnavailableError
from libs.files.atomic_write import flush_to_disk
from libs.model_repo.hubs.download_plan import WantedFile, git_blob_digest
from libs.model_repo.hubs.hub import DownloadCancelledError, Hub, partial_path
from libs.progress import Progress
from libs.storage.backends.sha256 import sha256_of_file

STAGE = "downloading"
_DISK_FULL = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True)
class HubBackoff:
    """How often to ask a hub without receiving a byte, and the pause before the second try (doubled each time).

    A hub that asks for a pause gets it, up to ``longest_asked_seconds``: nobody waits for hours without a word.
    """

    attempts: int = 5
    first_pause_seconds: float = 1.0
    longest_pause_seconds: float = 120.0
    longest_asked_seconds: float = 900.0


class BackoffTimer:
    """Counts fruitless tries of one thing and waits between them."""

    def __init__(self, policy: HubBackoff, cancelled: threading.Event | None = None) -> None:
        self._policy, self._cancelled, self._failures = policy, cancelled or threading.Event(), 0

    def wait_after(self, error: HubUnavailableError, *, progressed: bool = False) -> None:
        """Wait as long as the hub asks, at least as long as the policy says.

        Raises:
            HubUnavailableError: ``error`` itself, after too many tries in a row without progress; or the hub asks for
                more patience than the policy has, which the message says.
            DownloadCancelledError: another file failed for good meanwhile.
        """
        self._failures = 1 if progressed else self._failures + 1
        if self._failures >= self._policy.attempts:
            raise error
        asked = error.retry_after or 0.0
        if asked > self._policy.longest_asked_seconds:
            raise HubUnavailableError(f"{error} (it asks to wait {asked / 60:,.0f} minutes)", asked) from error
        pause = self._policy.first_pause_seconds * 2 ** (self._failures - 1)
        pause = max(min(pause, self._policy.longest_pause_seconds), asked)
        if self._cancelled.wait(pause):
            raise DownloadCancelledError


class Transfer:
    """One run: the files of one part. ``finish`` is called with each received file and its SHA-256, one at a time."""

    def __init__(
        self,
        hub: Hub,
        staging: Callable[[WantedFile], Path],
        finish: Callable[[WantedFile, Path, str], None],
        *,
        retry: HubBackoff,
        progress: Progress,
    ) -> None:
        self._hub, self._staging, self._finish = hub, staging, finish
        self._retry, self._progress = retry, progress
        self._guard = threading.Lock()
        self._cancelled = threading.Event()
        self._done = self._total = 0

    def run(self, files: Sequence[WantedFile], workers: int) -> None:
        """Bring all files, the largest first; the first error stops the others.

        Raises:
            HubError, HubUnavailableError, DiskFullError: as :func:`libs.model_repo.hubs.download.download_part`.
        """
        self._total = sum(file.remote.size for file in files)
        with ThreadPoolExecutor(max(1, workers), thread_name_prefix="download") as pool:
            jobs = [pool.submit(self._bring, file) for file in sorted(files, key=lambda file: -file.remote.size)]
            try:
                done, _ = wait(jobs, return_when=FIRST_EXCEPTION)
                for job in done:
                    job.result()
            except BaseException:
                self._cancelled.set()
                pool.shutdown(cancel_futures=True)
                raise

    def _bring(self, file: WantedFile) -> None:
        try:
            received, digest = self._receive_proven(file)
            flush_to_disk(received)
            with self._guard:
                self._finish(file, received, digest)
        except OSError as error:
            if error.errno not in _DISK_FULL:
                raise
            raise DiskFullError(
                f"{file.path.parent}: the disk is full; make room and start the download again, it carries on where it "
                "stopped"
            ) from error

    def _receive_proven(self, file: WantedFile) -> tuple[Path, str]:
        """The received file and its SHA-256. What an earlier run left may be damaged: then once more, all of it."""
        digest = ""
        for _ in range(2):
            received = self._receive(file)
            digest = sha256_of_file(received)
            blob = git_blob_digest(received) if file.needs_git_blob else None
            if file.is_satisfied_by(digest, blob):
                return received, digest
            received.unlink()
            self._advance(file, -file.remote.size)
        raise HubError(
            f"{file.name}: the hub sent bytes with sha256 {digest}, expected {file.sha256 or 'those it lists'} "
            f"({file.listing.repo_id} at {file.listing.revision}); nothing was changed. Try the other hub (MODEL_HUB) "
            "or another address (MODEL_HUB_ENDPOINT)"
        )

    def _receive(self, file: WantedFile) -> Path:
        """Ask until the whole file is there."""
        staging = self._staging(file)
        partial = partial_path(staging / file.remote.path)
        timer = BackoffTimer(self._retry, self._cancelled)
        most = _size(partial)
        while True:
            counter = _Counter(lambda count: self._advance(file, count))
            try:
                received = self._hub.fetch(file.listing, file.remote, staging, counter)
            except HubUnavailableError as error:
                self._advance(file, -counter.total)
                # Progress is more than ever before: a hub that sends now these bytes, now those, makes none.
                timer.wait_after(error, progressed=_size(partial) > most)
                most = max(most, _size(partial))
                continue
            if _size(received) != file.remote.size:
                raise HubError(f"{file.name}: the hub sent {_size(received):,} of {file.remote.size:,} bytes")
            self._advance(file, file.remote.size - counter.total)
            return received

    def _advance(self, file: WantedFile, count: int) -> None:
        if self._cancelled.is_set():
            raise DownloadCancelledError
        with self._guard:
            self._done += count
            self._progress(STAGE, self._done, self._total, file.name)


class _Counter:
    """Passes on byte counts and remembers their sum."""

    def __init__(self, advance: Callable[[int], None]) -> None:
        self._advance, self.total = advance, 0

    def __call__(self, count: int) -> None:
        self.total += count
        self._advance(count)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
