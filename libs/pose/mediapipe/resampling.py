"""What a network sees of a region: resampled as the library's OpenCV converter does it.

The region's corners, not its pixels' centres, are mapped to the corners of the network's input, and colours are rounded
to whole numbers before they are scaled. Both move points by up to a pixel, and the networks were used with it.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from libs.pose.mediapipe.regions import Region

SYMMETRIC = (-1.0, 1.0)
"""The values that a detector's input takes for black and white."""
POSITIVE = (0.0, 1.0)
"""Those of the landmark networks."""


def resample(
    picture: np.ndarray, region: Region, side: int, values: Sequence[float] = POSITIVE, *, black_outside: bool = False
) -> np.ndarray:
    """[side, side, 3] float32 of the upright ``region``.

    Args:
        picture: [H, W, 3] uint8 RGB.
        region: where to look; a part outside the picture shows its nearest pixels.
        side: of the network's input, in pixels.
        values: what black and white become.
        black_outside: show black outside the picture instead.
    """
    corners = np.array([[0, side], [0, 0], [side, 0], [side, side]], np.float32)
    border = cv2.BORDER_CONSTANT if black_outside else cv2.BORDER_REPLICATE
    matrix = cv2.getPerspectiveTransform(region.corners(), corners)
    seen = cv2.warpPerspective(picture, matrix, (side, side), flags=cv2.INTER_LINEAR, borderMode=border)
    low, high = values
    return seen * np.float32((high - low) / 255) + np.float32(low)
