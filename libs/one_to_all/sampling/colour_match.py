"""Colours of later chunks brought to those of the first, on request: chunks that continue each other drift.

Mean and deviation of each channel of Oklab (lightness, green to red, blue to yellow), as Reinhard et al. transfer
colours between pictures ("Color transfer between images", 2001); Oklab stands in for their logarithmic space, in which
black has no value. Light: numpy, no torch.
"""

from dataclasses import dataclass
from typing import Self

import numpy as np

LARGEST_SCALE = 2.0
"""A chunk that differs more in contrast shows something else: it is not stretched further."""

_STRIDE = 4
"""Every so many pixels and lines count for the statistics."""
_LEAST_DEVIATION = 1e-4
"""Of a channel that is flat: its deviation says nothing."""

_TO_LMS = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ],
    np.float32,
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ],
    np.float32,
)
_FROM_LMS, _FROM_LAB = np.linalg.inv(_TO_LMS), np.linalg.inv(_TO_LAB)


@dataclass(frozen=True, eq=False)
class ColourStatistics:
    """Mean and deviation of the channels of some frames in Oklab, float64 [3] each."""

    mean: np.ndarray
    deviation: np.ndarray

    @classmethod
    def of(cls, frames: np.ndarray) -> Self:
        """Measure frames, uint8 RGB [n, H, W, 3], on a grid of their pixels."""
        lab = oklab(frames[:, ::_STRIDE, ::_STRIDE]).reshape(-1, 3).astype(np.float64)
        return cls(lab.mean(axis=0), lab.std(axis=0))


def oklab(frames: np.ndarray) -> np.ndarray:
    """Convert sRGB uint8 [..., 3] to Oklab float32 [..., 3]."""
    return np.cbrt(_LINEAR[frames] @ _TO_LMS.T) @ _TO_LAB.T


def match_colours(frames: np.ndarray, target: ColourStatistics) -> np.ndarray:
    """Return frames, uint8 RGB [n, H, W, 3], with the mean and deviation of ``target``."""
    found = ColourStatistics.of(frames)
    measurable = (found.deviation > _LEAST_DEVIATION) & (target.deviation > _LEAST_DEVIATION)
    ratio = np.divide(target.deviation, found.deviation, out=np.ones(3), where=measurable)
    scale = ratio.clip(1 / LARGEST_SCALE, LARGEST_SCALE).astype(np.float32)
    offset = (target.mean - found.mean * scale).astype(np.float32)
    matched = np.empty_like(frames)
    for index, frame in enumerate(frames):  # one at a time: in floating point they are four times as large
        lms = (oklab(frame) * scale + offset) @ _FROM_LAB.T.astype(np.float32)
        linear = (lms**3 @ _FROM_LMS.T.astype(np.float32)).clip(0, 1)
        encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
        matched[index] = np.rint(encoded * 255).astype(np.uint8)
    return matched


def _linear_values() -> np.ndarray:
    values = np.arange(256) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4).astype(np.float32)


_LINEAR = _linear_values()
