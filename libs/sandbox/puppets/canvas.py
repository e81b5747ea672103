"""Flat shapes with soft edges on an enlarged canvas that is reduced at the end.

Shapes are polygons in the coordinates of the finished picture (pixel centres are whole numbers). ``figure`` and
``rooms`` say what is drawn.
"""

import math
from collections.abc import Sequence

import cv2
import numpy as np

Colour = tuple[int, int, int]
"""RGB, 0 to 255."""

_FRACTION_BITS = 5
_FARTHEST = 8000 << _FRACTION_BITS
_ARC = np.linspace(-1.0, 1.0, 8)
_CIRCLE = np.linspace(0, 2 * np.pi, 24, endpoint=False)
_COS, _SIN = np.cos(_CIRCLE), np.sin(_CIRCLE)


def mixed(colour: Colour, other: Colour, share: float) -> Colour:
    """``colour`` with a ``share`` of ``other``."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(colour, other, strict=True))
    return red, green, blue


def darker(colour: Colour, share: float) -> Colour:
    """``colour`` mixed with a dark violet, as a shadow is drawn."""
    return mixed(colour, (38, 24, 56), share)


def lighter(colour: Colour, share: float) -> Colour:
    """``colour`` mixed with a warm white."""
    return mixed(colour, (255, 250, 238), share)


def capsule(a: np.ndarray, b: np.ndarray, radius_a: float, radius_b: float) -> np.ndarray:
    """The outline [n, 2] of a line from ``a`` to ``b`` with a radius at each end."""
    x, y = float(b[0] - a[0]), float(b[1] - a[1])
    length = math.hypot(x, y)
    if length <= abs(radius_a - radius_b) + 1e-6:
        return disc(a, radius_a) if radius_a > radius_b else disc(b, radius_b)
    heading, tilt = math.atan2(y, x), math.acos(max(-1.0, min(1.0, (radius_a - radius_b) / length)))
    count = len(_ARC)
    outline = np.empty((2 * count, 2))
    for rows, centre, radius, angles in (
        (slice(0, count), b, radius_b, heading + tilt * _ARC),
        (slice(count, None), a, radius_a, heading + math.pi + (math.pi - tilt) * _ARC),
    ):
        outline[rows, 0] = centre[0] + radius * np.cos(angles)
        outline[rows, 1] = centre[1] + radius * np.sin(angles)
    return outline


def disc(centre: np.ndarray, radius: float) -> np.ndarray:
    """The outline of a disc."""
    return ellipse(centre, radius, radius)


def ellipse(centre: np.ndarray, across: float, down: float, roll: float = 0.0) -> np.ndarray:
    """The outline of an ellipse with half-axes ``across`` and ``down``, turned clockwise by ``roll`` degrees."""
    cos, sin = math.cos(math.radians(roll)), math.sin(math.radians(roll))
    outline = np.empty((len(_CIRCLE), 2))
    outline[:, 0] = centre[0] + (cos * across) * _COS - (sin * down) * _SIN
    outline[:, 1] = centre[1] + (sin * across) * _COS + (cos * down) * _SIN
    return outline


def _grown(outline: np.ndarray, distance: float) -> np.ndarray:
    """The outline moved outwards, vertex by vertex."""
    along = np.empty_like(outline)
    along[1:-1] = outline[2:] - outline[:-2]
    along[0], along[-1] = outline[1] - outline[-1], outline[0] - outline[-2]
    x, y = outline[:, 0], outline[:, 1]
    area = float(x @ along[:, 1] - y @ along[:, 0])  # twice the signed area, twice
    factor = math.copysign(distance, area) / np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-9)
    grown = outline.copy()
    grown[:, 0] += factor * along[:, 1]
    grown[:, 1] -= factor * along[:, 0]
    return grown


class Canvas:
    """A picture being painted from back to front, ``scale`` times as large as it will be."""

    def __init__(self, background: np.ndarray, scale: float) -> None:
        self.pixels = background
        self.scale = scale

    def fill(self, outline: np.ndarray, colour: Colour) -> None:
        """Fill one polygon."""
        cv2.fillPoly(self.pixels, [self._fixed(outline)], colour, cv2.LINE_AA, _FRACTION_BITS)

    def shape(self, outlines: Sequence[np.ndarray], colour: Colour, edge: Colour, edge_width: float) -> None:
        """Fill polygons as one shape: the edge is drawn around all of them together, not between them."""
        for outline in outlines:
            self.fill(_grown(outline, edge_width), edge)
        for outline in outlines:
            self.fill(outline, colour)

    def stroke(self, points: np.ndarray, width: float, colour: Colour) -> None:
        """A line through ``points``, ``width`` pixels of the finished picture wide."""
        thickness = max(1, round(width * self.scale))
        cv2.polylines(self.pixels, [self._fixed(points)], False, colour, thickness, cv2.LINE_AA, _FRACTION_BITS)

    def tint(self, outline: np.ndarray, colour: Colour, strength: float) -> None:
        """Mix ``colour`` into one polygon."""
        fixed = self._fixed(outline)
        height, width = self.pixels.shape[:2]
        low = np.maximum(fixed.min(axis=0) // (1 << _FRACTION_BITS) - 1, 0)
        high = np.minimum(fixed.max(axis=0) // (1 << _FRACTION_BITS) + 2, (width, height))
        if (low >= high).any():
            return
        region = self.pixels[low[1] : high[1], low[0] : high[0]]
        painted = region.copy()
        shifted = fixed - (low << _FRACTION_BITS)
        cv2.fillPoly(painted, [shifted.astype(np.int32)], colour, cv2.LINE_AA, _FRACTION_BITS)
        region[:] = cv2.addWeighted(painted, strength, region, 1 - strength, 0)

    def reduced(self, width: int, height: int) -> np.ndarray:
        """The finished picture, uint8 RGB [height, width, 3]."""
        return cv2.resize(self.pixels, (width, height), interpolation=cv2.INTER_AREA)

    def _fixed(self, points: np.ndarray) -> np.ndarray:
        unit = 1 << _FRACTION_BITS
        placed = np.asarray(points, float) * (self.scale * unit) + (0.5 * self.scale - 0.5) * unit
        return np.minimum(np.maximum(placed, -_FARTHEST), _FARTHEST).astype(np.int32)
