"""Colour drift: chunks of a long clip that grow brighter, darker or more colourful than the first.

See ``flicker`` for changes from frame to frame, ``chunk_seams`` for those at borders.
"""

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint8]

_MOST_PIXELS = 320 * 320


@dataclass(frozen=True)
class ColourDrift:
    """Distances in CIELAB units (about 2 is just visible side by side), one per chunk.

    ``from_first_chunk`` begins with the first chunk's own 0; ``from_reference`` compares with the reference picture.
    """

    from_first_chunk: tuple[float, ...]
    from_reference: tuple[float, ...]

    @property
    def maximum(self) -> float:
        """The chunk that is farthest from the first."""
        return max(self.from_first_chunk, default=0.0)


def measure_colour_drift(
    frames: Iterable[Frame], chunk_starts: Sequence[int], reference: Frame, mask: npt.NDArray[np.uint8] | None = None
) -> ColourDrift:
    """The distance between mean colours, Delta E of CIE 1976: the Euclidean distance in CIELAB (D65, sRGB).

    A chunk's colour is the mean of L*, a* and b* over all pixels of its frames; its frames are those from its start to
    the next chunk's. Motion changes a mean a little: a figure that comes closer covers more of the ground.

    Args:
        frames: uint8 RGB [H, W, 3]; one is held at a time.
        chunk_starts: the first frame of each chunk, ascending, the first chunk's 0.
        reference: uint8 RGB [h, w, 3].
        mask: uint8 [h, w]; 0 where the reference shows something, everywhere if left out.
    """
    sums = np.zeros((len(chunk_starts), 3))
    counts = np.zeros(len(chunk_starts), int)
    for index, frame in enumerate(frames):
        chunk = bisect_right(chunk_starts, index) - 1
        sums[chunk] += _lab(_few_pixels(frame)).reshape(-1, 3).mean(axis=0)
        counts[chunk] += 1
    means = sums[counts > 0] / counts[counts > 0, None]
    shown = np.ones(reference.shape[:2], bool) if mask is None else mask == 0
    reference_mean = _lab(reference)[shown].mean(axis=0) if shown.any() else means[0]
    return ColourDrift(
        from_first_chunk=tuple(np.linalg.norm(means - means[0], axis=1).tolist()),
        from_reference=tuple(np.linalg.norm(means - reference_mean, axis=1).tolist()),
    )


def _few_pixels(frame: Frame) -> Frame:
    """Averaged down where it is large: a mean needs no megapixels."""
    factor = (_MOST_PIXELS / (frame.shape[0] * frame.shape[1])) ** 0.5
    return frame if factor >= 1 else cv2.resize(frame, None, fx=factor, fy=factor, interpolation=cv2.INTER_AREA)


def _lab(frame: Frame) -> npt.NDArray[np.float32]:
    return cv2.cvtColor(frame.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
