"""The result of a verification as data: what is stored, shown in a table and asked by the asset checks.

See ``verify`` for looking at files.
"""

import hashlib
import json
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Self

from libs.errors import ModelFilesError
from libs.model_repo.files.repository import Part

State = Literal["complete", "incomplete", "mismatch"]
Level = Literal["fast", "full"]

_SEVERITY: dict[State, int] = {"complete": 0, "incomplete": 1, "mismatch": 2}
_SHOWN_PROBLEMS = 5


def worst_state(states: Iterable[State]) -> State:
    """``mismatch`` before ``incomplete`` before ``complete``; complete when there are none."""
    return max(states, key=_SEVERITY.__getitem__, default="complete")


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong with one file (``file`` is a name as in ``repository_files``)."""

    part: Part
    file: str
    state: State
    message: str


@dataclass(frozen=True)
class FileResult:
    """One row of the table. ``sha256`` is None where no digest is known without reading the file (level fast)."""

    part: Part
    file: str
    state: State
    size: int | None
    sha256: str | None = None
    problem: str | None = None


@dataclass(frozen=True)
class PartResult:
    """The answer for one part of the repository; ``command`` mends it (None when it is complete)."""

    part: Part
    state: State
    file_count: int
    size: int
    message: str
    command: str | None = None


@dataclass(frozen=True)
class VerificationReport:
    """What was found. ``verified_at`` is ISO 8601, UTC, taken *before* the first file was looked at."""

    variant: str
    folder: str
    level: Level
    verified_at: str
    parts: tuple[PartResult, ...]
    files: tuple[FileResult, ...]
    warnings: tuple[str, ...] = ()
    seconds: float = 0.0
    locked: bool = field(default=False)
    """True when every file was compared with a lock file entry."""

    @property
    def state(self) -> State:
        """The worst of the parts."""
        return worst_state(part.state for part in self.parts)

    @property
    def size(self) -> int:
        """Bytes of all files of the repository."""
        return sum(file.size or 0 for file in self.files)

    @property
    def content_digest(self) -> str | None:
        """One sha256 over the names and digests of all files, None while any digest is unknown.

        The data version of the repository: equal exactly when every byte of every file is.
        """
        if not self.files or any(file.sha256 is None for file in self.files):
            return None
        rows = sorted((file.file, file.sha256) for file in self.files)
        return hashlib.sha256(json.dumps(rows).encode()).hexdigest()

    def part(self, name: Part) -> PartResult:
        """The result of one part."""
        return next(part for part in self.parts if part.part == name)

    def raise_if_not_complete(self, unneeded: Collection[Part] = ()) -> None:
        """Check that a repository is complete; parts that are ``unneeded`` may be incomplete.

        Raises:
            ModelFilesError: names the parts, the first wrong files and the command that mends each part.
        """
        wrong = [part.message for part in self.parts if part.state != "complete" and part.part not in unneeded]
        if wrong:
            raise ModelFilesError(f"model repository {self.folder}: " + " ".join(wrong))

    def to_json(self) -> str:
        """The report as indented JSON."""
        content = asdict(self) | {"state": self.state, "size": self.size, "content_digest": self.content_digest}
        return json.dumps(content, indent=2, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The report that :meth:`to_json` wrote.

        Raises:
            ModelFilesError: the text is not such a report.
        """
        try:
            content: dict[str, Any] = json.loads(text)
            for derived in ("state", "size", "content_digest"):
                content.pop(derived, None)
            content["parts"] = tuple(PartResult(**part) for part in content["parts"])
            content["files"] = tuple(FileResult(**file) for file in content["files"])
            content["warnings"] = tuple(content["warnings"])
            return cls(**content)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ModelFilesError(f"not a verification report: {error!r}") from None


def part_message(part: Part, state: State, problems: list[Problem], command: str | None) -> str:
    """One or two sentences for a person: what is wrong and what to type."""
    if state == "complete":
        return f"{part}: complete."
    shown = "; ".join(problem.message for problem in problems[:_SHOWN_PROBLEMS])
    more = len(problems) - _SHOWN_PROBLEMS
    rest = f"; and {more} more" if more > 0 else ""
    return f"{part}: {state}: {shown}{rest}. Mend it with `{command}`."
