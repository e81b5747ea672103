"""The person detector (YOLOv10): frame -> network input, network output -> boxes -> the one person.

See ``sessions`` for running the network, ``crop`` for what follows from a box.

Source: docs/specification.md#detector. Upstream misreads detectors with the output layout [B, 84, A]; here both
layouts are read as they are meant.
"""

import cv2
import numpy as np

from libs.errors import ModelFilesError

INPUT_SIZE = 640
_SCORE_THRESHOLD = 0.05
_IOU_THRESHOLD = 0.5
_PERSON_CLASS = 0
_SHORTER_THAN_LONGEST = 0.4
_END_TO_END_COLUMNS = 6
_CLASS_COUNT = 80
_RAW_ROWS = 4 + _CLASS_COUNT
_INT32_LIMIT = 2.0**31


def detector_input(frame: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """The network's input for one frame: [3, 640, 640] float32 RGB in 0..1; the aspect is not kept.

    Args:
        frame: [H, W, 3] uint8 RGB.
        out: where to write it, e.g. a frame's place in a batch; made when left out.
    """
    resized = cv2.resize(frame, (INPUT_SIZE, INPUT_SIZE), interpolation=cv2.INTER_LINEAR)
    # v / 255 rounded once to float32 equals upstream's double division rounded to float32
    return np.divide(resized.transpose(2, 0, 1), np.float32(255), out=out, dtype=np.float32)


def detections_of(output: np.ndarray, width: int, height: int) -> np.ndarray:
    """Boxes in one frame after suppression of overlapping ones.

    Args:
        output: the network's output for this frame: [N, 6] rows x1, y1, x2, y2, score, class in input pixels
            (end-to-end export), or [84, A] columns of centre x, centre y, width, height, 80 class scores (raw export).
        width: frame width in pixels.
        height: frame height in pixels.

    Returns:
        [M, 6] float64 rows x1, y1, x2, y2, score, class in frame pixels, whole numbers, in descending score order.
        Suppression does not look at the class.

    Raises:
        ModelFilesError: the output has another layout.
    """
    if output.ndim == 2 and output.shape[1] == _END_TO_END_COLUMNS:
        boxes, scores, classes = _read_end_to_end(output, width, height)
    elif output.ndim == 2 and output.shape[0] == _RAW_ROWS:
        boxes, scores, classes = _read_raw(output, width, height)
    else:
        raise ModelFilesError(
            f"the detector gives an output of shape {output.shape} per frame; expected [N, {_END_TO_END_COLUMNS}] or "
            f"[{_RAW_ROWS}, A]: export it as YOLOv10 with 80 classes"
        )
    usable = (np.abs(boxes) < _INT32_LIMIT).all(axis=1) & (scores >= _SCORE_THRESHOLD)  # drops NaN as well
    boxes, scores, classes = boxes[usable].astype(np.int32), scores[usable], classes[usable]
    if not len(boxes):
        return np.zeros((0, 6))
    kept = np.asarray(cv2.dnn.NMSBoxes(boxes.tolist(), scores.tolist(), _SCORE_THRESHOLD, _IOU_THRESHOLD), dtype=int)
    kept = kept.reshape(-1)
    corners = boxes[kept].astype(np.float64)
    corners[:, 2:] += corners[:, :2]
    return np.column_stack([corners, scores[kept].astype(np.float64), classes[kept].astype(np.float64)])


def _read_end_to_end(rows: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes x, y, width, height in frame pixels (float32, not yet truncated), scores, classes."""
    corners = rows[:, :4] * np.array([width / INPUT_SIZE, height / INPUT_SIZE] * 2, dtype=np.float32)
    boxes = np.column_stack([corners[:, :2], corners[:, 2:] - corners[:, :2]])
    return boxes, rows[:, 4], rows[:, 5]


def _read_raw(columns: np.ndarray, width: int, height: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The people in the output of a raw export, where the class is the one with the highest score."""
    centre_size, class_scores = columns[:4].T, columns[4:].T
    scale = np.array([width / INPUT_SIZE, height / INPUT_SIZE])
    top_left = (centre_size[:, :2] - centre_size[:, 2:] / np.float32(2)) * scale
    boxes = np.column_stack([top_left, centre_size[:, 2:] * scale])
    return boxes, class_scores.max(axis=1), class_scores.argmax(axis=1)


def select_person(detections: np.ndarray, width: int, height: int) -> np.ndarray:
    """The box of the person to follow: the largest area among those not much shorter than the longest.

    The comparison is upstream's: boxes are visited in descending score order, and the extent to compare with is that
    of the last box accepted.

    Args:
        detections: [M, 6] from :func:`detections_of`.
        width: frame width in pixels.
        height: frame height in pixels.

    Returns:
        [5] float64: x1, y1, x2, y2, score; the whole frame with score -1 if there is no person.
    """
    persons = detections[(detections[:, 5] == _PERSON_CLASS) & (detections[:, 4] > _SCORE_THRESHOLD)]
    chosen = np.array([0, 0, width, height, -1], dtype=np.float64)
    if not len(persons):
        return chosen
    sizes = persons[:, 2:4] - persons[:, :2]
    areas, extents = sizes.prod(axis=1), sizes.max(axis=1)
    longest, largest_area = extents.max(), -np.inf
    for person, area, extent in zip(persons, areas, extents, strict=True):
        if area > largest_area and extent >= _SHORTER_THAN_LONGEST * longest:
            chosen, largest_area, longest = person[:5], area, extent
    return chosen
