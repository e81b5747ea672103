"""Fetching one part of a repository from a hub, so that whatever stands under a final name is complete and proven.

Each file is received in a staging folder on the same disk, proven, renamed into place, and entered in the lock, in this
order; a kill at any point costs at most the bytes in flight. See ``sources`` for what to fetch, ``download_plan`` for
deciding, ``transfer`` for receiving, ``modelscope`` and ``huggingface`` for talking to hubs.
"""

import contextlib
import shutil
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from libs.errors import HubUnavailableError, ModelFilesError
from libs.model_repo.files.repository import LEFTOVER_TRANSFORMER, STAGING_NAME, Part, part_of, path_of, wan_name
from libs.model_repo.files.shared_files import link_shared, locked_in_other_folders
from libs.model_repo.files.write_access import can_write, require_write_access
from libs.model_repo.hubs.download_plan import WantedFile, check_disk, git_blob_digest, locked_listing, wanted_files
from libs.model_repo.hubs.hub import OFFLINE_VARIABLE, Hub, Listing, is_offline, partial_path
from libs.model_repo.hubs.sources import PartSource, sources_of
from libs.model_repo.hubs.transfer import STAGE, BackoffTimer, HubBackoff, Transfer
from libs.model_repo.layout import RepositoryLayout
from libs.model_repo.verification.digests import DigestCache, Signature, sha256_of_files
from libs.model_repo.verification.lock import LockedFile, RepositoryLock, hold_repository, read_lock, write_lock
from libs.progress import Progress, no_progress


@dataclass(frozen=True)
class DownloadReport:
    """What was done for one part; file names as in ``repository_files``, ``revisions`` by hub repository."""

    part: Part
    fetched: tuple[str, ...] = ()
    linked: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    bytes_fetched: int = 0
    revisions: Mapping[str, str] = field(default_factory=dict)
    offline: bool = False
    """True if no hub was asked: everything was there and as the lock says."""


def download_part(
    layout: RepositoryLayout,
    part: Part,
    hub: Hub,
    *,
    siblings: Iterable[RepositoryLayout] = (),
    revision: str | None = None,
    update: bool = False,
    with_base_transformer: bool = False,
    workers: int = 4,
    retry: HubBackoff | None = None,
    progress: Progress = no_progress,
) -> DownloadReport:
    """Make one part of a repository complete; another process doing the same waits for this one.

    Args:
        layout: the repository; its variant says where the files come from.
        part: ``checkpoint``, ``pose_models`` or ``wan_resources``.
        hub: from ``open_hub``.
        siblings: repositories whose equal files are hard-linked instead of fetched.
        revision: branch, tag or commit; else that of the variant's row, else (where the hub can) that of the lock.
        update: accept another revision than the locked one.
        with_base_transformer: also the base ``transformer/`` of Wan.
        workers: files fetched at the same time.
        retry: patience with a hub that does not answer.
        progress: called with bytes of all files to fetch.

    Raises:
        InputError: this variant is not on any hub.
        HubError: the hub refused, or serves other bytes than it lists or the lock has.
        HubUnavailableError: the hub does not answer and something is missing.
        DiskFullError: the disk has no room; checked before the first byte.
    """
    sources = sources_of(layout.variant, part, with_base_transformer=with_base_transformer)
    backoff = retry or HubBackoff()
    with hold_repository(layout):
        lock = read_lock(layout) or RepositoryLock(layout.variant.name)
        try:
            if is_offline():
                raise HubUnavailableError(f"{OFFLINE_VARIABLE} is set, so nothing is fetched")
            listings = [_list(hub, source, lock, revision, backoff) for source in sources]
        except HubUnavailableError as error:
            return _stay_offline(layout, part, sources, lock, error)
        wanted = [
            file
            for source, listing in zip(sources, listings, strict=True)
            for file in wanted_files(layout, source, listing, lock, hub=hub.name, update=update)
        ]
        lock = _remember_listings(layout, lock, zip(sources, listings, strict=True), hub, update=update)
        repository = _Repository(layout, hub, lock, keep_entries=not update)
        try:
            kept, linked, to_fetch = repository.sort(wanted, locked_in_other_folders(siblings), progress)
            if to_fetch:
                require_write_access(layout, f"{len(to_fetch)} files are missing (first: {to_fetch[0].name})")
            repository.check_disk(to_fetch)
            size = sum(file.remote.size for file in to_fetch)
            progress(STAGE, 0, size, part)
            transfer = Transfer(hub, repository.staging, repository.place, retry=backoff, progress=progress)
            transfer.run(to_fetch, workers)
            repository.forget_what_is_gone(part, wanted)
        finally:
            repository.cache.save()
        repository.remove_staging(wanted)
    revisions = {listing.repo_id: listing.revision for listing in listings}
    return DownloadReport(
        part, tuple(file.name for file in to_fetch), kept=kept, linked=linked, bytes_fetched=size, revisions=revisions
    )


