"""Where golden test vectors lie, and the record of which of them were run.

Folders: the one named by the environment variable ``GOLDEN_DIR`` if it is set (and then no other), else the small set
committed below ``tests/golden/data`` and, where it is present beside the repository, the full set in
``../shared/golden``. Nothing here knows what a golden file contains: a test module hands in a function that looks
through one folder and says which cases it found there.

What does not belong here: comparisons, tolerances, anything of the network or the pose stage.
"""

import math
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

_HERE = Path(__file__).resolve().parent
COMMITTED_FOLDER = _HERE / "data"
FULL_FOLDER = _HERE.parents[2] / "shared" / "golden"


def golden_folders() -> list[Path]:
    """The root folders to search, in order; each may hold any mix of sub-folders.

    Raises:
        pytest.UsageError: ``GOLDEN_DIR`` is set and is not a folder.
    """
    named = os.environ.get("GOLDEN_DIR")
    if named:
        folder = Path(named).expanduser().resolve()
        if not folder.is_dir():
            raise pytest.UsageError(f"GOLDEN_DIR={named} is not a folder")
        return [folder]
    return [folder for folder in (COMMITTED_FOLDER, FULL_FOLDER) if folder.is_dir()]


@dataclass
class GoldenRecord:
    """What this session found and ran; printed at the end of the run."""

    found: dict[str, dict[Path, int]] = field(default_factory=dict)
    ran: dict[str, int] = field(default_factory=dict)
    largest_error: dict[str, float] = field(default_factory=dict)

    def add(self, kind: str, error: float | None) -> None:
        """Count one case of ``kind``; ``error`` is its largest error, None where a case is right or wrong."""
        self.ran[kind] = self.ran.get(kind, 0) + 1
        if error is not None:
            self._add_error(kind, error)

    def as_plain(self) -> dict[str, Any]:
        """The record in plain types, to be handed to another process."""
        found = {kind: {str(folder): count for folder, count in counts.items()} for kind, counts in self.found.items()}
        return {"found": found, "ran": self.ran, "largest_error": self.largest_error}

    def add_plain(self, other: Mapping[str, Any]) -> None:
        """Add what another process of the same run counted; both found the same cases, and each ran some of them."""
        for kind, counts in other["found"].items():
            self.found[kind] = {Path(folder): count for folder, count in counts.items()}
        for kind, count in other["ran"].items():
            self.ran[kind] = self.ran.get(kind, 0) + count
        for kind, error in other["largest_error"].items():
            self._add_error(kind, error)

    def _add_error(self, kind: str, error: float) -> None:
        known = self.largest_error.get(kind, 0.0)
        # a NaN must not hide behind max(), whose answer depends on the order of its arguments
        self.largest_error[kind] = math.nan if math.isnan(error) or math.isnan(known) else max(known, float(error))

    def lines(self) -> list[str]:
        """The summary: which kinds each folder holds or lacks, then cases run and largest error per kind."""
        text = []
        for folder in golden_folders():
            counts = {kind: found.get(folder, 0) for kind, found in self.found.items()}
            present = ", ".join(f"{kind} ({count})" for kind, count in counts.items() if count)
            absent = ", ".join(kind for kind, count in counts.items() if not count)
            text.append(f"{folder}")
            text.append(f"    present: {present or 'nothing'}")
            if absent:
                text.append(f"    absent:  {absent}")
        for kind in self.found:
            error = self.largest_error.get(kind)
            shown = "" if error is None else f", largest error {error:.3g}"
            text.append(f"{kind}: {self.ran.get(kind, 0)} cases run{shown}")
        return text


RECORD = GoldenRecord()


def golden_cases(kind: str, discover: Callable[[Path], Iterable[tuple[str, Any]]]) -> list[Any]:
    """All cases of ``kind`` in all folders, for ``pytest.mark.parametrize``.

    ``discover(folder)`` looks through one root folder (as deep as it likes) and yields ``(case id, case)``; it yields
    nothing where the folder has no such files, and the kind is then reported as absent.
    """
    counts = RECORD.found.setdefault(kind, {})
    cases = []
    for folder in golden_folders():
        here = [pytest.param(case, id=f"{_label(folder)}:{name}") for name, case in discover(folder)]
        counts[folder] = len(here)
        cases.extend(here)
    return cases


def _label(folder: Path) -> str:
    return {COMMITTED_FOLDER: "committed", FULL_FOLDER: "full"}.get(folder, folder.name)
