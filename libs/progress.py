"""How far a long operation is: the function that callers hand in, and one that writes lines.

See ``libs.command_line`` and ``orchestration.laptop.terminal_progress`` for drawing bars in a terminal.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from libs.messages.durations import show_duration

SECONDS_BETWEEN_LINES = 5.0
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


class Progress(Protocol):
    """Called as work is done; cheap, may be called from several threads, never concurrently for one operation."""

    def __call__(
        self, stage: str, done: int, total: int | None, detail: str = "", seconds_left: float | None = None
    ) -> None:
        """``done`` of ``total`` (bytes, frames, steps) of ``stage`` are finished; ``detail`` is what is at hand.

        ``seconds_left`` is given by those who know better than the rate so far tells.
        """


def no_progress(stage: str, done: int, total: int | None, detail: str = "", seconds_left: float | None = None) -> None:
    """The progress of a caller who does not want to know."""


def progress_lines(
    write: Callable[[str], None], *, in_bytes: bool = False, clock: Callable[[], float] = time.monotonic
) -> Progress:
    """Progress as log lines: the first and the last of a stage, and one every few seconds, with the time left."""
    started: dict[str, tuple[float, int]] = {}
    written: dict[str, float] = {}

    def report(stage: str, done: int, total: int | None, detail: str = "", seconds_left: float | None = None) -> None:
        now = clock()
        begin, before = started.setdefault(stage, (now, done))
        if done != total and now - written.get(stage, float("-inf")) < SECONDS_BETWEEN_LINES:
            return
        written[stage] = now
        rate = (done - before) / (now - begin) if now > begin else 0.0
        write(describe_progress(stage, done, total, rate, detail, in_bytes=in_bytes, seconds_left=seconds_left))

    return report


def describe_progress(
    stage: str,
    done: int,
    total: int | None,
    rate: float,
    detail: str = "",
    *,
    in_bytes: bool = False,
    seconds_left: float | None = None,
) -> str:
    """One line, e.g. ``sampling: 12 of 30, 40 %, 18 s left (chunk 1 of 2)``.

    Args:
        stage: what is going on.
        done: units.
        total: units; None when unknown.
        rate: units per second; 0 when unknown.
        detail: what is at hand.
        in_bytes: say ``1.2 GB of 4.4 GB, 27 %, 85.0 MB/s``.
        seconds_left: where it is known better than by the rate.
    """
    show = show_bytes if in_bytes else str
    line = f"{stage}: {show(done)}"
    if total:
        line += f" of {show(total)}, {100 * done // total} %"
    if rate > 0 and in_bytes:
        line += f", {show_bytes(rate)}/s"
    if seconds_left is None and rate > 0 and total:
        seconds_left = (total - done) / rate
    if seconds_left is not None and total and done < total:
        line += f", {seconds_left:.0f} s left"
    return f"{line} ({detail})" if detail else line


@dataclass(frozen=True)
class ProgressLine:
    """What a line of :func:`describe_progress` says, as far as a person at a list wants it."""

    stage: str
    percent: int | None
    seconds_left: float | None
    detail: str

    def describe(self, seconds_ago: float = 0.0) -> str:
        """Text for a list: ``sampling, chunk 2 of 4, 43 %, 3 min left``, corrected by the time since the line was
        written."""
        if self.detail == "encoding":
            return self.detail
        parts = [self.stage, self.detail, "" if self.percent is None else f"{self.percent} %"]
        if self.seconds_left is not None:
            parts.append(f"{show_duration(max(0.0, self.seconds_left - seconds_ago))} left")
        return ", ".join(part for part in parts if part)


_LINE = re.compile(
    r"(?P<stage>[^:]+): (?P<done>\S+(?: [kMGT]?B| bytes)?)(?: of [^,]+, (?P<percent>[0-9]+) %)?(?:, [^,(]+/s)?"
    r"(?:, (?P<left>[0-9]+) s left)?(?: \((?P<detail>.*)\))?"
)


def parse_progress(line: str) -> ProgressLine | None:
    """What a line of :func:`describe_progress` says; None for any other line."""
    match = _LINE.fullmatch(line)
    if match is None or not match["done"][0].isdigit():
        return None
    percent, left = match["percent"], match["left"]
    return ProgressLine(
        match["stage"], int(percent) if percent else None, float(left) if left else None, match["detail"] or ""
    )


def show_bytes(count: float) -> str:
    """``count`` in decimal units, as disks are sold: ``4.4 GB``."""
    value, unit = float(count), _UNITS[0]
    for unit in _UNITS:
        if value < 1000 or unit == _UNITS[-1]:
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == _UNITS[0] else f"{value:.1f} {unit}"
