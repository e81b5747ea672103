"""Sharpness: how much fine detail the clip shows, compared with the picture it was made from.

Takes noise for detail; ``flicker`` sees noise.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from libs.quality.luma import luma

Frame = npt.NDArray[np.uint8]

_FLAT = 1e-3
_MASK_EDGE_PIXELS = 5


@dataclass(frozen=True)
class Sharpness:
    """Shares of the reference's: 1 is as sharp. The mean over the frames, and the frame with the least."""

    mean: float
    minimum: float


def measure_sharpness(
    frames: Iterable[Frame], reference: Frame, mask: npt.NDArray[np.uint8] | None = None
) -> Sharpness | None:
    """The variance of the Laplacian of the luma, divided by that of the reference.

    Source: Pech-Pacheco and others 2000, "Diatom autofocusing in brightfield microscopy"; here with the 3 x 3 Laplacian
    of four neighbours. Both must have one scale: give the reference at the clip's size.

    Args:
        frames: uint8 RGB [H, W, 3]; one is held at a time.
        reference: uint8 RGB [H, W, 3].
        mask: uint8 [H, W]; 0 where the reference shows something, everywhere if left out. The mask's edge does not
            count as detail.

    Returns:
        None where the reference itself has no detail at all, or the clip no frame.
    """
    kept = None if mask is None else _away_from_edge(mask == 0)
    sharpness = _variance(reference, kept)
    if sharpness < _FLAT:
        return None
    values = [_variance(frame) / sharpness for frame in frames]
    return Sharpness(float(np.mean(values)), float(np.min(values))) if values else None


def _variance(frame: Frame, kept: npt.NDArray[np.bool_] | None = None) -> float:
    detail = cv2.Laplacian(luma(frame), cv2.CV_32F, borderType=cv2.BORDER_REPLICATE)
    chosen = detail if kept is None else detail[kept]
    return float(chosen.var(dtype=np.float64)) if chosen.size else 0.0


def _away_from_edge(shown: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    return cv2.erode(shown.astype(np.uint8), np.ones((_MASK_EDGE_PIXELS, _MASK_EDGE_PIXELS), np.uint8)).astype(bool)
