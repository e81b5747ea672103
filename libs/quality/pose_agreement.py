"""Pose agreement: does the figure in the clip stand as it was asked to?

See ``clip_poses`` for finding poses, ``face_share`` for faces.
"""

from dataclasses import dataclass

import numpy as np

from libs.pose.keypoints import LEFT_HIP, LEFT_SHOULDER, NECK, RIGHT_HIP, RIGHT_SHOULDER
from libs.quality.clip_poses import ClipPoses

LEAST_SCORE = 0.3
"""A joint with less does not count as asked for, or as found (as in ``libs.pose.person_check``)."""

CORRECT_WITHIN = 0.1
"""Of the trunk's length."""


@dataclass(frozen=True)
class PoseAgreement:
    """How well the poses agree.

    Attributes:
        correct_share: PCK, 0 to 1: joints found within 0.1 trunk lengths of where they were asked for, among those
            asked for. A joint that is not found is not correct.
        mean_distance: trunk lengths, over the joints that were found; None where none was.
        found_share: 0 to 1, joints found among those asked for.
        joints: how many were asked for, over all frames.
        trunk_pixels: the unit.
    """

    correct_share: float
    mean_distance: float | None
    found_share: float
    joints: int
    trunk_pixels: float


def measure_pose_agreement(asked: ClipPoses, found: ClipPoses) -> PoseAgreement | None:
    """Percentage of correct key-points (PCK at 0.1) and mean distance, of the 18 body joints.

    A joint is asked for when it was drawn from a score of at least 0.3 and lies inside the frame. The unit is the
    trunk: neck to the middle of the hips as asked for, the median over the frames in which all are asked for (inside
    the frame or not), so that bending does not change it; where there is no such frame, the median distance of the
    shoulders. Source: Yang and Ramanan 2013, "Articulated human detection with flexible mixtures of parts"
    (PCK), with the torso as the unit as Sapp and Taskar 2013 have it.

    Returns:
        None when nothing was asked for that could be compared.

    Raises:
        ValueError: the two have different numbers of frames.
    """
    if len(asked) != len(found):
        raise ValueError(f"{len(asked)} poses asked for and {len(found)} frames to compare them with")
    trunk = _trunk_pixels(asked)
    wanted = (asked.body[..., 2] >= LEAST_SCORE) & asked.inside(asked.body)
    if trunk is None or not wanted.any():
        return None
    seen = wanted & (found.body[..., 2] >= LEAST_SCORE)
    distance = np.linalg.norm(found.body[..., :2] - asked.body[..., :2], axis=-1) / trunk
    return PoseAgreement(
        correct_share=float((distance <= CORRECT_WITHIN)[seen].sum() / wanted.sum()),
        mean_distance=float(distance[seen].mean()) if seen.any() else None,
        found_share=float(seen.sum() / wanted.sum()),
        joints=int(wanted.sum()),
        trunk_pixels=trunk,
    )


def _trunk_pixels(asked: ClipPoses) -> float | None:
    points, known = asked.body[..., :2], asked.body[..., 2] >= LEAST_SCORE
    hips = (points[:, RIGHT_HIP] + points[:, LEFT_HIP]) / 2
    trunks = np.linalg.norm(points[:, NECK] - hips, axis=-1)[known[:, [NECK, RIGHT_HIP, LEFT_HIP]].all(axis=1)]
    shoulders = np.linalg.norm(points[:, RIGHT_SHOULDER] - points[:, LEFT_SHOULDER], axis=-1)
    shoulders = shoulders[known[:, [RIGHT_SHOULDER, LEFT_SHOULDER]].all(axis=1)]
    for lengths in (trunks, shoulders):
        if len(lengths) and np.median(lengths) >= 1:
            return float(np.median(lengths))
    return None
