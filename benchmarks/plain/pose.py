"""The pose stage done plainly: one frame after the other, batch 1, every key-point and canvas on its own.

The yardstick of ``benchmarks/pose.py``; written after docs/specification.md#detector to #drawing, and held
to the same results. What does not belong here: anything the project uses.
"""

import colorsys
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import cv2
import numpy as np

from libs.media.video.colour import RgbConverter
from libs.pose.draw import canvas_size
from libs.pose.fitting.framing import resize_crop
from libs.pose.keypoints import BODY_COLOURS, DRAWN_FACE_POINTS, HAND_EDGES, LIMBS
from libs.pose.networks.crop import crop_geometry
from libs.pose.networks.detector import detections_of, select_person
from libs.pose.record import PoseRecord

Network = Callable[[np.ndarray], np.ndarray]
_MEAN, _STD = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
_LEAST_SCORE = 0.3


def frames_of(path: Path) -> Iterator[np.ndarray]:
    """Decoded frames, uint8 RGB [H, W, 3], by a decoder of one thread."""
    convert = RgbConverter()
    with av.open(path) as container:
        container.streams.video[0].thread_type = "NONE"
        for frame in container.decode(video=0):
            yield convert(frame, frame.width, frame.height)


def keypoints_of(frame: np.ndarray, detect: Network, estimate: Network) -> tuple[np.ndarray, np.ndarray]:
    """Box [5] and key-points [133, 3] of one frame."""
    height, width = frame.shape[:2]
    image = cv2.resize(frame, (640, 640)) / 255.0
    box = select_person(
        detections_of(detect(image.transpose(2, 0, 1)[None].astype(np.float32))[0], width, height), width, height
    )
    geometry = crop_geometry(box, width, height)
    (x1, y1), (x2, y2) = geometry.overlap(width, height)
    left, top = geometry.upper_left
    crop_width, crop_height = geometry.lower_right - geometry.upper_left
    crop = np.zeros((crop_height, crop_width, 3), dtype=np.float32)
    crop[y1 - top : y2 - top, x1 - left : x2 - left] = frame[y1:y2, x1:x2, ::-1]
    resized = cv2.resize(crop, (192, 256))
    image = (resized / 255.0 - _MEAN) / _STD
    heatmaps = estimate(image.transpose(2, 0, 1)[None].astype(np.float32))[0]
    return box, np.array([_keypoint(heatmap, geometry.centre, geometry.size) for heatmap in heatmaps])


def _keypoint(heatmap: np.ndarray, centre: np.ndarray, size: np.ndarray) -> tuple[float, float, float]:
    score = float(heatmap.max())
    y, x = np.unravel_index(int(heatmap.argmax()), heatmap.shape)
    position = np.array([x, y], dtype=np.float32) if score > 0 else np.array([-1, -1], dtype=np.float32)
    if score > 0 and 1 < x < 46 and 1 < y < 62:
        padded = np.zeros((64 + 10, 48 + 10), dtype=np.float32)
        padded[5:-5, 5:-5] = heatmap
        blurred = cv2.GaussianBlur(padded, (11, 11), 0)[5:-5, 5:-5]
        logarithm = np.log(np.maximum(blurred * (score / blurred.max()), 1e-10)).astype(np.float64)
        gx = (logarithm[y, x + 1] - logarithm[y, x - 1]) / 2
        gy = (logarithm[y + 1, x] - logarithm[y - 1, x]) / 2
        dxx = (logarithm[y, x + 2] - 2 * logarithm[y, x] + logarithm[y, x - 2]) / 4
        dyy = (logarithm[y + 2, x] - 2 * logarithm[y, x] + logarithm[y - 2, x]) / 4
        dxy = (
            logarithm[y + 1, x + 1] - logarithm[y - 1, x + 1] - logarithm[y + 1, x - 1] + logarithm[y - 1, x - 1]
        ) / 4
        if dxx * dyy - dxy * dxy != 0:
            position -= np.linalg.inv([[dxx, dxy], [dxy, dyy]]) @ [gx, gy]
    return (*(position * size / (48, 64) + centre - size * 0.5), score)


def draw(record: PoseRecord, frame: int, drawing_size: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """The drawing of one frame at the clip's size, on a canvas of its own that is darkened as a whole."""
    canvas_height, canvas_width = canvas_size(*drawing_size)
    canvas = np.zeros((canvas_height, canvas_width, 3), dtype=np.uint8)
    longest = max(canvas_height, canvas_width)
    limits = ((512, 1.0), (1080, 1.5), (2160, 2.0), (3240, 2.5), (4320, 3.5), (5400, 4.5))
    factor = next((factor for limit, factor in limits if longest < limit), 4.0)
    scale = np.array([canvas_width, canvas_height])
    radius, thickness = int(3 * factor), int(2 * factor)
    points, scores = record.body[frame, :18], record.body_score[frame, :18].astype(np.float32)
    present = record.body_present[frame]
    for limb, (first, second) in enumerate(LIMBS):
        if present[first] and present[second]:
            (xa, ya), (xb, yb) = points[[first, second]] * scale.astype(points.dtype)
            both = scores[first] > 0 and scores[second] > 0
            alpha = float(scores[first] * scores[second]) if both else 0.35
            axes = (int(((ya - yb) ** 2 + (xa - xb) ** 2) ** 0.5 / 2), radius)
            angle = int(math.degrees(math.atan2(ya - yb, xa - xb)))
            outline = cv2.ellipse2Poly((int((xa + xb) / 2), int((ya + yb) / 2)), axes, angle, 0, 360, 1)
            cv2.fillConvexPoly(canvas, outline, [int(min(int(channel * alpha), 255)) for channel in BODY_COLOURS[limb]])
    canvas = (canvas * 0.6).astype(np.uint8)
    for joint in range(18):
        if present[joint]:
            x, y = (points[joint].astype(np.float64) * scale).astype(int).tolist()
            brightness = max(float(scores[joint]), 0)
            cv2.circle(canvas, (x, y), radius, [int(channel * brightness) for channel in BODY_COLOURS[joint]], -1)
    for hand, hand_scores in zip(record.hands[frame], record.hands_score[frame].astype(np.float32), strict=True):
        pixels = (hand.astype(np.float64) * scale).astype(int)
        shown = (hand_scores >= _LEAST_SCORE) & (pixels >= 1).all(axis=1)
        for edge, (first, second) in enumerate(HAND_EDGES):
            if shown[first] and shown[second]:
                brightness = int(float(hand_scores[first] * hand_scores[second]) * 255)
                colour = [channel * brightness for channel in colorsys.hsv_to_rgb(edge / 20, 1, 1)]
                cv2.line(canvas, pixels[first].tolist(), pixels[second].tolist(), colour, thickness)
        for point in np.flatnonzero(shown):
            cv2.circle(canvas, pixels[point].tolist(), thickness, (0, 0, int(hand_scores[point] * 255)), -1)
    for point in DRAWN_FACE_POINTS:
        x, y = (record.face[frame, point].astype(np.float64) * scale).astype(int).tolist()
        score = float(record.face_score[frame, point])
        if score >= _LEAST_SCORE and min(x, y) >= 1:
            cv2.circle(canvas, (x, y), thickness, (int(score * 255),) * 3, -1)
    height, width = drawing_size
    return resize_crop(cv2.resize(canvas, (width, height)), *size)
