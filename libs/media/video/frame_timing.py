"""A constant frame rate from the presentation times of a video's frames: pure functions.

A model clip has one constant rate. A camera's clip often has not: phones drop frames in the dark, screen recorders only
write a frame when something changed. Here it is decided whether a video counts as constant (every decoded frame is used
once) or variable (frames are repeated or dropped on a constant grid, so that the motion keeps its timing), and at which
exact rate.

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

from libs.media.limits import MAXIMUM_FRAME_RATE, MINIMUM_FRAME_RATE

Item = TypeVar("Item")

STANDARD_RATES = (
    *(Fraction(nominal * 1000, 1001) for nominal in (24, 30, 48, 60, 120)),
    *(Fraction(rate) for rate in (8, 10, 12, 12.5, 15, 16, 18, 20, 24, 25, 30, 48, 50, 60, 90, 100, 120, 240)),
)
"""Rates that cameras and editors use; a measured rate is replaced by the nearest of these where the times allow it."""

DEFAULT_RATE = Fraction(25)
"""Rate of a video without time stamps."""

_ROUNDING_TOLERANCE = 1 / 900
"""Seconds. Matroska and FLV round times to milliseconds: a constant rate may be off by 1 ms on either side."""

_EXACT_SNAP = Fraction(1, 10_000)
"""Relative. A rate estimated from rounded times is taken for a standard one when it is that close: FLV's 119.88 arrives
as 959/8, and neighbours such as 24 and 23.976 lie ten times further apart."""

_TYPICAL_SNAP = Fraction(1, 100)
"""Relative. A variable video's typical rate is taken for a standard one when it is that close."""

_SINGLE_STEPS = 0.25
"""Share of frames that must follow one period after the one before, if the rate of a grid with gaps is to be believed:
each video lies on the grid of a rate that is high enough."""


