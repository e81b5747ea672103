"""Pose tracks by MediaPipe's networks: one person followed through a clip, frame by frame, on the CPU."""

from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np

from libs.errors import PoseError
from libs.pose.frame_stream import checked_frames
from libs.pose.mediapipe.holistic import Person, PersonFollower
from libs.pose.mediapipe.networks import Networks
from libs.pose.mediapipe.wholebody import wholebody_of
from libs.pose.networks.prefetch import prefetched
from libs.pose.track import PoseTrack

_FRAMES_AHEAD = 2
_LEAST_SCORE_OF_A_PICTURE = 0.1
"""Where the detector is sure of nobody in a picture, the landmark network judges its best guess: drawn characters and
animals in clothes are found so. A video has many frames in which somebody may be found for sure."""


class MediaPipeEstimator:
    """The six networks, opened once and used for any number of clips, one after the other.

    Memory is bounded by the few frames that are read ahead. A person who is lost keeps the place where they were last
    seen, with scores of zero, and is looked for again in every frame.
    """

    def __init__(self, folder: Path) -> None:
        """Open the networks in ``folder``.

        Raises:
            ModelFilesError: one is missing, damaged or another network.
        """
        self._networks = Networks.open(folder)

    def estimate(
        self,
        frames: Iterable[np.ndarray],
        subject: str = "video",
        progress: Callable[[int], None] | None = None,
        *,
        lost_start_allowed: bool = False,  # noqa: ARG002 - no start is left undefined
    ) -> PoseTrack:
        """As :class:`libs.pose.estimator.PoseEstimator`; frames are read a few ahead.

        A start without anybody is never an error here: the body stands where it is first seen.
        """
        follower = PersonFollower(self._networks)
        boxes, points = [], []
        size, latest = (0, 0), np.empty(0)
        for frame in prefetched(checked_frames(frames, subject), _FRAMES_AHEAD):
            size, latest = (frame.shape[1], frame.shape[0]), frame
            person = follower.follow(frame)
            boxes.append(_box(person, *size))
            points.append(wholebody_of(person))
            if progress:
                progress(len(points))
        if len(points) == 1 and boxes[0][4] < 0:
            person = PersonFollower(self._networks, _LEAST_SCORE_OF_A_PICTURE).follow(latest)
            boxes, points = [_box(person, *size)], [wholebody_of(person)]
        if not points:
            raise PoseError(f"{subject}: there are no frames; choose a clip with at least one frame")
        found = held_where_lost(np.stack(points))
        if found is None:
            raise PoseError(
                f"{subject}: MediaPipe's networks found no person in any frame; use a picture or clip in which one "
                "person is well visible, or other networks"
            )
        return PoseTrack.from_wholebody(_undefined_negative(found, size), *size, boxes=np.stack(boxes))

    def keypoints(self, frames: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Boxes [B, 5] float64 and key-points [B, 133, 3] float32 (pixels, score), each frame looked at by itself."""
        people = [PersonFollower(self._networks).follow(frame) for frame in frames]
        sizes = [(frame.shape[1], frame.shape[0]) for frame in frames]
        boxes = [_box(person, *size) for person, size in zip(people, sizes, strict=True)]
        points = [_undefined_negative(wholebody_of(person), size) for person, size in zip(people, sizes, strict=True)]
        return np.stack(boxes), np.stack(points)


def held_where_lost(points: np.ndarray) -> np.ndarray | None:
    """Key-points [T, 133, 3] with the body of lost frames where it was last (or first) seen; None where it never was.

    Its scores stay zero, so that it is neither drawn nor counted as found.
    """
    seen = np.flatnonzero(np.isfinite(points[:, 0, 0]))
    if not len(seen):
        return None
    source = seen[np.maximum(np.searchsorted(seen, np.arange(len(points)), side="right") - 1, 0)]
    body = slice(0, 23)
    held = points.copy()
    held[:, body, :2] = points[source, body, :2]
    return held


def _undefined_negative(points: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """As pose tracks want it: float32, and -1 times the frame's size for what was not found."""
    missing = np.isnan(points[..., :2])
    result = points.copy()
    result[..., :2] = np.where(missing, -np.array(size, float), points[..., :2])
    return result.astype(np.float32)


def _box(person: Person, width: int, height: int) -> np.ndarray:
    """[5] left, top, right, bottom of the landmarks inside the frame, and score; the whole frame and -1 for nobody."""
    if person.body is None:
        return np.array([0, 0, width, height, -1.0])
    inside = np.clip(person.body.points, 0, (width, height))
    return np.array([*inside.min(axis=0), *inside.max(axis=0), person.body.score])
