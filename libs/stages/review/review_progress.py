"""How far a review is, and how long it will still take: what comes before and after the pose networks counts, too.

The pose networks take most of the time, and a frame of them depends on the machine and the networks. The rest decodes
and encodes the clip: its parts take fixed shares of each other's time, so the first of them tell what the last ones
will take. See ``libs.progress`` for showing it.
"""

import time
from collections.abc import Callable, Mapping
from typing import Literal

ReviewPart = Literal[
    "contact sheet", "comparison", "measurements", "flicker", "colours", "seams", "sharpness", "picture"
]

BEFORE_POSES: Mapping[ReviewPart, float] = {"contact sheet": 0.46, "comparison": 0.44, "measurements": 0.10}
"""Shares of what these parts take together, which is the unit of all numbers here."""

AFTER_POSES: Mapping[ReviewPart, float] = {
    "flicker": 0.19,
    "colours": 0.10,
    "seams": 0.04,
    "sharpness": 0.05,
    "picture": 0.33,
}
ASSUMED_POSES = 1.9
"""The pose networks, until a frame has shown it. All are measured with the demo's clip on two CPU cores."""

Report = Callable[[int, int, float | None], None]
"""Called with (frames' worth of work done, in all, seconds left or None where nothing was measured)."""


class ReviewProgress:
    """Is told what is finished, and tells ``report``.

    Args:
        report: who is told.
        frames: of the clip.
        clock: seconds.
    """

    def __init__(self, report: Report, frames: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._report = report
        self._frames = max(1, frames)
        self._clock = clock
        self._began = clock()
        self._unit: float | None = None
        self._first_frames: tuple[float, int] | None = None
        self._found = 0
        self._finished: set[ReviewPart] = set()

    def finished(self, part: ReviewPart) -> None:
        """One of the parts that decode the clip is finished."""
        self._finished.add(part)
        if part in BEFORE_POSES:
            self._unit = (self._clock() - self._began) / self._share(BEFORE_POSES)
        self._tell(None)

    def found(self, frames: int) -> None:
        """So many frames were searched by the pose networks."""
        now = self._clock()
        self._found = frames
        self._first_frames = self._first_frames or (now, frames)
        since, before = self._first_frames
        # The first frames wait for the networks to be loaded: the others tell what a frame takes.
        self._tell((now - since) / (frames - before) if frames > before else None)

    def _tell(self, seconds_per_frame: float | None) -> None:
        before, after = self._share(BEFORE_POSES), self._share(AFTER_POSES)
        in_frames = self._frames / ASSUMED_POSES
        done = self._found + in_frames * (before + after)
        total = self._frames + in_frames * (1 + sum(AFTER_POSES.values()))
        self._report(round(done), round(total), self._seconds_left(before, after, seconds_per_frame))

    def _seconds_left(self, before: float, after: float, seconds_per_frame: float | None) -> float | None:
        if self._unit is None:
            return None
        if seconds_per_frame is None:
            seconds_per_frame = self._unit * ASSUMED_POSES / self._frames
        decoding = 1 - before + sum(AFTER_POSES.values()) - after
        return self._unit * decoding + seconds_per_frame * (self._frames - self._found)

    def _share(self, parts: Mapping[ReviewPart, float]) -> float:
        return sum(share for part, share in parts.items() if part in self._finished)
