"""Is a repository what its variant needs, and are its bytes the locked ones?

*fast* looks at layout, sizes, headers, names, shapes, dtypes, graph interfaces and configurations, and consults known
digests; *full* also hashes every byte that is not in the digest cache. Either level calls a file complete only as far
as it looked, and never when a known digest differs from the lock or a file was written to since it was hashed.

Mends nothing. See ``libs.model_repo.files`` for the rules of each part.
"""

import logging
import time
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from libs.errors import ModelFilesError
from libs.files.regular_file import why_not_regular
from libs.messages.printable import printable
from libs.model_repo.files.checkpoint import check_checkpoint
from libs.model_repo.files.pose_models import check_pose_models
from libs.model_repo.files.repository import (
    LEFTOVER_TRANSFORMER,
    LOCK_NAME,
    PARTS,
    Part,
    files_below,
    files_of_part,
    part_of,
    path_of,
)
from libs.model_repo.files.wan_resources import check_wan_resources
from libs.model_repo.layout import RepositoryLayout
from libs.model_repo.variants import ModelVariant
from libs.model_repo.verification.digests import DigestCache, sha256_or_errors
from libs.model_repo.verification.lock import LockedFile, RepositoryLock, read_lock
from libs.model_repo.verification.report import (
    FileResult,
    Level,
    PartResult,
    Problem,
    State,
    VerificationReport,
    part_message,
    worst_state,
)
from libs.progress import Progress, no_progress

_CHECKS = {"checkpoint": check_checkpoint, "pose_models": check_pose_models, "wan_resources": check_wan_resources}
_HASHED_EVEN_IF_FAST = 16 * 1024 * 1024
_SHOWN_PER_FILE = 3
_WRITTEN_SINCE = "written to since it was hashed"
_IN_NO_LOCK = "in no lock file"
_LONGEST = 1000

_logger = logging.getLogger(__name__)


def verify_repository(
    layout: RepositoryLayout,
    level: Level = "fast",
    *,
    trust_cache: bool = True,
    progress: Progress = no_progress,
) -> VerificationReport:
    """Look at a whole repository; never raises for what is wrong with its files, and always ends.

    Args:
        layout: the repository.
        level: ``fast`` or ``full``.
        trust_cache: False makes ``full`` read every byte again.
        progress: called with bytes hashed.
    """
    started, moment = time.monotonic(), datetime.now(UTC).isoformat(timespec="milliseconds")
    lock, problems = lock_or_problems(layout)
    lock_is_broken = bool(problems)
    inventory = _take_inventory(layout, lock)
    for part in PARTS:
        problems += _check_part(layout, part)
    unproven: set[str] = set()
    if level == "full":
        digests, unread = _hash_all(inventory, trust_cache, progress)
        problems += unread
    else:
        digests, unproven = _recall_digests(inventory)
    if not lock_is_broken:
        problems += _compare_with_lock(inventory, level, digests, unproven)
    problems = [replace(one, file=printable(one.file), message=printable(one.message, _LONGEST)) for one in problems]
    results = _file_results(inventory, digests, problems)
    warnings = _leftovers(layout)
    if level == "fast" and not lock_is_broken:
        warnings += _not_compared(inventory, digests.keys() | unproven)
    return VerificationReport(
        variant=layout.variant.name,
        folder=str(layout.root),
        level=level,
        verified_at=moment,
        parts=tuple(_part_result(layout, part, results, problems) for part in PARTS),
        files=tuple(results),
        warnings=tuple(warnings),
        seconds=round(time.monotonic() - started, 3),
        locked=inventory.lock is not None and inventory.files.keys() <= inventory.lock.files.keys(),
    )


def lock_or_problems(layout: RepositoryLayout) -> tuple[RepositoryLock | None, list[Problem]]:
    """The lock if there is one that can be read, and what is wrong with its file."""
    try:
        return read_lock(layout), []
    except (ModelFilesError, OSError) as error:
        return None, [Problem("checkpoint", LOCK_NAME, "mismatch", _reason(error))]


