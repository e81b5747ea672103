"""The circle around a person, steadied over time, so that a person who stands still is seen in the same region.

A filter whose cut-off frequency rises with the speed ("one euro filter"): slow movement is smoothed, fast movement is
followed. Only the region is steadied, never the landmarks.
"""

import math

import numpy as np

_FRAMES_PER_SECOND = 1 / 0.033333
"""The library counts frames at this rate, whatever the clip's."""
_LEAST_CUTOFF, _SPEED_CUTOFF = 0.01, 1.0
"""Hertz: of a still point; of the speed itself."""
_CUTOFF_PER_SPEED = 10.0
"""Hertz per size of the person and second."""


class SteadyCircle:
    """Centre and point of one circle, frame by frame."""

    def __init__(self) -> None:
        self._latest: np.ndarray | None = None
        self._steady = self._speed = np.zeros((2, 2))

    def follow(self, circle: np.ndarray) -> np.ndarray:
        """Where the circle is taken to be, given where it was found: [2, 2] pixels, the centre first."""
        if self._latest is None:
            self._latest, self._steady, self._speed = circle, circle, np.zeros((2, 2))
            return circle
        diameter = 2 * float(np.hypot(*(circle[1] - circle[0])))
        if diameter < np.finfo(np.float32).eps:
            return circle
        speed = (circle - self._latest) * _FRAMES_PER_SECOND / diameter
        self._speed = self._speed + _weight(_SPEED_CUTOFF) * (speed - self._speed)
        cutoff = _LEAST_CUTOFF + _CUTOFF_PER_SPEED * np.abs(self._speed)
        self._steady = self._steady + _weight(cutoff) * (circle - self._steady)
        self._latest = circle
        return self._steady

    def forget(self) -> None:
        """Start again: the person was lost."""
        self._latest = None


def _weight(cutoff: np.ndarray | float) -> np.ndarray | float:
    """Of the newest value, for a cut-off frequency in hertz."""
    return 1 / (1 + _FRAMES_PER_SECOND / (2 * math.pi * cutoff))
