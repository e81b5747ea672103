"""Brightness as the measures see it."""

import cv2
import numpy as np
import numpy.typing as npt

Luma = npt.NDArray[np.float32]

_WEIGHTS = np.array([0.2126, 0.7152, 0.0722], np.float32)


def luma(frame: npt.NDArray[np.uint8]) -> Luma:
    """BT.709 luma of a uint8 RGB frame: float32 [H, W], 0 to 255."""
    return cv2.transform(frame.astype(np.float32), _WEIGHTS[None])


def shrunk(values: Luma, short_side: int) -> Luma:
    """``values`` brought to a short side of at most ``short_side`` pixels, by averaging; smaller ones stay."""
    factor = short_side / min(values.shape)
    if factor >= 1:
        return values
    height, width = (max(1, round(side * factor)) for side in values.shape)
    return cv2.resize(values, (width, height), interpolation=cv2.INTER_AREA)