def _check_part(layout: RepositoryLayout, part: Part) -> list[Problem]:
    """The problems of one part; an unexpected error counts as one and does not hide other parts."""
    try:
        return _CHECKS[part](layout)
    except Exception as error:
        _logger.warning("%s of %s could not be looked at", part, layout.root, exc_info=True)
        return [Problem(part, "", "mismatch", f"cannot be looked at ({_reason(error)})")]


def _reason(error: Exception) -> str:
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error)
    return str(error) if isinstance(error, ModelFilesError) else f"unexpected: {type(error).__name__} {error}"


@dataclass(frozen=True)
class _Inventory:
    """What is there (name -> path, and its size), what the lock wants and is not there."""

    layout: RepositoryLayout
    lock: RepositoryLock | None
    files: dict[str, Path]
    sizes: dict[str, int]
    missing: set[str]
    strange: dict[str, str]
    """Name -> why it is there and no file."""

    def locked(self, name: str) -> LockedFile | None:
        return self.lock.files.get(name) if self.lock else None


def _take_inventory(layout: RepositoryLayout, lock: RepositoryLock | None) -> _Inventory:
    files = {name: path for part in PARTS for name, path in files_of_part(layout, part).items()}
    missing, strange = set(), {}
    for name in lock.files if lock else ():
        path = path_of(layout, name)
        if problem := why_not_regular(path):
            strange[name] = problem
        elif path.is_file():
            files[name] = path
        else:
            missing.add(name)
    sizes = {}
    for name, path in list(files.items()):
        try:
            sizes[name] = path.stat().st_size
        except OSError:  # it went while others were looked at
            del files[name]
            missing.add(name)
    return _Inventory(layout, lock, files, sizes, missing, strange)


def _hash_all(inventory: _Inventory, trust_cache: bool, progress: Progress) -> tuple[dict[str, str], list[Problem]]:
    """(name -> digest, what could not be read); a file of another size than the lock says is not worth its bytes."""
    worth_it = {
        name: path
        for name, path in inventory.files.items()
        if (locked := inventory.locked(name)) is None or locked.size == inventory.sizes[name]
    }
    cache = DigestCache.beside(inventory.layout)
    found = sha256_or_errors(worth_it.values(), cache, trust_cache=trust_cache, progress=progress)
    digests, problems = {}, []
    for name, path in worth_it.items():
        result = found[path]
        if isinstance(result, str):
            digests[name] = result
        else:
            problems.append(Problem(part_of(name), name, "mismatch", f"{name} cannot be read ({_reason(result)})"))
    return digests, problems


def _recall_digests(inventory: _Inventory) -> tuple[dict[str, str], set[str]]:
    """(name -> digest where one is known without reading much, names of files written to since they were hashed)."""
    cache = DigestCache.beside(inventory.layout)
    small = []
    for name, path in inventory.files.items():
        locked, size = inventory.locked(name), inventory.sizes[name]
        if locked and size == locked.size <= _HASHED_EVEN_IF_FAST:
            small.append(path)
    sha256_or_errors(small, cache)
    digests: dict[str, str] = {}
    unproven: set[str] = set()
    for name, path in inventory.files.items():
        try:
            digest = cache.known(path)
            changed = digest is None and cache.changed(path)
        except OSError:  # it went meanwhile
            digest, changed = None, True
        if digest is not None:
            digests[name] = digest
        elif changed:
            unproven.add(name)
    return digests, unproven


