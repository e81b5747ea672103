"""What to do for each file, from the hub's listing, the lock file and what is on the disk.

Nothing is fetched or written here, and everything that could be refused is refused here, before the first byte.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from libs.errors import DiskFullError, HubError, ModelFilesError
from libs.model_repo.files.repository import path_of, safe_parts
from libs.model_repo.hubs.hub import Listing, RemoteFile
from libs.model_repo.hubs.sources import PartSource
from libs.model_repo.layout import RepositoryLayout
from libs.model_repo.verification.lock import LockedFile, LockedListing, RepositoryLock

RESERVED_BYTES = 64 * 1024 * 1024
"""Left free on the disk: lock files, logs and other programs need to write too."""


@dataclass(frozen=True)
class WantedFile:
    """One file a part needs: where it comes from, where it goes, and what its bytes must be (None: not known yet)."""

    name: str
    path: Path
    listing: Listing
    remote: RemoteFile
    sha256: str | None

    @property
    def needs_git_blob(self) -> bool:
        """True if only git's digest says what the bytes should be."""
        return self.sha256 is None and self.remote.git_blob is not None

    def is_satisfied_by(self, sha256: str, git_blob: str | None) -> bool:
        """True if bytes with these digests are the wanted ones."""
        if self.sha256 is not None:
            return sha256 == self.sha256
        return self.remote.git_blob is None or git_blob == self.remote.git_blob


def wanted_files(
    layout: RepositoryLayout, source: PartSource, listing: Listing, lock: RepositoryLock, *, hub: str, update: bool
) -> list[WantedFile]:
    """The files of ``source`` in ``listing``, checked against the lock.

    Args:
        layout: the repository they go to.
        source: which files, and to which folder.
        listing: what the hub says it has.
        lock: what it had before; may be empty.
        hub: the name of the hub.
        update: True accepts another revision than the locked one (and its bytes).

    Raises:
        HubError: the hub has none of these files, lists a file twice, names one that would leave the folder, or lists
            other files or bytes than the lock for the same revision; or it is at another revision with other files and
            ``update`` is False.
    """
    files: dict[str, RemoteFile] = {}
    for remote in listing.files:
        try:
            safe_parts(remote.path)
        except ModelFilesError as error:
            raise HubError(f"{listing.repo_id}: {error}; nothing was fetched, do not use this hub") from None
        if source.watches(remote.path):
            if remote.path in files:
                raise HubError(f"{listing.repo_id}: lists {remote.path} twice; nothing was fetched")
            files[remote.path] = remote
    wanted = {path: remote for path, remote in files.items() if source.wants(path)}
    if not wanted:
        patterns = ", ".join(source.patterns)
        raise HubError(f"{listing.repo_id}: has no {patterns} at revision {listing.revision}; check the revision")
    if not update:
        _check_against_lock(source, listing, files, lock, hub)
    return [
        WantedFile(
            name, path_of(layout, name), listing, remote, _expected(remote, lock.files.get(name), listing, update)
        )
        for name, remote in sorted((source.name_of(path), remote) for path, remote in wanted.items())
    ]


def locked_listing(source: PartSource, listing: Listing, hub: str) -> LockedListing:
    """What the lock keeps of a listing."""
    sizes = {file.path: file.size for file in sorted(listing.files, key=lambda file: file.path)}
    watched = {path: size for path, size in sizes.items() if source.watches(path)}
    return LockedListing(hub, listing.revision, watched)


def _expected(remote: RemoteFile, locked: LockedFile | None, listing: Listing, update: bool) -> str | None:
    if locked is None or update or locked.source != listing.repo_id:
        return remote.sha256
    return locked.sha256


def _check_against_lock(
    source: PartSource, listing: Listing, files: Mapping[str, RemoteFile], lock: RepositoryLock, hub: str
) -> None:
    before = lock.listings.get(listing.repo_id)
    differences = list(_differences(source, listing, files, lock, before))
    if not differences:
        return
    shown = "; ".join(differences[:3]) + (f"; and {len(differences) - 3} more" if len(differences) > 3 else "")
    if before and (before.hub, before.revision) == (hub, listing.revision):
        raise HubError(
            f"{listing.repo_id}: the hub lists other files for revision {listing.revision} than it did when the lock "
            f"file was written ({shown}); a revision never changes, so one of the two cannot be trusted. Nothing was "
            "changed; try the other hub (MODEL_HUB), or the hub's own address instead of a mirror (MODEL_HUB_ENDPOINT)"
        )
    locked_at = before.revision if before else "another one"
    raise HubError(
        f"{listing.repo_id}: {hub} is at revision {listing.revision}, the lock file at {locked_at} ({shown}). Nothing "
        "was changed; to take the new revision, download with --update"
    )


def _differences(
    source: PartSource,
    listing: Listing,
    files: Mapping[str, RemoteFile],
    lock: RepositoryLock,
    before: LockedListing | None,
) -> Iterator[str]:
    listed_before = before.sizes if before else {}
    for path in sorted(files.keys() | listed_before.keys()):
        remote, locked = files.get(path), lock.files.get(source.name_of(path))
        if remote is None:
            yield f"{path} is gone"
        elif before and path not in listed_before:
            yield f"{path} is new"
        elif remote.size != listed_before.get(path, remote.size):
            yield f"{path} has {remote.size:,} bytes, before {listed_before[path]:,}"
        elif locked and locked.source == listing.repo_id and remote.sha256 not in (None, locked.sha256):
            yield f"{path} has sha256 {remote.sha256}, locked {locked.sha256}"


def git_blob_digest(path: Path) -> str:
    """SHA-1 of git's blob object of a (small) file, as hubs list it for files outside their large file storage."""
    content = path.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False).hexdigest()


def check_disk(folder: Path, needed: int, free: int) -> None:
    """Refuse a download that would fill the disk.

    Raises:
        DiskFullError: names the folder, what is needed and what is free, in bytes.
    """
    if needed + RESERVED_BYTES > free:
        raise DiskFullError(
            f"{folder}: {needed:,} bytes are still to be fetched (and {RESERVED_BYTES:,} kept free), but only {free:,} "
            "are free; make room or set MODELS_DIR to another disk"
        )
