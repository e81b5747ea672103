"""Taking from a Wan folder what animating does not need: above all the base transformer.

What is needed is looked at first, and what goes is moved aside before it is deleted, so that a kill at any moment loses
nothing that is needed.
"""

import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from libs.errors import ModelFilesError
from libs.model_repo.files.repository import LEFTOVER_TRANSFORMER, files_below, wan_name
from libs.model_repo.files.write_access import require_write_access
from libs.model_repo.layout import WAN_PARTS, RepositoryLayout
from libs.model_repo.verification.lock import hold_repository, read_lock, write_lock

_NOT_NEEDED = (LEFTOVER_TRANSFORMER, "assets", "examples", "._____temp", ".cache")
_ASIDE_PREFIX = ".slimmed-"


@dataclass(frozen=True)
class SlimRemoval:
    """One entry of the Wan folder that goes. ``freed`` leaves out bytes that other hard links keep on the disk."""

    path: Path
    size: int
    freed: int


@dataclass(frozen=True)
class SlimReport:
    """What goes (``applied`` False) or went (True)."""

    folder: Path
    removals: tuple[SlimRemoval, ...]
    applied: bool

    @property
    def size(self) -> int:
        """Bytes of all that goes."""
        return sum(removal.size for removal in self.removals)

    @property
    def freed(self) -> int:
        """Bytes the disk gets back."""
        return sum(removal.freed for removal in self.removals)


def slim_wan_resources(layout: RepositoryLayout, *, apply: bool = False) -> SlimReport:
    """Report, or with ``apply`` remove, what a Wan folder holds beyond VAE, text encoder, tokenizer and scheduler.

    Raises:
        ModelFilesError: one of the four is missing or empty, a link leads out of the repository, or something that is
            needed lies in what would go; nothing was touched.
    """
    if not apply:
        return SlimReport(layout.wan, _plan(layout), applied=False)
    require_write_access(layout, "what is not needed cannot be removed")
    with hold_repository(layout):
        removals = _plan(layout)
        aside = layout.wan / f"{_ASIDE_PREFIX}{secrets.token_hex(4)}"
        for removal in removals:
            if removal.path.name.startswith(_ASIDE_PREFIX):
                continue
            aside.mkdir(exist_ok=True)
            removal.path.rename(aside / removal.path.name)
        _forget(layout, {removal.path.name for removal in removals})
        for folder in layout.wan.glob(f"{_ASIDE_PREFIX}*"):
            shutil.rmtree(folder)
    return SlimReport(layout.wan, removals, applied=True)


def _plan(layout: RepositoryLayout) -> tuple[SlimRemoval, ...]:
    wan = layout.wan
    if not wan.is_dir():
        raise ModelFilesError(f"{wan}: there is no such folder to slim")
    home = layout.pretrained if wan.is_relative_to(layout.pretrained) else wan.parent
    if not wan.resolve().is_relative_to(home.resolve()):
        raise ModelFilesError(f"{wan}: is a link out of the repository, to {wan.resolve()}; slim it there by hand")
    for part in WAN_PARTS:
        if not any(path.stat().st_size for path in files_below(layout.wan_part(part)).values()):
            raise ModelFilesError(
                f"{layout.wan_part(part)}: is missing or empty, so nothing is removed from {wan}; complete it with "
                f"`one-to-all models download {layout.variant.name} --part wan_resources`"
            )
    going = [path for path in sorted(wan.iterdir()) if _goes(path)]
    for part in WAN_PARTS:
        for path in (layout.wan_part(part), *files_below(layout.wan_part(part)).values()):
            inside = [entry for entry in going if path.resolve().is_relative_to(entry.resolve())]
            if inside:
                raise ModelFilesError(f"{path}: is needed, but is a link into {inside[0]}; nothing was removed")
    return tuple(_measure(path) for path in going)


def _goes(path: Path) -> bool:
    return path.name in _NOT_NEEDED or path.name.startswith(_ASIDE_PREFIX)


def _measure(path: Path) -> SlimRemoval:
    statuses = list(_statuses(path))
    inodes: dict[tuple[int, int], list[os.stat_result]] = {}
    for status in statuses:
        inodes.setdefault((status.st_dev, status.st_ino), []).append(status)
    freed = sum(same[0].st_size for same in inodes.values() if len(same) >= same[0].st_nlink)
    return SlimRemoval(path, sum(same[0].st_size for same in inodes.values()), freed)


def _statuses(path: Path) -> Iterator[os.stat_result]:
    """The status of every regular file at or below ``path``; links are not followed."""
    if path.is_symlink() or not path.is_dir():
        status = path.lstat()
        if stat.S_ISREG(status.st_mode):
            yield status
        return
    for root, _, names in os.walk(path):
        for name in names:
            status = Path(root, name).lstat()
            if stat.S_ISREG(status.st_mode):
                yield status


def _forget(layout: RepositoryLayout, entries: set[str]) -> None:
    """Take what went out of the lock, before it is deleted: a missing file must not look like damage."""
    lock = read_lock(layout)
    if lock is None:
        return
    prefixes = tuple(f"{wan_name(layout, entry)}/" for entry in entries)
    gone = {name for name in lock.files if name.startswith(prefixes)}
    if gone:
        write_lock(layout, lock.without(gone))
