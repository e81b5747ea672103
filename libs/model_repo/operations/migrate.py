"""Moving an old stash of pretrained files into a variant's repository, without storing them twice.

A plan is made and shown first; applying it again does nothing. See ``stash`` for deleting the stash.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from libs.errors import ModelFilesError
from libs.files.atomic_write import atomic_write
from libs.model_repo.files.repository import is_leftover, path_of, pretrained_name
from libs.model_repo.files.shared_files import hard_link
from libs.model_repo.files.write_access import require_write_access
from libs.model_repo.hubs.download_plan import check_disk
from libs.model_repo.layout import RepositoryLayout
from libs.model_repo.verification.digests import DigestCache, sha256_of_files
from libs.model_repo.verification.lock import LockedFile, RepositoryLock, hold_repository, read_lock, write_lock
from libs.progress import Progress, no_progress

STASH_FOLDER = Path("One-to-All-Animation/pretrained_models")
"""Where, below MODELS_DIR, the old workflow kept its pretrained files."""
SKIPPED_FOLDERS = frozenset({"transformer", "assets", "examples"})

Mode = Literal["hardlink", "copy", "symlink"]
_SOURCE = "migrated from an old stash"


@dataclass(frozen=True)
class MigrationStep:
    """One file that is to appear in the repository."""

    name: str
    source: Path
    target: Path
    size: int


@dataclass(frozen=True)
class MigrationPlan:
    """What a migration would do: files to bring, files that are there already, bytes left behind on purpose."""

    stash: Path
    steps: tuple[MigrationStep, ...]
    present: tuple[str, ...]
    skipped: tuple[str, ...]
    skipped_size: int

    @property
    def size(self) -> int:
        """Bytes of the files to bring."""
        return sum(step.size for step in self.steps)


@dataclass(frozen=True)
class MigrationReport:
    """What a migration did: names by the way they came."""

    linked: tuple[str, ...]
    copied: tuple[str, ...]
    present: tuple[str, ...]


def plan_migration(layout: RepositoryLayout, stash: Path, progress: Progress = no_progress) -> MigrationPlan:
    """Compare a stash with a repository; changes nothing.

    Args:
        layout: the repository the files go to.
        stash: the old ``pretrained_models`` folder.
        progress: called with bytes hashed (files of both that have the same name).

    Raises:
        ModelFilesError: there is no stash, or a file of the repository has the name of one in the stash and other
            content; both digests are shown.
    """
    if not stash.is_dir():
        raise ModelFilesError(f"{stash}: there is no old stash to migrate")
    files = dict(files_of_stash(stash))
    wanted = {name: path for name, path in files.items() if not is_skipped(name)}
    skipped = [name for name in files if is_skipped(name)]
    targets = {name: path_of(layout, pretrained_name(name)) for name in wanted}
    present = _already_there(layout, wanted, targets, progress)
    steps = tuple(
        MigrationStep(pretrained_name(name), path, targets[name], path.stat().st_size)
        for name, path in wanted.items()
        if name not in present
    )
    skipped_size = sum(files[name].stat().st_size for name in skipped)
    return MigrationPlan(stash, steps, tuple(map(pretrained_name, sorted(present))), tuple(skipped), skipped_size)


def files_of_stash(stash: Path) -> Iterator[tuple[str, Path]]:
    """(POSIX path in the stash, path) of every file in it, links to folders followed, sorted."""
    seen: set[Path] = set()
    for root, folders, names in os.walk(stash, followlinks=True):
        real = Path(root).resolve()
        if real in seen:  # a link that leads back up
            folders.clear()
            continue
        seen.add(real)
        folders.sort()
        for name in sorted(names):
            path = Path(root, name)
            if path.is_file():
                yield path.relative_to(stash).as_posix(), path


def is_skipped(name: str) -> bool:
    """True for what the repository does not need: the base transformer, teaser files, what a download left over."""
    *folders, file = name.split("/")
    return any(part in SKIPPED_FOLDERS or part.startswith(".") for part in folders) or is_leftover(file)


def _already_there(
    layout: RepositoryLayout, wanted: dict[str, Path], targets: dict[str, Path], progress: Progress
) -> set[str]:
    """Names whose target exists with the same content.

    Raises:
        ModelFilesError: a target exists with other content.
    """
    existing = [name for name, target in targets.items() if target.exists()]
    different = [name for name in existing if not targets[name].samefile(wanted[name])]
    paths = [path for name in different for path in (wanted[name], targets[name])]
    digests = sha256_of_files(paths, DigestCache.beside(layout), progress=progress)
    for name in different:
        old, new = digests[wanted[name]], digests[targets[name]]
        if old != new:
            raise ModelFilesError(
                f"{targets[name]}: exists with sha256 {new}, the stash has {old} under {wanted[name]}; nothing was "
                "changed. Remove the wrong one and migrate again"
            )
    return set(existing)


def apply_migration(
    layout: RepositoryLayout, plan: MigrationPlan, mode: Mode = "hardlink", progress: Progress = no_progress
) -> MigrationReport:
    """Carry out the plan of :func:`plan_migration`, then lock the migrated files.

    Args:
        layout: the repository.
        plan: from :func:`plan_migration`, made again if it is old.
        mode: ``hardlink`` (a copy where the disk differs), ``copy`` or ``symlink``.
        progress: called with bytes hashed for the lock.

    Raises:
        ModelFilesError: the lock has another digest for a file that came.
        DiskFullError: there is no room for the copies.
    """
    if plan.steps:
        require_write_access(layout, f"{len(plan.steps)} files are to be brought into it")
    with hold_repository(layout):
        if mode == "copy" or (mode == "hardlink" and on_another_disk(layout, plan)):
            layout.pretrained.mkdir(parents=True, exist_ok=True)
            check_disk(layout.pretrained, plan.size, shutil.disk_usage(layout.pretrained).free)
        linked, copied = [], []
        for step in plan.steps:
            step.target.parent.mkdir(parents=True, exist_ok=True)
            if _bring(step, mode):
                linked.append(step.name)
            else:
                copied.append(step.name)
        _lock_what_came(layout, plan, progress)
    return MigrationReport(tuple(linked), tuple(copied), plan.present)


def _bring(step: MigrationStep, mode: Mode) -> bool:
    """True if the file was linked, False if it was copied."""
    if mode == "hardlink" and hard_link(step.source, step.target):
        return True
    with atomic_write(step.target) as temporary:
        if mode == "symlink":
            temporary.symlink_to(step.source.resolve())
        else:
            shutil.copy2(step.source, temporary)
    return mode == "symlink"


def on_another_disk(layout: RepositoryLayout, plan: MigrationPlan) -> bool:
    """True if the stash is on another disk than the repository, so that files cannot be hard-linked."""
    folder = next(parent for parent in (layout.pretrained, *layout.pretrained.parents) if parent.exists())
    return folder.stat().st_dev != plan.stash.stat().st_dev


def _lock_what_came(layout: RepositoryLayout, plan: MigrationPlan, progress: Progress) -> None:
    lock = read_lock(layout) or RepositoryLock(layout.variant.name)
    paths = {step.name: step.target for step in plan.steps} | {name: path_of(layout, name) for name in plan.present}
    digests = sha256_of_files(paths.values(), DigestCache.beside(layout), progress=progress)
    entries = {}
    for name, path in paths.items():
        locked = lock.files.get(name)
        if locked is not None and locked.sha256 != digests[path]:
            raise ModelFilesError(
                f"{name}: came with sha256 {digests[path]}, the lock says {locked.sha256}; fetch it with "
                f"`one-to-all models download {layout.variant.name}`"
            )
        entries[name] = locked or LockedFile(path.stat().st_size, digests[path], _SOURCE)
    if lock.with_files(entries) != lock:
        write_lock(layout, lock.with_files(entries))
