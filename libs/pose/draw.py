"""Drawing a pose exactly as the network was trained to see it.

A large canvas (short side 2160) is drawn on with OpenCV and reduced without antialiasing. Two things are done otherwise
than upstream, with the same result pixel for pixel: limbs are drawn in their darkened colours instead of darkening the
whole canvas (limbs are opaque and come first), and the canvas is kept and only cleared where it was drawn on.

Which joints, limbs and colours are drawn is decided by the tables of ``keypoints``; toes and heels are not drawn. See
``conditioning`` for bringing drawings to the clip's size. Source: docs/specification.md#drawing.
"""

import math
import threading
from dataclasses import dataclass

import cv2
import numpy as np

from libs.pose.keypoints import (
    BODY_COLOURS,
    DRAWN_BODY_COUNT,
    DRAWN_FACE_POINTS,
    HAND_EDGE_COLOURS,
    HAND_EDGES,
    HEAD_JOINTS,
    LIMBS,
)
from libs.pose.options import FaceStyle, HeadStyle
from libs.pose.record import PoseRecord

_CANVAS_SHORT_SIDE = 2160
_LIMB_BRIGHTNESS = 0.6
_UNSURE_LIMB = 0.35
_FADED_FACE = 0.35
_LEAST_SCORE = 0.3
_HIDDEN_SCORE = -2.0
_WIDTH_FACTORS = ((512, 1.0), (1080, 1.5), (2160, 2.0), (3240, 2.5), (4320, 3.5), (5400, 4.5))
_LARGEST_WIDTH_FACTOR = 4.0
_OUTLINE_SHIFT = 16
_OUTLINE_UNIT = 1 << _OUTLINE_SHIFT
_FARTHEST_OUTLINE = 32000
"""Canvas pixels, so that outlines in 1/65536 pixels stay within 32 bits."""
_FARTHEST = 2.0**29
"""Canvas pixels; OpenCV's integers end at 2^31. A point farther away, or that is no number, is not drawn."""


@dataclass(frozen=True)
class DrawingStyle:
    """How face and head are shown: ``faded`` lets the network follow the reference's identity more freely."""

    face: FaceStyle = "full"
    head: HeadStyle = "full"


def draw_pose(record: PoseRecord, frame: int, height: int, width: int, style: DrawingStyle) -> np.ndarray:
    """One frame's drawing, [height, width, 3] uint8 RGB.

    Args:
        record: poses of any number of frames.
        frame: which one.
        height: of the drawing in pixels: that of the reference picture.
        width: likewise.
        style: face and head.
    """
    canvas_height, canvas_width = canvas_size(height, width)
    canvas = _canvas(canvas_height, canvas_width)
    draw_body(canvas, record, frame, style)
    draw_hands(canvas, record, frame)
    if style.face != "none":
        draw_face(canvas, record, frame, style)
    return cv2.resize(canvas, (width, height), interpolation=cv2.INTER_LINEAR)


