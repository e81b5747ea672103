"""Figures of one part of a benchmark, written to a file as they are taken: what was measured once is not taken again.

What does not belong here: measuring, and the order of parts (``parts``).
"""

import json
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One number that was measured.

    Args:
        what: of what, in a few words.
        value: the number.
        unit: of the number; ``share`` is shown in percent.
        goal: what it should be at least, or (``at_most``) at most; None where there is no goal.
        at_most: which of both.
        note: what a reader has to know beside it.
    """

    what: str
    value: float
    unit: str = ""
    goal: float | None = None
    at_most: bool = False
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the goal is met; None without one."""
        if self.goal is None:
            return None
        return self.value <= self.goal if self.at_most else self.value >= self.goal

    def row(self) -> str:
        """A row of a markdown table: what, measured, goal, met."""
        goal = "" if self.goal is None else f"{'at most' if self.at_most else 'at least'} {self._shown(self.goal)}"
        met = {None: "", True: "yes", False: "**no**"}[self.met]
        note = f" ({self.note})" if self.note else ""
        return f"| {self.what} | {self._shown(self.value)}{note} | {goal} | {met} |".replace("  ", " ")

    def _shown(self, value: float) -> str:
        if self.unit == "share":
            return f"{value:.1%}"
        number = f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"
        return f"{number} {self.unit}".strip()


TABLE_HEAD = "| what | measured | goal | met |\n|---|---|---|---|"


class Record:
    """The figures of one part, in ``path`` (JSON) and beside it as a markdown table.

    Args:
        path: continued where it exists.
        about: machine, versions and size, for whoever reads it later.
    """

    def __init__(self, path: Path, about: Mapping[str, str]) -> None:
        self.path = path
        self._content: dict[str, Any] = read_record(path)
        self._content["about"] = dict(about)
        self._content["failed"] = {}  # is tried again
        self._content["finished"] = False
        self._write()

    def take(self, name: str, measure: Callable[[], Iterable[Figure]]) -> None:
        """The figures of one measurement, unless they are there; an error is written down, and others go on."""
        if name in self._content["measured"]:
            print(f"{name}: measured before", flush=True)
            return
        started, figures = time.perf_counter(), self._content["begun"].setdefault(name, [])
        figures.clear()
        try:
            for figure in measure():
                figures.append(asdict(figure))
                print(figure.row(), flush=True)
                self._write()
        except Exception as error:
            traceback.print_exc()
            self._content["failed"][name] = " ".join(f"{type(error).__name__}: {error}".split())[:400]
        else:
            seconds = time.perf_counter() - started
            self._content["measured"][name] = {"seconds": seconds, "figures": self._content["begun"].pop(name)}
        self._write()

    def finish(self) -> None:
        """All measurements were tried: the part is done, unless one of them failed."""
        self._content["finished"] = not self._content["failed"]
        self._write()

    def _write(self) -> None:
        for path, text in (
            (self.path, json.dumps(self._content, indent=1)),
            (self.path.with_suffix(".md"), "\n".join([TABLE_HEAD, *rows_of(self._content)]) + "\n"),
        ):
            temporary = path.with_name(f"{path.name}.new")
            temporary.write_text(text)
            temporary.replace(path)


def read_record(path: Path) -> dict[str, Any]:
    """What a part has written; nothing measured where there is no such file."""
    if path.is_file():
        content: dict[str, Any] = json.loads(path.read_text())
        return content
    return {"about": {}, "measured": {}, "begun": {}, "failed": {}, "finished": False}


def rows_of(content: Mapping[str, Any]) -> list[str]:
    """Rows of a markdown table: all figures, those of measurements that were not completed last, then what failed."""
    taken = [one["figures"] for one in content["measured"].values()] + list(content["begun"].values())
    rows = [Figure(**figure).row() for figures in taken for figure in figures]
    return rows + [f"| {name} | failed: {reason} | | |" for name, reason in content["failed"].items()]
