"""``ClipPoses``: body and face points of a clip in its own pixels, as asked for or as found in it again.

See ``pose_agreement`` and ``face_share`` for comparing them.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice

import numpy as np

from libs.pose.conditioning import PoseConditioning
from libs.pose.fitting.framing import framed_points
from libs.pose.keypoints import BODY_FIRST_SOURCE, BODY_SECOND_SOURCE, DRAWN_BODY_COUNT, FACE_SLICE

FoundKeypoints = Callable[[list[np.ndarray]], tuple[np.ndarray, np.ndarray]]
"""Frames uint8 RGB [H, W, 3] -> boxes [B, 5] and COCO-WholeBody points [B, 133, 3] (pixels, score)."""

_BATCH = 8


@dataclass(frozen=True, eq=False)
class ClipPoses:
    """Points of T frames of ``width`` x ``height`` pixels: x and y in pixels, score.

    Attributes:
        width, height: of the clip.
        body: [T, 18, 3] float64, joints as in ``libs.pose.keypoints``.
        face: [T, 68, 3] float64.
    """

    width: int
    height: int
    body: np.ndarray
    face: np.ndarray

    def __len__(self) -> int:
        return len(self.body)

    def inside(self, points: np.ndarray) -> np.ndarray:
        """Which of ``points`` [..., 3] lie inside the frame."""
        inside = (points[..., :2] >= 0) & (points[..., :2] < (self.width, self.height))
        return np.asarray(inside.all(axis=-1))


def asked_poses(conditioning: PoseConditioning) -> ClipPoses:
    """The poses that the clip was asked to show: where they were drawn, in the clip's pixels."""
    height, width = conditioning.size
    record = conditioning.driver

    def placed(points: np.ndarray, scores: np.ndarray) -> np.ndarray:
        pixels = framed_points(points, conditioning.drawing_size, conditioning.size)
        return np.concatenate([pixels, scores[..., None]], axis=-1)

    body = placed(record.body[:, :DRAWN_BODY_COUNT], record.body_score[:, :DRAWN_BODY_COUNT])
    return ClipPoses(width, height, body, placed(record.face, record.face_score))


def found_poses(
    frames: Iterable[np.ndarray], keypoints: FoundKeypoints, progress: Callable[[int], None] | None = None
) -> ClipPoses:
    """The poses that the pose networks find in a clip; a few frames are held at a time.

    A frame without a body stays without: unlike in a driver's track, nothing is taken over from the frame before.

    Args:
        frames: uint8 RGB [H, W, 3] of one size, at least one.
        keypoints: ``PoseEstimator.keypoints``.
        progress: called with the number of frames done.

    Raises:
        ValueError: there are no frames.
    """
    bodies, faces = [], []
    width = height = done = 0
    stream = iter(frames)
    while batch := list(islice(stream, _BATCH)):
        height, width = batch[0].shape[:2]
        _, points = keypoints(batch)
        points = points.astype(np.float64)
        bodies.append((points[:, BODY_FIRST_SOURCE] + points[:, BODY_SECOND_SOURCE])[:, :DRAWN_BODY_COUNT] / 2)
        faces.append(points[:, FACE_SLICE][:, 1:])  # row 0 is a heel
        done += len(batch)
        if progress:
            progress(done)
    if not bodies:
        raise ValueError("a clip has at least one frame")
    return ClipPoses(width, height, np.concatenate(bodies), np.concatenate(faces))
