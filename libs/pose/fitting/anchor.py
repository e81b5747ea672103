"""The anchor frame: the driver's frame that is compared with the reference to find proportions and position.

Source: docs/specification.md#anchor-frame.
"""

from dataclasses import dataclass

import numpy as np

from libs.errors import PoseError
from libs.pose.keypoints import DRAWN_BODY_COUNT, LEFT_SHOULDER, RIGHT_SHOULDER
from libs.pose.person_check import LEAST_BODY_SCORE

_MIRRORED_BONES = (
    ((2, 3), (5, 6)),  # upper arms
    ((3, 4), (6, 7)),  # forearms
    ((8, 9), (11, 12)),  # thighs
    ((9, 10), (12, 13)),  # shanks
)
_TRUNK_JOINTS = [1, 2, 5, 8, 11]
_SHORTEST = 1e-6
_SYMMETRY_LIMIT = 1.5
_UPRIGHT_LIMIT = np.radians(30.0)
_TINY = 1e-9


@dataclass(frozen=True)
class AnchorScores:
    """What frames are ranked by; arrays of T.

    Attributes:
        symmetry: number of limb pairs whose two ratios to the reference agree within a factor of 1.5.
        upright: trunk inside the picture and within 30 degrees of upright.
        angle: difference from the reference in tilt of shoulders and neck, radians.
    """

    symmetry: np.ndarray
    upright: np.ndarray
    angle: np.ndarray


def anchor_scores(reference: np.ndarray, driver: np.ndarray) -> AnchorScores:
    """Rank the driver's frames against the reference.

    Args:
        reference: [J, 2] normalised body coordinates, J >= 18.
        driver: [T, J, 2] likewise.
    """
    reference, driver = reference.astype(np.float64), driver.astype(np.float64)
    symmetry = np.zeros(len(driver), dtype=int)
    for right, left in _MIRRORED_BONES:
        right_ratio, left_ratio = (_bone_ratio(reference, driver, bone) for bone in (right, left))
        usable = (right_ratio >= _SHORTEST) & (left_ratio >= _SHORTEST)
        quotient = right_ratio / np.where(usable, left_ratio, 1.0)
        symmetry += usable & (quotient >= 1 / _SYMMETRY_LIMIT) & (quotient <= _SYMMETRY_LIMIT)

    shoulder_centre = (driver[:, 2] + driver[:, 5]) / 2
    hip_centre = (driver[:, 8] + driver[:, 11]) / 2
    upright = (
        (driver[:, _TRUNK_JOINTS] > 0).all(axis=(1, 2))
        & (_angle_to_vertical(hip_centre - shoulder_centre) <= _UPRIGHT_LIMIT)
        & (_angle_to_horizontal(driver[:, 5] - driver[:, 2]) <= _UPRIGHT_LIMIT)
        & (_angle_to_horizontal(driver[:, 11] - driver[:, 8]) <= _UPRIGHT_LIMIT)
    )
    shoulders = _angle_to_horizontal(driver[:, 5] - driver[:, 2]) - _angle_to_horizontal(reference[5] - reference[2])
    neck = _angle_to_vertical(driver[:, 0] - driver[:, 1]) - _angle_to_vertical(reference[0] - reference[1])
    return AnchorScores(symmetry, upright, np.abs(shoulders) + np.abs(neck))


def choose_anchor(reference: np.ndarray, driver: np.ndarray) -> int:
    """The best frame of [T, J, 2]: most symmetry, then upright, then smallest angle, then earliest.

    Raises:
        PoseError: the driver has no frames.
    """
    if not len(driver):
        raise PoseError("driver: there are no frames, so none can be the anchor")
    scores = anchor_scores(reference, driver)
    best = 0
    for frame in range(1, len(driver)):
        rank, best_rank = ((scores.symmetry[index], scores.upright[index]) for index in (frame, best))
        if rank > best_rank or (rank == best_rank and scores.angle[frame] < scores.angle[best]):
            best = frame
    return best


def clear_frames(driver: np.ndarray) -> np.ndarray:
    """The frames that can be an anchor, ascending, at least one: both shoulders are seen inside the picture.

    Upstream compares frame 0 whatever it shows. Where nobody is there yet, or half of the figure is still
    outside, that spoils the proportions of the whole clip. Where no frame shows both shoulders these are the frames
    that show anything of a body; where none does, all.

    Args:
        driver: [T, J, 3] normalised body coordinates and scores, J >= 18; T >= 1.
    """
    points, score = driver[:, :DRAWN_BODY_COUNT, :2], driver[:, :DRAWN_BODY_COUNT, 2]
    seen = score >= LEAST_BODY_SCORE
    inside = ((points >= 0) & (points <= 1)).all(axis=-1)
    shoulders = (seen & inside)[:, [RIGHT_SHOULDER, LEFT_SHOULDER]].all(axis=1)
    for suitable in (shoulders, seen.any(axis=1)):
        if suitable.any():
            return np.flatnonzero(suitable)
    return np.arange(len(driver))


def resolve_anchor(anchor: int | None, reference: np.ndarray, driver: np.ndarray) -> int:
    """``anchor`` itself if the driver has such a frame; the best frame if it is None.

    Raises:
        PoseError: no such frame.
    """
    if anchor is None:
        return choose_anchor(reference, driver)
    if not 0 <= anchor < len(driver):
        raise PoseError(
            f"anchor: there is no frame {anchor} in a driver of {len(driver)} frames (counted from 0, after the frame "
            "interval); choose another, or leave the choice to the program"
        )
    return anchor


def _bone_ratio(reference: np.ndarray, driver: np.ndarray, bone: tuple[int, int]) -> np.ndarray:
    parent, child = bone
    length = np.linalg.norm(driver[:, child] - driver[:, parent], axis=-1)
    reference_length = np.linalg.norm(reference[child] - reference[parent])
    usable = length >= _SHORTEST
    return np.where(usable, reference_length / np.where(usable, length, 1.0), 1.0)


def _angle_to_horizontal(vector: np.ndarray) -> np.ndarray:
    return np.arctan(np.abs(vector[..., 1]) / (np.abs(vector[..., 0]) + _TINY))


def _angle_to_vertical(vector: np.ndarray) -> np.ndarray:
    return np.arctan(np.abs(vector[..., 0]) / (np.abs(vector[..., 1]) + _TINY))
