"""Progress, tables and lines in a terminal; plain lines where the output is not one.

Whatever is printed may come from others: names of files, ids, messages. It is shown as it is written, never taken for
markup, and what a terminal would obey is escaped.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as Bars
from rich.table import Column, Table
from rich.text import Text

from libs.messages.printable import escaped, escaped_lines
from libs.progress import Progress, progress_lines


class PlainConsole(Console):
    """A console that shows text as it is written: no markup, no emoji codes, control characters escaped."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, highlight=False, emoji=False, **options)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print strings escaped; tables and styled text (:func:`styled`) are escaped already."""
        super().print(*(escaped_lines(item) if isinstance(item, str) else item for item in objects), **options)


class PlainTable(Table):
    """A table whose cells are shown as they are written, each on its line."""

    def add_row(self, *cells: Any, **options: Any) -> None:
        """Add cells of text."""
        super().add_row(*(Text(escaped(cell)) if isinstance(cell, str) else cell for cell in cells), **options)


console = PlainConsole(soft_wrap=not sys.stdout.isatty())
"""Where the output is no terminal a line is one line: what searches it, or copies a command from it, finds it whole."""


def styled(*parts: str | tuple[str, str]) -> Text:
    """A line of text; a part may be a pair of text and style."""
    return Text.assemble(
        *(escaped_lines(part) if isinstance(part, str) else (escaped_lines(part[0]), part[1]) for part in parts)
    )


def print_error(message: str) -> None:
    """Say on standard error what went wrong."""
    typer.echo(f"error: {escaped_lines(message)}", err=True)


def survive_odd_characters(*streams: IO[str]) -> None:
    """Make ``streams`` write characters that their encoding lacks as escapes, instead of failing."""
    for stream in streams:
        if reconfigure := getattr(stream, "reconfigure", None):
            reconfigure(errors="backslashreplace")


def whole(header: str) -> Column:
    """A column whose text is never cut or broken, however narrow the terminal: it is to be copied into a command."""
    return Column(header, no_wrap=True)


def folded(header: str) -> Column:
    """A column whose text goes on in the next line where it is too long: what tells names apart is often their end."""
    return Column(header, overflow="fold")


@contextmanager
def shown_progress(*, in_bytes: bool = True) -> Iterator[Progress]:
    """A bar per stage with what is done and the time left, on standard error; lines where that is not a terminal.

    Args:
        in_bytes: what is counted are bytes, shown with their rate.
    """
    stream = PlainConsole(stderr=True)
    if not stream.is_terminal:
        yield progress_lines(lambda line: print(escaped(line), file=sys.stderr, flush=True), in_bytes=in_bytes)
        return
    columns = (
        TextColumn("{task.description:<12}", markup=False),
        BarColumn(bar_width=28),
        *((DownloadColumn(), TransferSpeedColumn()) if in_bytes else (MofNCompleteColumn(),)),
        TimeRemainingColumn(),
        TextColumn("{task.fields[detail]}", style="dim", markup=False),
    )
    with Bars(*columns, console=stream) as bars:
        tasks: dict[str, TaskID] = {}

        def report(
            stage: str,
            done: int,
            total: int | None,
            detail: str = "",
            seconds_left: float | None = None,  # noqa: ARG001 - the bars estimate for themselves
        ) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(escaped(stage), total=total, detail="")
            bars.update(tasks[stage], completed=done, total=total, detail=escaped(detail))

        yield report
