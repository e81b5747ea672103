"""Progress and tables in a terminal; plain lines where the output is not one.

What does not belong here: what is shown (``models``).
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TaskID, TextColumn, TimeRemainingColumn, TransferSpeedColumn
from rich.progress import Progress as Bars
from rich.table import Column

from libs.progress import Progress, progress_lines

console = Console(soft_wrap=not sys.stdout.isatty())
"""Where the output is no terminal a line is one line: what searches it, or copies a command from it, finds it whole."""


def whole(header: str) -> Column:
    """A column whose text is never cut or broken, however narrow the terminal: it is to be copied into a command."""
    return Column(header, no_wrap=True)


def folded(header: str) -> Column:
    """A column whose text goes on in the next line where it is too long: what tells names apart is often their end."""
    return Column(header, overflow="fold")


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """A bar per stage with bytes, rate and time left, on standard error; lines where that is not a terminal."""
    stream = Console(stderr=True)
    if not stream.is_terminal:
        yield progress_lines(lambda line: print(line, file=sys.stderr, flush=True), in_bytes=True)
        return
    columns = (
        TextColumn("{task.description:<12}"),
        BarColumn(bar_width=28),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}", style="dim"),
    )
    with Bars(*columns, console=stream) as bars:
        tasks: dict[str, TaskID] = {}

        def report(stage: str, done: int, total: int | None, detail: str = "") -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, detail=detail)
            bars.update(tasks[stage], completed=done, total=total, detail=detail)

        yield report
