"""Flicker: how much a clip's pixels pulse although nothing moves there.

See ``chunk_seams`` for jumps where chunks meet, ``colour_drift`` for slow changes of colour.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np
import numpy.typing as npt

from libs.quality.luma import luma, shrunk

Frame = npt.NDArray[np.uint8]
Flow = npt.NDArray[np.float32]

SHORT_SIDE = 256
"""Pixels; frames are brought to this size first, which takes grain and coding noise out of the measure."""

_FLOWS_AGREE_PIXELS = 1.0
_LEAST_FOLLOWED_SHARE = 0.02


@dataclass(frozen=True)
class Flicker:
    """Levels of 0 to 255: the mean over the frames, and the frame that flickers most."""

    mean: float
    maximum: float


def measure_flicker(frames: Iterable[Frame]) -> Flicker | None:
    """How far pixels stand out from where they were one frame before *and* will be one frame later.

    For each frame t but the first and the last, with Y the luma at a short side of at most 256 pixels:

        r(p) = Y(t, p) - Y(t-1, p + u(p))        s(p) = Y(t, p) - Y(t+1, p + v(p))
        flicker(t) = mean over p of min(|r|, |s|) where r and s have one sign, of 0 elsewhere

    u and v are the optical flow from frame t to its neighbours (Kroeger and others 2016, "Fast optical flow using dense
    inverse search"), so motion is followed. p runs over the pixels whose flow there and back again ends within one
    pixel of where it began: covered and uncovered ground does not count. What goes up and comes back (pulsing, boiling
    texture) is counted with its height; what goes one way (a fade, an edge that passes by) is not. r is the warping
    error of Lai and others 2018 ("Learning blind video temporal consistency"), here to both sides.

    Args:
        frames: uint8 RGB [H, W, 3] of one size; three are held at a time.

    Returns:
        Levels of 0 to 255; filmed dances have 0.6 to 0.7. Frames whose motion cannot be followed (fewer than 2 % of the
        pixels) are left out; None where no frame is left, as for a clip of fewer than three frames.
    """
    matcher = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    values: list[float] = []
    before: tuple[npt.NDArray[np.uint8], Flow, Flow] | None = None
    small = (np.rint(shrunk(luma(frame), SHORT_SIDE)).astype(np.uint8) for frame in frames)
    for current, following in pairwise(small):
        forward = matcher.calc(current, following, np.zeros((*current.shape, 2), np.float32))
        backward = matcher.calc(following, current, np.zeros((*current.shape, 2), np.float32))
        if before is not None:
            previous, previous_forward, previous_backward = before
            value = _standing_out(
                current, (previous, previous_backward, previous_forward), (following, forward, backward)
            )
            values += [] if value is None else [value]
        before = current, forward, backward
    return Flicker(float(np.mean(values)), float(np.max(values))) if values else None


def _standing_out(
    current: npt.NDArray[np.uint8],
    before: tuple[npt.NDArray[np.uint8], Flow, Flow],
    after: tuple[npt.NDArray[np.uint8], Flow, Flow],
) -> float | None:
    followed = np.ones(current.shape, bool)
    differences = []
    for neighbour, there, back in (before, after):
        differences.append(current - _moved(neighbour.astype(np.float32), there))
        followed &= np.linalg.norm(there + _moved(back, there), axis=-1) <= _FLOWS_AGREE_PIXELS
    if followed.mean() < _LEAST_FOLLOWED_SHARE:
        return None
    lower, upper = np.minimum(*differences), np.maximum(*differences)
    return float(np.maximum(np.maximum(lower, -upper), 0)[followed].mean())


def _moved(values: npt.NDArray[np.float32], flow: Flow) -> npt.NDArray[np.float32]:
    """``values`` looked up where the flow leads; the edge is repeated outside."""
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return cv2.remap(values, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