def canvas_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of the canvas for a drawing of this size: the short side 2160, or 2159 by rounding."""
    short = min(height, width)
    factor = 1.0 if short == _CANVAS_SHORT_SIDE else _CANVAS_SHORT_SIDE / short
    return int(height * factor), int(width * factor)


def draw_body(canvas: np.ndarray, record: PoseRecord, frame: int, style: DrawingStyle) -> None:
    """Limbs, then joints. All joints with a positive score are drawn, however unsure."""
    points = record.body[frame, :DRAWN_BODY_COUNT]
    score = record.body_score[frame, :DRAWN_BODY_COUNT].astype(np.float32)
    if style.head == "faded":
        score[list(HEAD_JOINTS)] = _HIDDEN_SCORE
    shown = record.body_present[frame, :DRAWN_BODY_COUNT] & np.isfinite(score)
    if style.head == "none":
        shown[list(HEAD_JOINTS)] = False
    radius = int(3 * _width_factor(canvas))
    # limbs in the coordinates' own precision, joints in double: as upstream's array and scalar arithmetic do
    limb_points, limb_drawable = _on_canvas(canvas, points)
    for limb, (first, second) in enumerate(LIMBS):
        ends = [first, second]
        if (shown & limb_drawable)[ends].all():
            alpha = float(score[first] * score[second]) if (score[ends] > 0).all() else _UNSURE_LIMB
            _draw_limb(canvas, limb_points[ends], radius, _limb_colour(limb, alpha))
    joints, drawable = _pixels(canvas, points)
    for joint in np.flatnonzero(shown & drawable):
        brightness = max(float(score[joint]), 0.0)
        colour = [min(int(channel * brightness), 255) for channel in BODY_COLOURS[joint]]
        cv2.circle(canvas, joints[joint].tolist(), radius, colour, thickness=-1)


def draw_hands(canvas: np.ndarray, record: PoseRecord, frame: int) -> None:
    """Both hands in slot order: fingers as lines of many hues, points in blue; only what scores at least 0.3."""
    size = int(2 * _width_factor(canvas))
    for hand, score in zip(record.hands[frame], record.hands_score[frame].astype(np.float32), strict=True):
        points, drawable = _pixels(canvas, hand)
        shown = drawable & _sure_and_inside(points, score)
        for colour, (first, second) in zip(HAND_EDGE_COLOURS, HAND_EDGES, strict=True):
            if shown[first] and shown[second]:
                brightness = int(float(score[first] * score[second]) * 255)
                shade = [channel * brightness for channel in colour]
                draw_line(canvas, points[first].tolist(), points[second].tolist(), shade, size)
        for point in np.flatnonzero(shown):
            cv2.circle(canvas, points[point].tolist(), size, (0, 0, int(float(score[point]) * 255)), thickness=-1)


def draw_face(canvas: np.ndarray, record: PoseRecord, frame: int, style: DrawingStyle) -> None:
    """Brows, eyes and mouth as grey points; only what scores at least 0.3."""
    size = int(2 * _width_factor(canvas))
    chosen = list(DRAWN_FACE_POINTS)
    score = record.face_score[frame, chosen].astype(np.float32)
    points, drawable = _pixels(canvas, record.face[frame, chosen])
    for point in np.flatnonzero(drawable & _sure_and_inside(points, score)):
        grey = int(float(score[point]) * 255)
        if style.face == "faded":
            grey = int(grey * _FADED_FACE)
        cv2.circle(canvas, points[point].tolist(), size, (grey, grey, grey), thickness=-1)


def _draw_limb(canvas: np.ndarray, ends: np.ndarray, radius: int, colour: list[int]) -> None:
    (x1, y1), (x2, y2) = ends
    centre = (int((x1 + x2) / 2), int((y1 + y2) / 2))
    length = ((y1 - y2) ** 2 + (x1 - x2) ** 2) ** 0.5
    angle = int(math.degrees(math.atan2(y1 - y2, x1 - x2)))
    outline = cv2.ellipse2Poly(centre, (int(length / 2), radius), angle, 0, 360, 1)
    cv2.fillConvexPoly(canvas, outline, colour)


def draw_line(canvas: np.ndarray, first: list[int], second: list[int], colour: list[float], thickness: int) -> None:
    """``cv2.line``, also where an end lies outside the canvas.

    OpenCV after 4.8 cuts such a line at the border first, which bends it a little. Its outline is computed here as 4.8
    does (a rectangle in 1/65536 pixels, round ends), so that drawings equal those the network was trained on.
    """
    height, width = canvas.shape[:2]
    ends = (first, second)
    inside = all(0 <= x < width and 0 <= y < height for x, y in ends)
    if inside or first == second or max(abs(value) for end in ends for value in end) > _FARTHEST_OUTLINE:
        cv2.line(canvas, first, second, colour, thickness=thickness)
        return
    dx, dy = first[0] - second[0], second[1] - first[1]
    half_width = (thickness + thickness % 2) * _OUTLINE_UNIT / 2 / math.sqrt(dx * dx + dy * dy)
    across = np.array([round(dy * half_width), round(dx * half_width)])
    start, stop = (np.array(end) * _OUTLINE_UNIT for end in ends)
    outline = np.array([start + across, start - across, stop - across, stop + across], dtype=np.int32)
    cv2.fillConvexPoly(canvas, outline, colour, shift=_OUTLINE_SHIFT)
    for end in ends:
        cv2.circle(canvas, end, (thickness + 1) // 2, colour, thickness=-1)


def _limb_colour(limb: int, alpha: float) -> list[int]:
    """The limb's colour on the canvas once that has been darkened: truncated twice, as on a canvas of bytes."""
    return [int(min(int(channel * alpha), 255) * _LIMB_BRIGHTNESS) for channel in BODY_COLOURS[limb]]


def _width_factor(canvas: np.ndarray) -> float:
    longest = max(canvas.shape[:2])
    return next((factor for limit, factor in _WIDTH_FACTORS if longest < limit), _LARGEST_WIDTH_FACTOR)


def _on_canvas(canvas: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points [N, 2] in canvas pixels, not truncated, in their own dtype; and which of them can be drawn at all."""
    size = np.array([canvas.shape[1], canvas.shape[0]], dtype=points.dtype)
    placed = points * size
    drawable = (np.abs(placed) < _FARTHEST).all(axis=-1)  # False for NaN
    return np.where(drawable[:, None], placed, 0), drawable


def _pixels(canvas: np.ndarray, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Points [N, 2] in whole canvas pixels, truncated toward zero; and which of them can be drawn at all."""
    placed, drawable = _on_canvas(canvas, points.astype(np.float64))
    return placed.astype(np.int64), drawable


def _sure_and_inside(points: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Scores of at least 0.3 and coordinates of at least 1; right and lower edge are left to clipping."""
    return (score.astype(np.float64) >= _LEAST_SCORE) & np.isfinite(score) & (points >= 1).all(axis=-1)


_kept = threading.local()


def _canvas(height: int, width: int) -> np.ndarray:
    """This thread's black canvas [height, width, 3] uint8; kept from frame to frame."""
    canvas: np.ndarray | None = getattr(_kept, "canvas", None)
    if canvas is None or canvas.shape[:2] != (height, width):
        canvas = np.zeros((height, width, 3), dtype=np.uint8)
        _kept.canvas = canvas
    else:
        canvas.fill(0)
    return canvas
