"""The lock file of a repository: every file with size, SHA-256, and where it came from.

Written when files arrive, checked by every later download and verification. It is the answer to "are these the bytes we
proved?", so nothing rewrites an entry silently. See ``libs.model_repo.hubs.download`` for fetching, ``verify`` for
judging.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from filelock import FileLock

from libs.errors import ModelFilesError
from libs.files.atomic_write import atomic_write
from libs.files.json_file import read_json_file
from libs.messages.printable import printable
from libs.model_repo.files.repository import LOCK_NAME, PARTS, Part, files_of_part, part_of, path_of, safe_parts
from libs.model_repo.files.write_access import can_write, writable_folder
from libs.model_repo.layout import RepositoryLayout
from libs.model_repo.verification.digests import DigestCache, sha256_of_files
from libs.progress import Progress, no_progress

_FORMAT = 1
_SHA256_LENGTH = 64
_MAX_SIZE = 2**63


@dataclass(frozen=True)
class LockedFile:
    """What is known of one file. ``source`` is a hub repository or a sentence such as ``made by libs.sandbox``."""

    size: int
    sha256: str
    source: str
    revision: str | None = None
    hub: str | None = None


@dataclass(frozen=True)
class LockedListing:
    """What a hub once listed for one of its repositories: path there -> size, of the files that concern us."""

    hub: str
    revision: str
    sizes: Mapping[str, int]


@dataclass(frozen=True)
class RepositoryLock:
    """File name (as in ``repository_files``) -> what it must be; hub repository -> what it lists."""

    variant: str
    files: Mapping[str, LockedFile] = field(default_factory=dict)
    listings: Mapping[str, LockedListing] = field(default_factory=dict)

    def of_part(self, part: Part) -> dict[str, LockedFile]:
        """The entries of one part."""
        return {name: file for name, file in self.files.items() if part_of(name) == part}

    def with_files(self, files: Mapping[str, LockedFile]) -> Self:
        """This lock with entries added or replaced."""
        return replace(self, files=dict(sorted((dict(self.files) | dict(files)).items())))

    def with_listing(self, repo_id: str, listing: LockedListing) -> Self:
        """This lock with the listing of one hub repository added or replaced."""
        return replace(self, listings=dict(sorted((dict(self.listings) | {repo_id: listing}).items())))

    def without(self, names: set[str]) -> Self:
        """This lock without these entries."""
        return replace(self, files={name: file for name, file in self.files.items() if name not in names})


def lock_path(layout: RepositoryLayout) -> Path:
    """The path of a repository's lock file."""
    return layout.root / LOCK_NAME


def read_lock(layout: RepositoryLayout) -> RepositoryLock | None:
    """The lock of a repository, None if it has none; of one that cannot be written to also what is kept elsewhere.

    Raises:
        ModelFilesError: the file is there but is not a lock file of this variant.
    """
    own = _read(lock_path(layout), layout)
    if layout.writable_root is None or can_write(layout.root):
        return own
    kept = _read(writable_folder(layout) / LOCK_NAME, layout)
    if own is None or kept is None:
        return own or kept
    # What came with the files counts; of the rest only what is still there.
    there = {name: file for name, file in kept.files.items() if path_of(layout, name).is_file()}
    files = dict(sorted((there | dict(own.files)).items()))
    return replace(own, files=files, listings=dict(sorted((dict(kept.listings) | dict(own.listings)).items())))


def _read(path: Path, layout: RepositoryLayout) -> RepositoryLock | None:
    try:
        lock = _parse(read_json_file(path, "lock file"))
    except FileNotFoundError:
        return None
    except (ValueError, ModelFilesError) as error:
        reason = str(error).removeprefix(f"{path}: ")
        raise ModelFilesError(
            f"{path}: is not a lock file ({reason}); restore it, or move it away and lock the repository again with "
            f"`one-to-all models verify {layout.variant.name} --write-lock`"
        ) from None
    if lock.variant != layout.variant.name:
        raise ModelFilesError(
            f"{path}: is the lock of variant {printable(repr(lock.variant))}, expected {layout.variant.name!r}"
        )
    return lock


