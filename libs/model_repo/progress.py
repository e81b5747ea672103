"""How far a long operation on model files is: the function that callers hand in, and one that writes lines.

What does not belong here: drawing a bar in a terminal (``libs.command_line``).
"""

import time
from collections.abc import Callable
from typing import Protocol

SECONDS_BETWEEN_LINES = 5.0
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


class Progress(Protocol):
    """Called as bytes are done; cheap, may be called from several threads, never concurrently for one operation."""

    def __call__(self, stage: str, done: int, total: int | None, detail: str = "") -> None:
        """``done`` of ``total`` bytes of ``stage`` are finished; ``detail`` is the file at hand."""


def no_progress(stage: str, done: int, total: int | None, detail: str = "") -> None:
    """The progress of a caller who does not want to know."""


def progress_lines(
    write: Callable[[str], None],
    seconds_between: float = SECONDS_BETWEEN_LINES,
    clock: Callable[[], float] = time.monotonic,
) -> Progress:
    """Progress as log lines with rate and time left: the first and last of a stage, and one every few seconds."""
    started: dict[str, tuple[float, int]] = {}
    written: dict[str, float] = {}

    def report(stage: str, done: int, total: int | None, detail: str = "") -> None:
        now = clock()
        begin, before = started.setdefault(stage, (now, done))
        if done != total and now - written.get(stage, float("-inf")) < seconds_between:
            return
        written[stage] = now
        write(describe_bytes(stage, done, total, (done - before) / (now - begin) if now > begin else 0.0, detail))

    return report


def describe_bytes(stage: str, done: int, total: int | None, rate: float, detail: str = "") -> str:
    """One line, e.g. ``downloading: 1.2 GB of 4.4 GB, 27 %, 85.0 MB/s, 38 s left (model-00001-of-00002.safetensors)``.

    Args:
        stage: what is going on.
        done: bytes.
        total: bytes; None when unknown.
        rate: bytes per second; 0 when unknown.
        detail: the file at hand.
    """
    line = f"{stage}: {show_bytes(done)}"
    if total:
        line += f" of {show_bytes(total)}, {100 * done // total} %"
    if rate > 0:
        line += f", {show_bytes(rate)}/s"
        if total and done < total:
            line += f", {(total - done) / rate:.0f} s left"
    return f"{line} ({detail})" if detail else line


def show_bytes(count: float) -> str:
    """``count`` in decimal units, as disks are sold: ``4.4 GB``."""
    value, unit = float(count), _UNITS[0]
    for unit in _UNITS:
        if value < 1000 or unit == _UNITS[-1]:
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == _UNITS[0] else f"{value:.1f} {unit}"