def _compare_with_lock(
    inventory: _Inventory, level: Level, digests: Mapping[str, str], unproven: Set[str]
) -> list[Problem]:
    found: list[tuple[str, State, str]] = [
        (name, "incomplete", f"{name} is missing") for name in sorted(inventory.missing)
    ]
    found += [(name, "mismatch", f"{name} {problem}") for name, problem in sorted(inventory.strange.items())]
    for name, size in inventory.sizes.items():
        locked = inventory.locked(name)
        if locked is None:
            if level == "full":
                found.append((name, "incomplete", f"{name} is {_IN_NO_LOCK}, so its bytes cannot be verified"))
        elif size < locked.size:
            found.append((name, "incomplete", f"{name} has {size:,} of {locked.size:,} bytes"))
        elif size > locked.size:
            found.append((name, "mismatch", f"{name} has {size:,} bytes, the lock says {locked.size:,}"))
        elif name in unproven:
            found.append(
                (name, "incomplete", f"{name} was {_WRITTEN_SINCE}, so it may no longer be what the lock says")
            )
        elif digests.get(name, locked.sha256) != locked.sha256:
            found.append((name, "mismatch", f"{name} has sha256 {digests[name]}, the lock says {locked.sha256}"))
    return [Problem(part_of(name), name, state, message) for name, state, message in found]


def _file_results(inventory: _Inventory, digests: Mapping[str, str], problems: list[Problem]) -> list[FileResult]:
    by_file: dict[str, list[Problem]] = {}
    for problem in problems:
        by_file.setdefault(problem.file, []).append(problem)
    results = []
    shown = {printable(name): name for name in inventory.files}
    for name in sorted(shown.keys() | {name for name in by_file if name}):
        found = by_file.get(name, [])
        original = shown.get(name, name)
        size = inventory.sizes.get(original)
        part = found[0].part if found else part_of(name)
        state = worst_state(problem.state for problem in found)
        message = "; ".join(dict.fromkeys(problem.message for problem in found[:_SHOWN_PER_FILE])) or None
        results.append(FileResult(part, name, state, size, digests.get(original), message))
    return results


def _part_result(
    layout: RepositoryLayout, part: Part, results: list[FileResult], problems: list[Problem]
) -> PartResult:
    own = [problem for problem in problems if problem.part == part]
    state = worst_state(problem.state for problem in own)
    present = [result for result in results if result.part == part and result.size is not None]
    command = mending_command(layout.variant, part, own) if own else None
    return PartResult(
        part=part,
        state=state,
        file_count=len(present),
        size=sum(result.size or 0 for result in present),
        message=part_message(part, state, own, command),
        command=command,
    )


def mending_command(variant: ModelVariant, part: Part, problems: list[Problem]) -> str:
    """What a person types to mend a part."""
    if problems and all(_WRITTEN_SINCE in problem.message for problem in problems):
        return f"one-to-all models verify {variant.name} --level full"
    if problems and all(_IN_NO_LOCK in problem.message for problem in problems):
        return f"one-to-all models verify {variant.name} --write-lock"
    if problems and all(problem.file == LOCK_NAME for problem in problems):
        return f"one-to-all models verify {variant.name} --write-lock"
    if variant.base is not None:
        return f"one-to-all models quantize {variant.base}"
    if variant.made_by_code:
        return f"one-to-all models download {variant.name}"
    return f"one-to-all models download {variant.name} --part {part}"


def _leftovers(layout: RepositoryLayout) -> list[str]:
    folder = layout.wan / LEFTOVER_TRANSFORMER
    size = sum(path.stat().st_size for path in files_below(folder).values())
    if not size:
        return []
    return [
        f"{layout.wan.name}/{LEFTOVER_TRANSFORMER} is not needed and takes {size:,} bytes; "
        f"`one-to-all models slim {layout.variant.name} --apply` removes it"
    ]


def _not_compared(inventory: _Inventory, hashed: Set[str]) -> list[str]:
    name = inventory.layout.variant.name
    if inventory.lock is None:
        make = f"`one-to-all models verify {name} --write-lock` makes one of the files as they are"
        return [f"there is no lock file, so nothing was compared with it; {make}"] if inventory.files else []
    rest = sorted(map(printable, inventory.files.keys() - hashed))
    if not rest:
        return []
    compare = f"`one-to-all models verify {name} --level full` compares every byte with the lock"
    return [f"{len(rest)} files were never hashed on this machine (first: {rest[0]}); {compare}"]