@dataclass(frozen=True)
class FrameTiming:
    """How the frames of a video lie in time.

    ``start`` is the presentation time of the first frame; ``frame_rate`` the constant rate of the frames that are
    handed out; ``variable`` whether frames must be repeated or dropped to reach it; ``last_duration`` how long the
    last frame is shown; ``stored_count`` how many frames the file holds and ``shown_count`` how many are handed out if
    all can be decoded, 0 where nobody counted.
    """

    start: Fraction
    frame_rate: Fraction
    variable: bool
    last_duration: Fraction
    stored_count: int = 0
    shown_count: int = 0

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
    clock, where using every frame once is more faithful than repeating and dropping.

    Otherwise the video is variable. Where every frame lies on the grid of a declared or standard rate, but some places
    are empty, that is its rate and the gaps are filled. Else it is the typical (median) distance of its frames, or the
    standard rate nearest to it.
    """
    declared = [
        rate for rate in declared_rates if rate is not None and MINIMUM_FRAME_RATE <= rate <= MAXIMUM_FRAME_RATE
    ]
    if len(times) < 2 or times[-1] <= times[0]:
        shown = [1 / last_duration] if last_duration else []
        usable = [rate for rate in (*declared, *shown) if _is_possible(rate)]
        rate = usable[0] if usable else DEFAULT_RATE
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
    rate = _rate_of_grid_with_gaps(np.unique(seconds), declared) or _typical_rate(times)
    return FrameTiming(times[0], rate, True, last_duration or 1 / rate)


def _is_possible(rate: Fraction) -> bool:
    return MINIMUM_FRAME_RATE <= rate <= MAXIMUM_FRAME_RATE


def _rate_of_grid_with_gaps(seconds: npt.NDArray[np.float64], declared: Sequence[Fraction]) -> Fraction | None:
    """The rate on whose grid all frames lie, some places being empty; None where there is no such rate.

    A rate that the file declares goes first. Of the standard ones it is the best fit among those near the typical
    distance, which may itself be off by the rounding of the times.
    """
    for rate in declared:
        if _fits_with_gaps(seconds, rate):
            return rate
    typical = float(np.median(np.diff(seconds)))
    near = [rate for rate in STANDARD_RATES if abs(1 / rate - typical) <= _ROUNDING_TOLERANCE]
    fitting = [rate for rate in near if _fits_with_gaps(seconds, rate)]
    if fitting:
        return min(fitting, key=lambda rate: _grid_deviation(seconds, _grid_places(seconds, rate), rate))
    places = _grid_places(seconds, 1 / typical)
    measured = Fraction(places[-1] / seconds[-1]) if places[-1] else Fraction(0)
    for limit in (1, 1001):
        rate = measured.limit_denominator(limit)
        if 0 < rate <= MAXIMUM_FRAME_RATE and _fits_with_gaps(seconds, rate):
            return rate
    return None


def _fits_with_gaps(seconds: npt.NDArray[np.float64], rate: Fraction) -> bool:
    """Is every frame within a rounding error of a separate grid point, and enough of them on neighbouring points?"""
    places = _grid_places(seconds, rate)
    steps = np.diff(places)
    if steps.min() < 1 or np.mean(steps == 1) < _SINGLE_STEPS:
        return False
    return _grid_deviation(seconds, places, rate) <= min(_ROUNDING_TOLERANCE, 0.25 / rate)


def _grid_places(seconds: npt.NDArray[np.float64], rate: Fraction | float) -> npt.NDArray[np.float64]:
    """Whole numbers, from 0: the place of each frame, counted on from the one before, so that errors do not add up."""
    return np.concatenate([[0.0], np.cumsum(np.round(np.diff(seconds) * float(rate)))])


def _typical_rate(times: Sequence[Fraction]) -> Fraction:
    """The rate of the median distance, or the standard one nearest to it.

    The median of times in whole milliseconds is a whole millisecond, and 17 ms is no standard rate: then the mean of
    the distances near the median, which are as often too long as too short, says more.
    """
    distances = [after - before for before, after in pairwise(times) if after > before]
    typical = median(distances)
    rate = _nearest_standard(min(1 / typical, MAXIMUM_FRAME_RATE), _TYPICAL_SNAP)
    near = [distance for distance in distances if abs(distance - typical) <= typical / 4]
    if near and rate not in STANDARD_RATES:
        mean = _nearest_standard(min(len(near) / sum(near, Fraction(0)), MAXIMUM_FRAME_RATE), _TYPICAL_SNAP)
        rate = mean if mean in STANDARD_RATES else rate
    return rate.limit_denominator(1001)


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
    position the later one is shown. A frame with the very time of the one before (a broken stamp) is placed one period
    after it, where its true place is, if no other frame has that. ``frames`` are (presentation time, frame) in order of
    time; one frame is held back at a time.
    """
    held: tuple[int, Item] | None = None
    time, stamp = timing.start, None
    for next_stamp, frame in frames:
        time = time + 1 / timing.frame_rate if next_stamp == stamp else next_stamp
        stamp = next_stamp
        slot = timing.slot(time)
        if held is not None:
            yield from _hold(held[1], slot - held[0])
            slot = max(slot, held[0])
        held = (max(slot, 0), frame)
    if held is not None:
        yield from _hold(held[1], max(1, timing.slot(time + timing.last_duration) - held[0]))


def grid_length(timing: FrameTiming, times: Sequence[Fraction]) -> int:
    """Number of frames that :func:`on_constant_grid` gives for frames at ``times`` (ascending, at least one)."""
    end = times[-1] + (times.count(times[-1]) - 1) / timing.frame_rate
    last = max(timing.slot(end), 0)
    return last + max(1, timing.slot(end + timing.last_duration) - last)


def _hold(frame: Item, count: int) -> Iterator[tuple[Item, bool]]:
    for index in range(count):
        yield frame, index > 0


def _deviation(seconds: npt.NDArray[np.float64], rate: Fraction) -> float:
    """Largest distance in seconds of a frame from its place on the best-fitting grid of this rate without gaps."""
    return _grid_deviation(seconds, np.arange(len(seconds)), rate)


def _grid_deviation(seconds: npt.NDArray[np.float64], places: npt.NDArray[np.number], rate: Fraction) -> float:
    """Largest distance in seconds of a frame from its place, the grid of this rate being laid as well as it can be."""
    offsets = seconds - places / float(rate)
    return float(offsets.max() - offsets.min()) / 2


def _nearest_standard(rate: Fraction, tolerance: Fraction) -> Fraction:
    """The standard rate within the relative ``tolerance`` of ``rate``, or ``rate`` itself."""
    nearest = min(STANDARD_RATES, key=lambda standard: abs(standard - rate))
    return nearest if abs(nearest - rate) <= tolerance * rate else rate