def _list(hub: Hub, source: PartSource, lock: RepositoryLock, revision: str | None, retry: HubBackoff) -> Listing:
    repo_id = source.repository.repo_id
    requested = revision or source.repository.revision
    if requested is None and hub.revisions_are_commits:
        locked = {file.revision for file in lock.files.values() if (file.source, file.hub) == (repo_id, hub.name)}
        requested = locked.pop() if len(locked) == 1 else None
    timer = BackoffTimer(retry)
    while True:
        try:
            return hub.list_files(repo_id, requested)
        except HubUnavailableError as error:
            if hub.retries_listings:
                raise
            timer.wait_after(error)


def _remember_listings(
    layout: RepositoryLayout,
    lock: RepositoryLock,
    found: Iterable[tuple[PartSource, Listing]],
    hub: Hub,
    *,
    update: bool,
) -> RepositoryLock:
    """The lock with listings it did not have yet, written before the first file comes."""
    for source, listing in found:
        if update or listing.repo_id not in lock.listings:
            lock = lock.with_listing(listing.repo_id, locked_listing(source, listing, hub.name))
    if lock != read_lock(layout):
        write_lock(layout, lock)
    return lock


def _stay_offline(
    layout: RepositoryLayout,
    part: Part,
    sources: Iterable[PartSource],
    lock: RepositoryLock,
    reason: HubUnavailableError,
) -> DownloadReport:
    """What is there, if it is everything the lock has of this part.

    Raises:
        HubUnavailableError: something is missing, damaged or was never fetched.
    """
    locked = lock.of_part(part)
    known = {entry.source for entry in locked.values()}
    what = f"{part} of {layout.variant.name}"
    if any(source.repository.repo_id not in known for source in sources):
        raise HubUnavailableError(f"{what} is not complete, and no hub can be asked: {reason}")
    paths = {name: path_of(layout, name) for name in locked}
    wrong = [name for name, path in paths.items() if not path.is_file()]
    if not wrong:
        digests = sha256_of_files(paths.values(), DigestCache.beside(layout))
        wrong = [name for name, path in paths.items() if digests[path] != locked[name].sha256]
    if wrong:
        count = f"{len(wrong)} files are missing or damaged (first: {wrong[0]})"
        raise HubUnavailableError(f"{what}: {count}, and no hub can be asked: {reason}")
    return DownloadReport(part, kept=tuple(locked), offline=True)


