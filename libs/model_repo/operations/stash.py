"""Deleting an old stash once a verified repository holds everything worth keeping from it.

See ``migrate`` for bringing files over.
"""

import os
import secrets
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from libs.errors import ModelFilesError
from libs.model_repo.files.repository import PARTS, files_of_part, path_of, pretrained_name
from libs.model_repo.layout import RepositoryLayout
from libs.model_repo.operations.migrate import files_of_stash, is_skipped
from libs.model_repo.verification.digests import DigestCache, sha256_of_files
from libs.model_repo.verification.lock import hold_repository
from libs.model_repo.verification.report import VerificationReport
from libs.progress import Progress, no_progress


@dataclass(frozen=True)
class StashReport:
    """A stash that may go (``deleted`` False) or went. ``freed`` leaves out bytes that other links keep on the disk."""

    stash: Path
    file_count: int
    size: int
    freed: int
    deleted: bool


def delete_stash(
    layout: RepositoryLayout,
    stash: Path,
    verification: VerificationReport,
    *,
    apply: bool = False,
    progress: Progress = no_progress,
) -> StashReport:
    """Show, or with ``apply`` do, the deletion of an old stash.

    Args:
        layout: the repository that took over.
        stash: the old ``pretrained_models`` folder.
        verification: the latest verification of that repository.
        apply: False only looks.
        progress: called with bytes hashed, where the stash holds files that are not hard links.

    Raises:
        ModelFilesError: the verification is not complete, of another variant, or older than a file; a file of the
            repository lies in the stash; or the stash holds something that is nowhere else. Nothing was deleted.
    """
    if not stash.is_dir() or stash.is_symlink():
        raise ModelFilesError(f"{stash}: is not a folder, so there is no old stash to delete")
    _check_verification(layout, verification)
    with hold_repository(layout):
        _check_nothing_depends_on(layout, stash)
        _check_everything_is_elsewhere(layout, stash, progress)
        report = _measure(stash)
        if not apply:
            return report
        doomed = stash.with_name(f".{stash.name}.deleting-{secrets.token_hex(4)}")
        stash.rename(doomed)
        shutil.rmtree(doomed)
        return StashReport(stash, report.file_count, report.size, report.freed, deleted=True)


def _check_verification(layout: RepositoryLayout, verification: VerificationReport) -> None:
    again = f"run `one-to-all models verify {layout.variant.name} --level full` first"
    if verification.variant != layout.variant.name or Path(verification.folder) != layout.root:
        raise ModelFilesError(f"the verification is of {verification.folder}, not of {layout.root}; {again}")
    if verification.state != "complete":
        raise ModelFilesError(f"the latest verification of {layout.variant.name} is {verification.state}; {again}")
    verified = datetime.fromisoformat(verification.verified_at).timestamp()
    rows = {row.file: row for row in verification.files}
    for part in PARTS:
        for name, path in files_of_part(layout, part).items():
            status = path.stat()
            if name not in rows or rows[name].size != status.st_size or status.st_mtime > verified:
                raise ModelFilesError(f"{path}: changed after the latest verification; {again}")
    missing = [name for name in rows if not path_of(layout, name).is_file()]
    if missing:
        raise ModelFilesError(f"{missing[0]}: vanished after the latest verification; {again}")


def _check_nothing_depends_on(layout: RepositoryLayout, stash: Path) -> None:
    home = stash.resolve()
    for part in PARTS:
        for path in files_of_part(layout, part).values():
            if path.resolve().is_relative_to(home):
                raise ModelFilesError(
                    f"{path}: lies in the stash or is a link into it; migrate with --mode hardlink "
                    "or copy before deleting"
                )


def _check_everything_is_elsewhere(layout: RepositoryLayout, stash: Path, progress: Progress) -> None:
    pairs = {
        path: path_of(layout, pretrained_name(name)) for name, path in files_of_stash(stash) if not is_skipped(name)
    }
    absent = [path for path, target in pairs.items() if not target.is_file()]
    if not absent:
        separate = {path: target for path, target in pairs.items() if not path.samefile(target)}
        digests = sha256_of_files([*separate, *separate.values()], DigestCache.beside(layout), progress=progress)
        absent = [path for path, target in separate.items() if digests[path] != digests[target]]
    if absent:
        raise ModelFilesError(
            f"{absent[0]}: and {len(absent) - 1} other files of the stash are not in {layout.pretrained}; migrate "
            f"them with `one-to-all models migrate {layout.variant.name} --apply`, or move them away"
        )


def _measure(stash: Path) -> StashReport:
    inodes: dict[tuple[int, int], list[os.stat_result]] = {}
    count = 0
    for root, _, names in os.walk(stash):
        for name in names:
            status = Path(root, name).lstat()
            inodes.setdefault((status.st_dev, status.st_ino), []).append(status)
            count += 1
    freed = sum(same[0].st_size for same in inodes.values() if len(same) >= same[0].st_nlink)
    size = sum(same[0].st_size for same in inodes.values())
    return StashReport(stash, count, size, freed, deleted=False)
