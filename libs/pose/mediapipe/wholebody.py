"""COCO-WholeBody's 133 key-points from a person's landmarks, with scores that mean what ViTPose's mean.

The rest of the pose stage compares scores with thresholds that were measured on ViTPose's heat maps: 0.3 a joint was
found, 0.4 it is shown, darker where less sure. MediaPipe tells two other things of each landmark, presence (it lies in
the picture) and visibility (and nothing hides it). A drawn or covered ankle has a low visibility though a person sees
where it is, so a score follows the presence, and the visibility lowers it by 30 % at most.
"""

import numpy as np

from libs.pose.keypoints import FACE_COUNT, HAND_COUNT, WHOLEBODY_COUNT
from libs.pose.mediapipe.body import Body
from libs.pose.mediapipe.holistic import Person

_BODY = (0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28)
_FEET = ((17, 31, 29), (20, 32, 30))
"""Key-point of the big toe, followed by small toe and heel; landmarks of toe and heel: left foot, right foot."""
_SMALL_TOE = 0.2
"""It lies so far behind the big one on the way to the heel: MediaPipe has no landmark there."""

_JAW = (162, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 389)
_BROWS = (71, 63, 105, 66, 107, 336, 296, 334, 293, 301)
_NOSE = (168, 197, 5, 4, 75, 97, 2, 326, 305)
_EYES = (33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380)
_LIPS = (61, 39, 37, 0, 267, 269, 291, 405, 314, 17, 84, 181, 78, 82, 13, 312, 308, 317, 14, 87)
_FACE = (*_JAW, *_BROWS, *_NOSE, *_EYES, *_LIPS)

_FACE_START, _LEFT_START, _RIGHT_START = 23, 91, 112
_HIDDEN = 0.7
"""Of the score of a landmark that something hides."""


def wholebody_of(person: Person) -> np.ndarray:
    """[133, 3] float64: x and y in pixels and score; NaN and score 0 for what was not found."""
    points = np.full((WHOLEBODY_COUNT, 3), np.nan)
    points[:, 2] = 0
    if person.body is None:
        return points
    landmarks = np.column_stack([person.body.points, scores_of(person.body)])
    points[: len(_BODY)] = landmarks[list(_BODY)]
    for start, toe, heel in _FEET:
        points[start] = points[start + 1] = landmarks[toe]
        points[start + 1, :2] += _SMALL_TOE * (landmarks[heel, :2] - landmarks[toe, :2])
        points[start + 2] = landmarks[heel]
    if person.face is not None:
        face = slice(_FACE_START, _FACE_START + FACE_COUNT)
        points[face, :2], points[face, 2] = person.face.points[list(_FACE)], person.face.score
    for start, hand in ((_LEFT_START, person.left_hand), (_RIGHT_START, person.right_hand)):
        if hand is not None:
            rows = slice(start, start + HAND_COUNT)
            points[rows, :2], points[rows, 2] = hand.points, hand.score
    return points


def scores_of(body: Body) -> np.ndarray:
    """[33] scores as ViTPose gives them.

    ======== ========== ===== ==================================================
    presence visibility score e.g.
    ======== ========== ===== ==================================================
    1.0      1.0        1.00  a shoulder in plain sight
    0.95     0.3        0.77  a wrist behind the back
    0.45     0.25       0.52  an ankle of a drawing
    0.2      0.15       0.33  a toe of a drawing: found, hardly drawn
    0.05     0.05       0.16  a knee below the picture's edge
    ======== ========== ===== ==================================================
    """
    return np.sqrt(body.presence) * (_HIDDEN + (1 - _HIDDEN) * body.visibility)
