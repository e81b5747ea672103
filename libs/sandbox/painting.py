"""A small painter of rounded, softly lit shapes, used to draw puppets. numpy and OpenCV only.

A shape is a union of round cones (a line from ``a`` to ``b`` with a radius at each end). Its signed distance gives an
antialiased outline, and the height of the inflated shape gives normals for the light. Everything is resolution
independent: the caller scales the geometry. What does not belong here: what a puppet consists of (``puppet``).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import cv2
import numpy as np

_LIGHT = np.array([-0.45, -0.62, 0.64], dtype=np.float32)  # from the upper left, towards the viewer
_RIM_STRENGTH = 0.16


@dataclass(frozen=True)
class RoundCone:
    """All points nearer to the segment ``a``-``b`` (pixels) than a radius growing from ``radius_a`` to ``radius_b``."""

    a: np.ndarray
    b: np.ndarray
    radius_a: float
    radius_b: float


def ball(centre: np.ndarray, radius: float) -> RoundCone:
    """A round cone of no length."""
    return RoundCone(centre, centre, radius, radius)


class Painting:
    """A canvas, float32 RGB in [0, 1], that shapes are painted on from back to front."""

    def __init__(self, background: np.ndarray) -> None:
        self.canvas = background.astype(np.float32).copy()

    def shape(
        self,
        cones: Sequence[RoundCone],
        colour: tuple[int, int, int],
        *,
        blend: float = 0.0,
        holes: Sequence[RoundCone] = (),
        shadow: float = 0.3,
        relief: float = 1.0,
    ) -> None:
        """Paint one lit shape.

        Args:
            cones: the parts, united.
            colour: its colour, RGB 0 to 255.
            blend: how many pixels the joints between parts are smoothed over.
            holes: parts cut out of the shape.
            shadow: darkness of the soft shadow on what lies behind, 0 to 1.
            relief: 1 lights the shape as if it were round, 0 paints it flat.
        """
        window = self._window(cones)
        if window is None:
            return
        left, top, right, bottom = window
        x, y = np.meshgrid(np.arange(left, right, dtype=np.float32), np.arange(top, bottom, dtype=np.float32))
        distance, height = _united(cones, x, y, blend)
        for hole in holes:
            distance = np.maximum(distance, -_cone(hole, x, y)[0])
        coverage = np.clip(0.5 - distance, 0.0, 1.0)[..., None]

        region = self.canvas[top:bottom, left:right]
        if shadow:
            radius = max(cone.radius_a for cone in cones)
            soft = cv2.GaussianBlur(coverage[..., 0], (0, 0), max(0.8, 0.35 * radius))
            region *= (1.0 - shadow * soft)[..., None]
        lit = np.array(colour, np.float32) / 255.0 * _light(height, relief)[..., None]
        region += coverage * (np.clip(lit, 0.0, 1.0) - region)

    def line(self, points: np.ndarray, radius: float, colour: tuple[int, int, int]) -> None:
        """A flat stroke through ``points`` [n, 2]."""
        strokes = [RoundCone(a, b, radius, radius) for a, b in pairwise(points)]
        self.shape(strokes, colour, shadow=0.0, relief=0.0)

    def disc(self, centre: np.ndarray, radius: float, colour: tuple[int, int, int]) -> None:
        """A flat disc."""
        self.shape([ball(centre, radius)], colour, shadow=0.0, relief=0.0)

    def soft_shadow(self, centre: np.ndarray, radii: tuple[float, float], darkness: float) -> None:
        """A blurred ellipse, darkening the canvas."""
        height, width = self.canvas.shape[:2]
        x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
        squared = ((x - centre[0]) / radii[0]) ** 2 + ((y - centre[1]) / radii[1]) ** 2
        self.canvas *= (1.0 - darkness * np.exp(-squared))[..., None].astype(np.float32)

    def to_image(self) -> np.ndarray:
        """uint8 RGB [H, W, 3]."""
        return np.clip(np.rint(self.canvas * 255.0), 0, 255).astype(np.uint8)

    def _window(self, cones: Sequence[RoundCone]) -> tuple[int, int, int, int] | None:
        """The part of the canvas a shape and its shadow touch: left, top, right, bottom; None if it is outside."""
        height, width = self.canvas.shape[:2]
        largest = max(max(cone.radius_a, cone.radius_b) for cone in cones)
        ends = np.array([point for cone in cones for point in (cone.a, cone.b)])
        margin = 2.2 * largest + 4.0
        low = np.maximum(np.floor(ends.min(axis=0) - margin), 0).astype(int)
        high = np.minimum(np.ceil(ends.max(axis=0) + margin) + 1, (width, height)).astype(int)
        if (low >= high).any():
            return None
        return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _cone(cone: RoundCone, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Signed distance to the outline (negative inside) and height of the inflated surface, both in pixels."""
    ax, ay = float(cone.a[0]), float(cone.a[1])
    dx, dy = float(cone.b[0]) - ax, float(cone.b[1]) - ay
    squared_length = dx * dx + dy * dy
    along = np.clip(((x - ax) * dx + (y - ay) * dy) / squared_length, 0.0, 1.0) if squared_length > 1e-9 else 0.0 * x
    radius = cone.radius_a + along * (cone.radius_b - cone.radius_a)
    squared_distance = (x - ax - along * dx) ** 2 + (y - ay - along * dy) ** 2
    height = np.sqrt(np.maximum(radius * radius - squared_distance, 0.0))
    return np.sqrt(squared_distance) - radius, height


def _united(cones: Sequence[RoundCone], x: np.ndarray, y: np.ndarray, blend: float) -> tuple[np.ndarray, np.ndarray]:
    distance, height = _cone(cones[0], x, y)
    for cone in cones[1:]:
        other_distance, other_height = _cone(cone, x, y)
        if blend > 0:
            closeness = np.maximum(blend - np.abs(distance - other_distance), 0.0) / blend
            distance = np.minimum(distance, other_distance) - closeness * closeness * blend * 0.25
        else:
            distance = np.minimum(distance, other_distance)
        height = np.maximum(height, other_height)
    return distance, height


def _light(height: np.ndarray, relief: float) -> np.ndarray:
    """Brightness factor of each pixel of an inflated surface."""
    if relief == 0.0:
        return np.ones_like(height)
    smooth = cv2.GaussianBlur(height, (0, 0), 1.2) * relief
    slope_y, slope_x = np.gradient(smooth)
    facing = 1.0 / np.sqrt(1.0 + slope_x**2 + slope_y**2)
    lambert = np.maximum((-slope_x * _LIGHT[0] - slope_y * _LIGHT[1] + _LIGHT[2]) * facing, 0.0)
    rim = _RIM_STRENGTH * (1.0 - facing) ** 3
    return (0.52 + 0.62 * lambert + rim).astype(np.float32)
