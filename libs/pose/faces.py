"""Face rescaling: the driver's face points brought to the reference face's size and put on the moved nose.

Used by both modes. Source: docs/specification.md#face-rescaling.
"""

import numpy as np

from libs.pose.keypoints import (
    FACE_CHIN,
    FACE_LEFT_EYE_CORNER,
    FACE_NOSE_BRIDGE,
    FACE_NOSE_TIP,
    FACE_RIGHT_EYE_CORNER,
)

_SHORTEST = 1e-6


def rescale_faces(driver: np.ndarray, reference: np.ndarray, nose: np.ndarray) -> np.ndarray:
    """Faces of the reference's width and height around the nose, frame by frame.

    Args:
        driver: [T, 68, 2] normalised face points.
        reference: [68, 2] the reference's.
        nose: [T, 2] the aligned body's nose, where the tip of the face's nose goes.

    Returns:
        [T, 68, 2] float64.
    """
    driver = driver.astype(np.float64)
    reference = reference.astype(np.float64)
    scale = np.stack(
        [
            _length_ratio(reference, driver, FACE_RIGHT_EYE_CORNER, FACE_LEFT_EYE_CORNER),
            _length_ratio(reference, driver, FACE_NOSE_BRIDGE, FACE_CHIN),
        ],
        axis=-1,
    )
    tip = driver[:, FACE_NOSE_TIP, None]
    return nose[:, None].astype(np.float64) + scale[:, None] * (driver - tip)


def _length_ratio(reference: np.ndarray, driver: np.ndarray, first: int, second: int) -> np.ndarray:
    length = np.linalg.norm(driver[:, first] - driver[:, second], axis=-1)
    usable = length > _SHORTEST
    ratio = np.linalg.norm(reference[first] - reference[second]) / np.where(usable, length, 1.0)
    return np.where(usable, ratio, 1.0)
