"""Face share: does the clip show a face where the driver does?"""

from dataclasses import dataclass

import numpy as np

from libs.quality.clip_poses import ClipPoses

LEAST_SCORE = 0.3
"""Of a face point that counts as found."""

LEAST_POINTS_SHARE = 0.5
"""Of the 68 face points, for a frame that shows a face."""


@dataclass(frozen=True)
class FaceShare:
    """``share``: 0 to 1, frames of the clip with a face among the ``frames`` whose driver has one."""

    share: float
    frames: int


def measure_face_share(asked: ClipPoses, found: ClipPoses) -> FaceShare | None:
    """The share of frames with a face, where the driver has one.

    A frame shows a face when at least half of the 68 face points have a score of at least 0.3 and lie inside the frame.
    The driver's face is looked for where the clip was asked to show it.

    Returns:
        None when the driver never has a face.

    Raises:
        ValueError: the two have different numbers of frames.
    """
    if len(asked) != len(found):
        raise ValueError(f"{len(asked)} poses asked for and {len(found)} frames to compare them with")
    expected = _shows_face(asked)
    if not expected.any():
        return None
    return FaceShare(float(_shows_face(found)[expected].mean()), int(expected.sum()))


def _shows_face(poses: ClipPoses) -> np.ndarray:
    counted = (poses.face[..., 2] >= LEAST_SCORE) & poses.inside(poses.face)
    return counted.mean(axis=1) >= LEAST_POINTS_SHARE
