"""Hands in mode ``ref``: resized with the shoulders and carried to the wrists of the rebuilt body.

Source: docs/specification.md#hands, quirks included: points end on whole pixels, and hands that were mixed up are
exchanged but keep each other's shift.
"""

import numpy as np

from libs.pose.keypoints import LEFT_WRIST, RIGHT_WRIST
from libs.pose.track import PoseTrack

_LEAST_SCORE = 0.4


def place_hands(
    driver: PoseTrack, points: np.ndarray, moved: np.ndarray, ratio: float
) -> tuple[np.ndarray, np.ndarray]:
    """Both hands of all frames.

    Args:
        driver: the motion.
        points: [T, 20, 2] the driver's body in pixels.
        moved: [T, 20, 2] the rebuilt body in pixels of the reference.
        ratio: how much larger the hands become.

    Returns:
        [T, 2, 21, 2] float64, whole pixels of the reference, right hand first, (0, 0) where a point scores below
        0.4; [T, 2, 21] float32 scores, 0 for those points.
    """
    size = np.array([driver.width, driver.height], dtype=np.float64)
    right, right_valid = _resized(driver.right_hand, ratio, size)
    left, left_valid = _resized(driver.left_hand, ratio, size)

    right_wrist, left_wrist = points[:, RIGHT_WRIST], points[:, LEFT_WRIST]
    right_root = right[:, 0]
    # a valid root goes onto the new wrist; with an invalid one the hand is moved as the wrist is
    right_shift = moved[:, RIGHT_WRIST] - np.where(right_valid[:, :1], right_root, right_wrist)
    left_shift = moved[:, LEFT_WRIST] - np.where(left_valid[:, :1], left[:, 0], left_wrist)

    tested = np.where(right_valid[:, :1], right_root, -size)  # an invalid root counts as the point (-1, -1)
    mixed_up = _distance(right_wrist, tested) > _distance(left_wrist, tested)
    swap = mixed_up[:, None]
    to_left = np.where(swap[..., None], right, left) + left_shift[:, None]
    to_right = np.where(swap[..., None], left, right) + right_shift[:, None]
    valid = np.stack([np.where(swap, left_valid, right_valid), np.where(swap, right_valid, left_valid)], axis=1)
    score = np.stack([driver.right_hand[..., 2], driver.left_hand[..., 2]], axis=1)
    score = np.where(swap[..., None], score[:, ::-1], score)

    # a point that is no number would end the clip in upstream; here it counts as not found
    pixels = np.trunc(np.stack([to_right, to_left], axis=1))
    valid &= np.isfinite(pixels).all(axis=-1)
    return np.where(valid[..., None], pixels, 0.0), np.where(valid, score, np.float32(0))


def _resized(hand: np.ndarray, ratio: float, size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points [T, 21, 2] in pixels after scaling about the root, and which of them score at least 0.4."""
    points = hand[..., :2]
    root = points[:, :1]
    scaled = root + (points - root) * ratio
    return scaled * size, hand[..., 2].astype(np.float64) >= _LEAST_SCORE


def _distance(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.linalg.norm(first - second, axis=-1)
