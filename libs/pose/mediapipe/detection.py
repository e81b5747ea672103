"""People and faces found by a single-shot detector: anchors, decoding, weighted suppression of overlapping boxes."""

from dataclasses import dataclass

import numpy as np

from libs.pose.mediapipe.networks import Network, sigmoid
from libs.pose.mediapipe.regions import Region
from libs.pose.mediapipe.resampling import SYMMETRIC, resample

LEAST_SCORE = 0.5
_SAME_OBJECT = 0.3
"""Boxes whose intersection over union is larger show one object."""
_LARGEST_LOGIT = 100.0


@dataclass(frozen=True)
class Detections:
    """Objects in a picture, the best first, in pixels.

    Attributes:
        scores: [N], 0 to 1.
        boxes: [N, 4]; left, top, right, bottom along the searched region's axes.
        points: [N, K, 2]; what they mark is the detector's.
    """

    scores: np.ndarray
    boxes: np.ndarray
    points: np.ndarray

    def __len__(self) -> int:
        return len(self.scores)


class Detector:
    """A network that gives a score, a box and some points at each of its anchors."""

    def __init__(
        self, network: Network, side: int, anchors_of_stride: dict[int, int], least_score: float = LEAST_SCORE
    ) -> None:
        """Use ``network``.

        Args:
            network: two outputs, boxes with points and scores, for a square input.
            side: of the input, in pixels.
            anchors_of_stride: stride in pixels -> anchors in each of its cells.
            least_score: of an object that is found.
        """
        self._network, self._side, self._least_score = network, side, least_score
        self._anchors = anchor_centres(side, anchors_of_stride)

    def detect(self, picture: np.ndarray, region: Region | None = None) -> Detections:
        """What is found in ``region``, or in the whole picture.

        Args:
            picture: [H, W, 3] uint8 RGB.
            region: where to look, a square.
        """
        searched = region or whole(picture)
        seen = resample(picture, searched, self._side, SYMMETRIC, black_outside=True)
        rows, logits = self._network.run(seen)
        scores = sigmoid(np.clip(logits.reshape(-1), -_LARGEST_LOGIT, _LARGEST_LOGIT))
        likely = scores >= self._least_score
        if not likely.any():
            return Detections(np.zeros(0), np.zeros((0, 4)), np.zeros((0, 0, 2)))
        pairs = rows.reshape(len(scores), -1, 2)[likely].astype(np.float64) / self._side
        size = pairs[:, 1].copy()
        pairs[:, 1] = 0  # of each row: centre, size, points; all but the size are relative to the anchor
        pairs += self._anchors[likely, None]
        boxes = np.concatenate([pairs[:, 0] - size / 2, pairs[:, 0] + size / 2], axis=1)
        kept, boxes, points = suppress_overlaps(scores[likely], boxes, pairs[:, 2:])
        return Detections(
            kept,
            _boxes_to_picture(boxes, searched),
            searched.to_picture(points.reshape(-1, 2)).reshape(points.shape),
        )


def whole(picture: np.ndarray) -> Region:
    """The smallest square that holds all of ``picture``."""
    height, width = picture.shape[:2]
    side = float(max(height, width))
    return Region(width / 2, height / 2, side, side, 0.0)


def anchor_centres(side: int, anchors_of_stride: dict[int, int]) -> np.ndarray:
    """[N, 2] in parts of the side: cells row by row, all anchors of a cell one after the other, strides in order."""
    layers = []
    for stride, each in anchors_of_stride.items():
        middles = (np.arange(side // stride) + 0.5) / (side // stride)
        y, x = np.meshgrid(middles, middles, indexing="ij")
        layers.append(np.stack([x, y], axis=-1).reshape(-1, 2).repeat(each, axis=0))
    return np.concatenate(layers)


def suppress_overlaps(
    scores: np.ndarray, boxes: np.ndarray, points: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One row for each object: its best score, and the mean of all its boxes and points weighted by their scores.

    Args:
        scores: [N].
        boxes: [N, 4] left, top, right, bottom.
        points: [N, K, 2].
    """
    waiting = np.argsort(-scores, kind="stable")
    kept = []
    while len(waiting):
        best = waiting[0]
        same = _overlap(boxes[waiting], boxes[best]) > _SAME_OBJECT
        same[0] = True
        rows = waiting[same]
        weights = scores[rows] / scores[rows].sum()
        kept.append((scores[best], weights @ boxes[rows], np.tensordot(weights, points[rows], 1)))
        waiting = waiting[~same]
    first, second, third = zip(*kept, strict=True)
    return np.array(first), np.array(second), np.array(third)


def _overlap(boxes: np.ndarray, box: np.ndarray) -> np.ndarray:
    """Intersection over union of each of ``boxes`` with ``box``."""
    low, high = np.maximum(boxes[:, :2], box[:2]), np.minimum(boxes[:, 2:], box[2:])
    common = np.clip(high - low, 0, None).prod(axis=1)
    union = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1) + (box[2:] - box[:2]).prod() - common
    return np.divide(common, union, out=np.zeros(len(boxes)), where=union > 0)


def _boxes_to_picture(boxes: np.ndarray, region: Region) -> np.ndarray:
    """Their centres are turned with the region, their sides keep its axes."""
    centres = region.to_picture((boxes[:, :2] + boxes[:, 2:]) / 2)
    halves = (boxes[:, 2:] - boxes[:, :2]) * [region.width, region.height] / 2
    return np.concatenate([centres - halves, centres + halves], axis=1)