def _parse(content: Any) -> RepositoryLock:
    """The lock in a file's JSON.

    Raises:
        ValueError, ModelFilesError: says what is wrong.
    """
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        found = content.get("format") if isinstance(content, dict) else None
        raise ValueError(f"format {printable(repr(found))}, expected {_FORMAT}")
    files, listings = content.get("files"), content.get("listings", {})
    if not isinstance(files, dict) or not isinstance(listings, dict) or not isinstance(content.get("variant"), str):
        raise ValueError("it has no variant and files")
    for name, entry in files.items():
        safe_parts(name)
        _check_entry(name, entry, {"size": _is_size, "sha256": _is_sha256, "source": _is_text}, ("revision", "hub"))
    for repo_id, entry in listings.items():
        _check_entry(repo_id, entry, {"hub": _is_text, "revision": _is_text, "sizes": _are_sizes})
    return RepositoryLock(
        content["variant"],
        {name: LockedFile(**entry) for name, entry in sorted(files.items())},
        {repo_id: LockedListing(**entry) for repo_id, entry in sorted(listings.items())},
    )


def _check_entry(
    name: str, entry: Any, fields: Mapping[str, Callable[[Any], bool]], texts_or_none: Sequence[str] = ()
) -> None:
    shown = printable(name)
    if not isinstance(entry, dict):
        raise ValueError(f"the entry of {shown} has no {' and '.join(fields)}")
    unknown = entry.keys() - fields.keys() - {*texts_or_none}
    if unknown:
        raise ValueError(f"the entry of {shown} has a field {printable(repr(min(unknown)))} that is not known")
    for field_name, test in fields.items():
        if not test(entry.get(field_name)):
            raise ValueError(f"the entry of {shown} has no {field_name} that can be used")
    for field_name in texts_or_none:
        if not (entry.get(field_name) is None or _is_text(entry[field_name])):
            raise ValueError(f"the entry of {shown} has no {field_name} that can be used")


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MAX_SIZE


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_sha256(value: Any) -> bool:
    return isinstance(value, str) and len(value) == _SHA256_LENGTH and not value.strip("0123456789abcdef")


def _are_sizes(value: Any) -> bool:
    return isinstance(value, dict) and all(map(_is_size, value.values()))


def write_lock(layout: RepositoryLayout, lock: RepositoryLock) -> None:
    """Replace the lock file (or that kept elsewhere); call it inside :func:`hold_repository`."""
    path = lock_path(layout) if can_write(layout.root) else writable_folder(layout) / LOCK_NAME
    files = {name: asdict(file) for name, file in sorted(lock.files.items())}
    listings = {repo_id: asdict(listing) for repo_id, listing in lock.listings.items()}
    content = {"format": _FORMAT, "variant": lock.variant, "files": files, "listings": listings}
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def lock_repository(
    layout: RepositoryLayout,
    *,
    source: str = "found on this machine",
    replace_entries: bool = False,
    progress: Progress = no_progress,
) -> RepositoryLock:
    """Hash every file that is there and write the lock: what is here now is declared to be right.

    For repositories that no hub vouches for (the sandbox, files copied by hand). Verify the structure first.

    Args:
        layout: the repository.
        source: written into each new entry.
        replace_entries: True declares changed files right as well (the sandbox was written again).
        progress: called with bytes hashed.

    Raises:
        ModelFilesError: an existing entry has another digest and ``replace_entries`` is False; both are shown.
    """
    with hold_repository(layout):
        known = None if replace_entries else read_lock(layout)
        names = {name: path for part in PARTS for name, path in files_of_part(layout, part).items()}
        for name in names:
            safe_parts(name)
        digests = sha256_of_files(names.values(), DigestCache.beside(layout), progress=progress)
        entries = {}
        for name, path in names.items():
            locked = known.files.get(name) if known else None
            if locked and locked.sha256 != digests[path]:
                raise ModelFilesError(
                    f"{name}: its sha256 is {digests[path]}, the lock says {locked.sha256}; fetch it again, or remove "
                    f"{lock_path(layout)} if the new content is meant"
                )
            entries[name] = locked or LockedFile(path.stat().st_size, digests[path], source)
        lock = (known or RepositoryLock(layout.variant.name)).with_files(entries)
        if lock != known:
            write_lock(layout, lock)
    return lock


@contextmanager
def hold_repository(layout: RepositoryLayout) -> Iterator[None]:
    """One process (and thread) at a time changes this repository; others wait.

    The operating system releases the lock of a killed process. A repository that cannot be written to is held by a file
    elsewhere: by that, processes do not hash the same files at the same time.
    """
    folder = layout.root if can_write(layout.root) else writable_folder(layout)
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{LOCK_NAME}.lock"):
        yield