class _Repository:
    """The repository being filled: its lock, its digests, and where files stand on their way in."""

    def __init__(self, layout: RepositoryLayout, hub: Hub, lock: RepositoryLock, *, keep_entries: bool) -> None:
        self._layout, self._hub, self._lock, self._keep_entries = layout, hub, lock, keep_entries
        self._guard = threading.Lock()
        self.cache = DigestCache.beside(layout)

    def sort(
        self, wanted: list[WantedFile], elsewhere: Mapping[str, Path], progress: Progress
    ) -> tuple[tuple[str, ...], tuple[str, ...], list[WantedFile]]:
        """(files that are there already, files linked from a sibling, files to fetch); the first two get locked."""
        for file in wanted:
            _check_place(file.path)
        candidates = [file for file in wanted if file.path.is_file() and file.path.stat().st_size == file.remote.size]
        digests = sha256_of_files((file.path for file in candidates), self.cache, progress=progress)
        kept, linked, to_fetch = [], [], []
        may_link = can_write(self._layout.root) and can_write(self._layout.pretrained)
        entries: dict[str, LockedFile] = {}
        for file in wanted:
            digest = digests.get(file.path)
            blob = git_blob_digest(file.path) if digest and file.needs_git_blob else None
            if digest and file.is_satisfied_by(digest, blob):
                kept.append(file.name)
                entries[file.name] = self._entry(file, digest)
            elif file.sha256 and may_link and link_shared(file.path, file.sha256, elsewhere, self.cache):
                linked.append(file.name)
                entries[file.name] = self._entry(file, file.sha256)
                self.cache.record(file.path, Signature.of(file.path), file.sha256)
            else:
                to_fetch.append(file)
        self._enter(entries)
        return tuple(kept), tuple(linked), to_fetch

    def staging(self, file: WantedFile) -> Path:
        """A folder on the disk of the final place, its own for each revision: bytes of two never mix."""
        return self._staging_base(file) / f"{_flat(file.listing.repo_id)}-{_flat(file.listing.revision)[:16]}"

    def _staging_base(self, file: WantedFile) -> Path:
        base = self._layout.root if part_of(file.name) == "checkpoint" else self._layout.pretrained
        return base / STAGING_NAME

    def check_disk(self, files: list[WantedFile]) -> None:
        """Refuse what would fill a disk, before the first byte.

        Raises:
            DiskFullError: names the folder, what is needed and what is free.
        """
        needed: dict[int, int] = {}
        folders: dict[int, Path] = {}
        for file in files:
            staging = self.staging(file)
            staging.mkdir(parents=True, exist_ok=True)
            partial = partial_path(staging / file.remote.path)
            received = partial.stat().st_size if partial.is_file() else 0
            device = staging.stat().st_dev
            folders[device] = staging
            needed[device] = needed.get(device, 0) + max(file.remote.size - received, 0)
        for device, folder in folders.items():
            check_disk(self._layout.root, needed[device], shutil.disk_usage(folder).free)

    def place(self, file: WantedFile, received: Path, sha256: str) -> None:
        """Give a proven file its final name and its entry in the lock."""
        file.path.parent.mkdir(parents=True, exist_ok=True)
        received.replace(file.path)
        self.cache.record(file.path, Signature.of(file.path), sha256)
        self._enter({file.name: self._entry(file, sha256)})

    def forget_what_is_gone(self, part: Part, wanted: list[WantedFile]) -> None:
        """After an update: files the new revision no longer has leave the lock and the disk."""
        names = {file.name for file in wanted}
        repositories = {file.listing.repo_id for file in wanted}
        transformer = wan_name(self._layout, LEFTOVER_TRANSFORMER)
        gone = {
            name
            for name, entry in self._lock.of_part(part).items()
            if entry.source in repositories and name not in names and not name.startswith(f"{transformer}/")
        }
        if gone:
            self._lock = self._lock.without(gone)
            write_lock(self._layout, self._lock)
            for name in gone:
                path_of(self._layout, name).unlink(missing_ok=True)

    def remove_staging(self, wanted: list[WantedFile]) -> None:
        """Remove what is left of these repositories' downloads, those of other revisions included."""
        for base, prefix in {(self._staging_base(file), _flat(file.listing.repo_id)) for file in wanted}:
            for folder in base.glob(f"{prefix}-*"):
                shutil.rmtree(folder, ignore_errors=True)
            with contextlib.suppress(OSError):
                base.rmdir()

    def _entry(self, file: WantedFile, sha256: str) -> LockedFile:
        locked = self._lock.files.get(file.name)
        same = locked is not None and (locked.sha256, locked.source) == (sha256, file.listing.repo_id)
        if locked is not None and same and self._keep_entries:
            return locked
        return LockedFile(file.remote.size, sha256, file.listing.repo_id, file.listing.revision, self._hub.name)

    def _enter(self, entries: Mapping[str, LockedFile]) -> None:
        with self._guard:
            lock = self._lock.with_files(entries)
            if lock != self._lock:
                write_lock(self._layout, lock)
                self._lock = lock


def _flat(name: str) -> str:
    return name.replace("/", "--")


def _check_place(path: Path) -> None:
    """A folder in the place of a file, or a file in the place of a folder, is a person's to move."""
    blocking = path if path.is_dir() else next((parent for parent in path.parents if parent.is_file()), None)
    if blocking is not None:
        kind = "a folder where the hub has a file" if blocking == path else "a file where the hub has a folder"
        raise ModelFilesError(f"{blocking}: is {kind}; move it away and start the download again")
