"""How far a stage is: a function that stages call, and the default that writes it to a run's log.

What does not belong here: drawing progress in a terminal (``orchestration.demo``).
"""

import time
from collections.abc import Callable
from typing import Protocol


class Progress(Protocol):
    """Called by a stage as it advances; cheap enough to be called for every frame."""

    def __call__(self, stage: str, done: int, total: int | None, detail: str = "") -> None:
        """``done`` of ``total`` units of ``stage`` (frames, steps) are finished; ``total`` None when unknown."""


SECONDS_BETWEEN_LINES = 5.0


def log_progress(write: Callable[[str], None], clock: Callable[[], float] = time.monotonic) -> Progress:
    """Progress as log lines: the first and the last of a stage, and one every few seconds, with the time left."""
    started: dict[str, float] = {}
    written: dict[str, float] = {}

    def report(stage: str, done: int, total: int | None, detail: str = "") -> None:
        now = clock()
        begin = started.setdefault(stage, now)
        if done != total and now - written.get(stage, float("-inf")) < SECONDS_BETWEEN_LINES:
            return
        written[stage] = now
        write(describe_progress(stage, done, total, now - begin, detail))

    return report


def describe_progress(stage: str, done: int, total: int | None, elapsed: float, detail: str = "") -> str:
    """One line, e.g. ``sampling: 12 of 30, 40 %, 18 s left (chunk 1 of 2)``."""
    line = f"{stage}: {done}"
    if total:
        line += f" of {total}, {100 * done // total} %"
        if 0 < done < total:
            line += f", {elapsed / done * (total - done):.0f} s left"
    return f"{line} ({detail})" if detail else line
