"""The 33 landmarks of a body in a region, refined by heat maps."""

from dataclasses import dataclass

import numpy as np

from libs.pose.mediapipe.networks import Network, sigmoid
from libs.pose.mediapipe.regions import Region
from libs.pose.mediapipe.resampling import resample

COUNT = 33
LEAST_PRESENCE = 0.5

_SIDE = 256
_ALL = 39
_HEATMAP = 64
_REACH = 4
"""Cells around a landmark that its heat map is averaged over: a window of 9 x 9."""
_LEAST_HEAT = 0.5
_ENLARGED = 1.25
_CIRCLE = slice(33, 35)
"""Two landmarks more."""


@dataclass(frozen=True)
class Body:
    """What was found of one person.

    Attributes:
        points: [33, 2] in pixels.
        visibility: [33]; 0 to 1: in the picture and not hidden.
        presence: [33]; 0 to 1: in the picture.
        score: 0 to 1: that there is a person.
        circle: [2, 2]; the middle of the hips and a point on the circle around the whole person, in pixels.
    """

    points: np.ndarray
    visibility: np.ndarray
    presence: np.ndarray
    score: float
    circle: np.ndarray


def region_of_circle(circle: np.ndarray) -> Region:
    """Where to look for a body, from a person's circle as in :class:`Body`."""
    return Region.around(circle[0], circle[1]).enlarged(_ENLARGED)


def find_body(network: Network, picture: np.ndarray, region: Region) -> Body | None:
    """The body in ``region``; None where nobody is there.

    Args:
        network: ``pose_landmark_full``.
        picture: [H, W, 3] uint8 RGB.
        region: where to look.
    """
    values, score, _, heat = network.run(resample(picture, region, _SIDE))
    if not score[0, 0] > LEAST_PRESENCE:
        return None
    rows = values.reshape(_ALL, 5)
    points = refined(rows[:, :2].astype(np.float64) / _SIDE, heat[0])
    points = region.to_picture(points)
    return Body(
        points=points[:COUNT],
        visibility=sigmoid(rows[:COUNT, 3]),
        presence=sigmoid(rows[:COUNT, 4]),
        score=float(score[0, 0]),
        circle=points[_CIRCLE],
    )


def refined(points: np.ndarray, heat: np.ndarray) -> np.ndarray:
    """``points`` moved to the centre of gravity of the heat around them, where it is hot enough.

    A map's cells are counted by their upper left corners, as the library does.

    Args:
        points: [N, 2] in parts of the region.
        heat: [64, 64, N] logits.
    """
    result = points.copy()
    cells = np.trunc(points * _HEATMAP).astype(int)
    for index, (column, row) in enumerate(cells):
        if not (0 <= column < _HEATMAP and 0 <= row < _HEATMAP):
            continue
        top, left = max(0, row - _REACH), max(0, column - _REACH)
        window = sigmoid(heat[top : row + _REACH + 1, left : column + _REACH + 1, index])
        if window.max() < _LEAST_HEAT:
            continue
        rows, columns = np.indices(window.shape)
        centre = np.array([(window * (columns + left)).sum(), (window * (rows + top)).sum()])
        result[index] = centre / window.sum() / _HEATMAP
    return result
