"""From the presentation times of a video's frames to a constant frame rate: pure functions.

A model clip has one constant rate. A camera's clip often has not: phones drop frames in the dark, screen recorders only
write a frame when something changed. Here it is decided whether a video counts as constant (every decoded frame is used
once) or variable (frames are repeated or dropped on a constant grid, so that the motion keeps its timing), and at which
exact rate. What does not belong here: opening files.

Times are in seconds, as exact fractions.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from statistics import median
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from libs.media.limits import MAXIMUM_FRAME_RATE

Item = TypeVar("Item")

STANDARD_RATES = (
    *(Fraction(nominal * 1000, 1001) for nominal in (24, 30, 48, 60, 120)),
    *(Fraction(rate) for rate in (8, 10, 12, 12.5, 15, 16, 18, 20, 24, 25, 30, 48, 50, 60, 90, 100, 120, 240)),
)
"""Rates that cameras and editors use; a measured rate is replaced by the nearest of these where the times allow it."""

DEFAULT_RATE = Fraction(25)
"""Rate of a video that says nothing about time."""

_ROUNDING_TOLERANCE = 1 / 900
"""Seconds. Matroska and FLV round times to milliseconds: a constant rate may be off by 1 ms on either side."""

_EXACT_SNAP = Fraction(1, 100_000)
"""Relative. A rate estimated from rounded times is taken for a standard one when it is that close."""

_TYPICAL_SNAP = Fraction(1, 100)
"""Relative. A variable video's typical rate is taken for a standard one when it is that close."""


@dataclass(frozen=True)
class FrameTiming:
    """How the frames of a video lie in time.

    ``start`` is the presentation time of the first frame; ``frame_rate`` the constant rate of the frames that are
    handed out; ``variable`` whether frames must be repeated or dropped to reach it; ``last_duration`` how long the
    last frame is shown.
    """

    start: Fraction
    frame_rate: Fraction
    variable: bool
    last_duration: Fraction

    def slot(self, time: Fraction) -> int:
        """Index of the grid position nearest to ``time`` (halves go up); negative before the first frame."""
        return math.floor((time - self.start) * self.frame_rate + Fraction(1, 2))


def plan_frame_timing(
    times: Sequence[Fraction], declared_rates: Iterable[Fraction | None], last_duration: Fraction | None = None
) -> FrameTiming:
    """Decide rate and constancy for frames shown at ``times`` (ascending, at least one).

    Constant means one of two things. Either every frame lies within a rounding error of its place at a rate that the
    file declares, a standard rate, or the measured mean. Or no frame is missing (no distance of 1.5 periods or more)
    and every frame lies within half a period of its place at a standard, declared or mean rate: the jitter of a camera
    clock, where using every frame once is more faithful than repeating and dropping. Otherwise the video is variable,
    at the typical (median) distance of its frames, or the standard rate nearest to it.
    """
    declared = [rate for rate in declared_rates if rate is not None and 0 < rate <= MAXIMUM_FRAME_RATE]
    if len(times) < 2 or times[-1] <= times[0]:
        rate = declared[0] if declared else (1 / last_duration if last_duration else DEFAULT_RATE)
        return FrameTiming(times[0], rate, False, last_duration or 1 / rate)
    seconds = np.array([float(time - times[0]) for time in times])
    mean = (len(times) - 1) / (times[-1] - times[0])
    standard = sorted(STANDARD_RATES, key=lambda rate: abs(rate - mean))[:4]
    means = [mean.limit_denominator(limit) for limit in (1001, 100_000) if 1 / limit <= mean <= MAXIMUM_FRAME_RATE]
    for rate in (*declared, *standard, *means):
        if _deviation(seconds, rate) <= min(_ROUNDING_TOLERANCE, 0.5 / rate):
            return FrameTiming(times[0], rate, False, 1 / rate)
    longest_distance = float(np.diff(seconds).max())
    for rate in (*standard, *declared, *means):
        if longest_distance < 1.5 / rate and _deviation(seconds, rate) <= 0.5 / rate:
            return FrameTiming(times[0], rate, False, 1 / rate)
    typical = median(after - before for before, after in pairwise(times) if after > before)
    rate = _nearest_standard(min(1 / typical, MAXIMUM_FRAME_RATE), _TYPICAL_SNAP).limit_denominator(1001)
    return FrameTiming(times[0], rate, True, last_duration or 1 / rate)


def declared_rate(rate: Fraction | None, tick: Fraction) -> Fraction | None:
    """The exact rate behind one that a file declares; ``tick`` is the unit of its time stamps, in seconds.

    Where a frame lasts a whole number of ticks the rate is exact. Otherwise it was estimated from rounded times
    (Matroska's milliseconds give 19001/317), and a standard rate very close to it is what was meant.
    """
    if rate is None or rate <= 0 or (1 / (rate * tick)).denominator == 1:
        return rate
    return _nearest_standard(rate, _EXACT_SNAP)


def on_constant_grid(timing: FrameTiming, frames: Iterable[tuple[Fraction, Item]]) -> Iterator[tuple[Item, bool]]:
    """Lay frames on the constant grid of ``timing``: pairs of the frame and whether it repeats the one before.

    Each frame takes the grid position nearest to its time and is held until the next one's. When two fall on the same
    position the later one is shown. ``frames`` are (presentation time, frame) in order of time; one frame is held back
    at a time.
    """
    held: tuple[int, Item] | None = None
    time = timing.start
    for time, frame in frames:
        slot = timing.slot(time)
        if held is not None:
            yield from _hold(held[1], slot - held[0])
            slot = max(slot, held[0])
        held = (max(slot, 0), frame)
    if held is not None:
        yield from _hold(held[1], max(1, timing.slot(time + timing.last_duration) - held[0]))


def grid_length(timing: FrameTiming, times: Sequence[Fraction]) -> int:
    """Number of frames that :func:`on_constant_grid` gives for frames at ``times`` (ascending, at least one)."""
    last = max(timing.slot(times[-1]), 0)
    return last + max(1, timing.slot(times[-1] + timing.last_duration) - last)


def _hold(frame: Item, count: int) -> Iterator[tuple[Item, bool]]:
    for index in range(count):
        yield frame, index > 0


def _deviation(seconds: npt.NDArray[np.float64], rate: Fraction) -> float:
    """Largest distance in seconds of a frame from its place on the best-fitting grid of this rate."""
    offsets = seconds - np.arange(len(seconds)) / float(rate)
    return float(offsets.max() - offsets.min()) / 2


def _nearest_standard(rate: Fraction, tolerance: Fraction) -> Fraction:
    """The standard rate within the relative ``tolerance`` of ``rate``, or ``rate`` itself."""
    nearest = min(STANDARD_RATES, key=lambda standard: abs(standard - rate))
    return nearest if abs(nearest - rate) <= tolerance * rate else rate
