"""``PoseRecord``: what is retargeted and drawn, made from a track (the specification's "dwpose" record).

Source: docs/specification.md#pose-record.
"""

from dataclasses import dataclass, fields

import numpy as np

from libs.pose.keypoints import DRAWN_BODY_COUNT
from libs.pose.track import PoseTrack


@dataclass(frozen=True, eq=False)
class PoseRecord:
    """Drawable poses of T frames, coordinates normalised by frame width and height.

    Attributes:
        body: [T, J, 2]; J = 18, or 20 after ``align_to_reference``. Only the first 18 are drawn.
        body_score: [T, J] float32.
        body_present: [T, J] bool; False where the score was not positive: the joint and its limbs are not drawn.
        hands: [T, 2, 21, 2], in the order in which they are drawn: right, left. ``align_to_reference`` alone exchanges
            them (``left_hand_first``).
        hands_score: [T, 2, 21] float32.
        face: [T, 68, 2].
        face_score: [T, 68] float32.

    Coordinates are float32 as detected and in part float64 after alignment, as upstream has them: drawing truncates to
    pixels, so a dtype changed on the way may move a point.
    """

    body: np.ndarray
    body_score: np.ndarray
    body_present: np.ndarray
    hands: np.ndarray
    hands_score: np.ndarray
    face: np.ndarray
    face_score: np.ndarray

    def __len__(self) -> int:
        return len(self.body)

    def __getitem__(self, frames: slice) -> "PoseRecord":
        return PoseRecord(**{field.name: getattr(self, field.name)[frames] for field in fields(self)})


def left_hand_first(hands: np.ndarray) -> np.ndarray:
    """Exchange the hands of [T, 2, ...]: upstream draws those of an aligned figure in the other order.

    Both are drawn alike, so it only matters where they overlap. Everywhere else the right hand comes first.
    """
    return hands[:, ::-1].copy()


def is_present(score: np.ndarray) -> np.ndarray:
    """Which joints count as found: all but those with a score of zero or less."""
    return ~(score <= 0)


def record_of(track: PoseTrack) -> PoseRecord:
    """The drawable record of a track, nothing moved."""
    score = track.body[:, :DRAWN_BODY_COUNT, 2].copy()
    hands = np.stack([track.right_hand, track.left_hand], axis=1)
    face = track.face[:, 1:]  # row 0 is a heel
    return PoseRecord(
        body=track.body[:, :DRAWN_BODY_COUNT, :2].copy(),
        body_score=score,
        body_present=is_present(score),
        hands=hands[..., :2].copy(),
        hands_score=hands[..., 2].copy(),
        face=face[..., :2].copy(),
        face_score=face[..., 2].copy(),
    )
