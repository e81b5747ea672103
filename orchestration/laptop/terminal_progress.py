"""Progress bars in a terminal: one line per stage, with rate and time left.

Used by ``make demo``; runs in the UI write log lines instead.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars

from libs.messages.printable import escaped
from libs.progress import Progress
from orchestration.storage.resources import ProgressResource

_bars: "_StageBars | None" = None


class _StageBars:
    def __init__(self, console: Console) -> None:
        self.display = Bars(
            TextColumn("  {task.description:<24}", markup=False),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[detail]}", markup=False),
            console=console,
        )
        self._tasks: dict[str, TaskID] = {}

    def report(self, stage: str, done: int, total: int | None, detail: str = "") -> None:
        if stage not in self._tasks:
            self._tasks[stage] = self.display.add_task(stage, total=total, detail="")
        self.display.update(self._tasks[stage], completed=done, total=total, detail=escaped(detail))


@contextmanager
def terminal_progress(console: Console) -> Iterator[None]:
    """While open, :class:`TerminalProgress` draws on ``console``; afterwards it is silent."""
    global _bars  # noqa: PLW0603 - one terminal, one process
    _bars = _StageBars(console)
    try:
        with _bars.display:
            yield
    finally:
        _bars = None


class TerminalProgress(ProgressResource):
    """Stands in for :class:`ProgressResource` where a person watches a terminal."""

    def of(self, context: dg.AssetExecutionContext) -> Progress:  # noqa: ARG002 - the log is not used
        """The progress bar of the stage that reports."""
        return _report

    def of_bytes(self, context: dg.OpExecutionContext | dg.AssetExecutionContext) -> Progress:  # noqa: ARG002
        """A progress bar that counts bytes."""
        return _report


def _report(
    stage: str,
    done: int,
    total: int | None,
    detail: str = "",
    seconds_left: float | None = None,  # noqa: ARG001 - the bars estimate for themselves
) -> None:
    if _bars is not None:
        _bars.report(stage, done, total, detail)
