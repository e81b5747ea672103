"""Rotated square regions of a picture, in which the networks look.

A region comes from a detection or from landmarks of the frame before, and is then enlarged so that what is searched for
lies inside. All coordinates are pixels of the whole picture; angles are radians, clockwise on the screen.
"""

import math
from dataclasses import dataclass, replace
from typing import Self

import numpy as np

_UP = math.pi / 2

PALM = (0, 1, 2, 3, 5, 6, 9, 10, 13, 14, 17, 18)
"""Landmarks of a hand that lie on or near the palm: fingertips move too much to tell where the hand will be."""
_WRIST, _INDEX, _MIDDLE, _RING = 0, 5, 9, 13


def turned_back(angle: float) -> float:
    """``angle`` within -pi and pi."""
    return angle - 2 * math.pi * math.floor((angle + math.pi) / (2 * math.pi))


def rotation_between(start: np.ndarray, end: np.ndarray, target: float) -> float:
    """How far a region is turned whose vector from ``start`` to ``end`` has the angle ``target`` when upright."""
    return turned_back(target - math.atan2(-(end[1] - start[1]), end[0] - start[0]))


@dataclass(frozen=True)
class Region:
    """A rectangle around ``(x, y)``, turned by ``rotation``."""

    x: float
    y: float
    width: float
    height: float
    rotation: float

    @classmethod
    def around(cls, centre: np.ndarray, on_circle: np.ndarray, target: float = _UP) -> Self:
        """The square around a circle, given by its centre and a point on it that tells the rotation as well."""
        side = 2 * float(np.hypot(*(on_circle - centre)))
        return cls(float(centre[0]), float(centre[1]), side, side, rotation_between(centre, on_circle, target))

    @classmethod
    def enclosing(cls, points: np.ndarray, start: int, end: int) -> Self:
        """The upright bounding box of ``points``, turned so that those at ``start`` and ``end`` lie on a level."""
        low, high = points.min(axis=0), points.max(axis=0)
        (x, y), (width, height) = (low + high) / 2, high - low
        rotation = rotation_between(points[start], points[end], 0.0)
        return cls(float(x), float(y), float(width), float(height), rotation)

    @classmethod
    def of_hand(cls, hand: np.ndarray) -> Self:
        """The box of a hand's palm along the direction of the hand, from its 21 landmarks."""
        knuckles = ((hand[_INDEX] + hand[_RING]) / 2 + hand[_MIDDLE]) / 2
        rotation = rotation_between(hand[_WRIST], knuckles, _UP)
        palm = hand[list(PALM)]
        middle = (palm.min(axis=0) + palm.max(axis=0)) / 2
        upright = (palm - middle) @ _rotation(-rotation).T
        low, high = upright.min(axis=0), upright.max(axis=0)
        x, y = _rotation(rotation) @ ((low + high) / 2) + middle
        return cls(float(x), float(y), float(high[0] - low[0]), float(high[1] - low[1]), rotation)

    def enlarged(self, scale: float, shift_y: float = 0.0) -> Self:
        """The square of the longer side times ``scale``, moved along its own vertical axis by parts of its height."""
        shift = self.height * shift_y
        side = max(self.width, self.height) * scale
        return replace(
            self,
            x=self.x - shift * math.sin(self.rotation),
            y=self.y + shift * math.cos(self.rotation),
            width=side,
            height=side,
        )

    def corners(self) -> np.ndarray:
        """[4, 2] float32: lower left, upper left, upper right, lower right, as seen in the upright region.

        Each number is rounded as OpenCV 3.4's ``boxPoints`` does it, with which the library was built. OpenCV 4.14
        rounds the last bit otherwise: a few pixels of what a network sees change, and a tracked body drifts by a pixel.
        """
        numbers = (self.x, self.y, self.width, self.height, self.rotation)
        x, y, width, height, rotation = (np.float32(number) for number in numbers)
        degrees = np.float32(float(rotation * np.float32(180)) / math.pi)
        radians = float(degrees) * math.pi / 180
        down = np.float32(math.cos(radians)) * np.float32(0.5)
        across = np.float32(math.sin(radians)) * np.float32(0.5)
        lower_left = x - across * height - down * width, y + down * height - across * width
        upper_left = x + across * height - down * width, y - down * height - across * width
        opposite = [(2 * x - left, 2 * y - top) for left, top in (lower_left, upper_left)]
        return np.array([lower_left, upper_left, *opposite], np.float32)

    def to_picture(self, points: np.ndarray) -> np.ndarray:
        """``points`` [N, 2] in parts of the region, 0 to 1 from its upper left corner, as pixels of the picture."""
        turned = (points - 0.5) @ _rotation(self.rotation).T
        return turned * [self.width, self.height] + [self.x, self.y]

    def axes_coordinates(self, points: np.ndarray) -> np.ndarray:
        """``points`` [N, 2] of the picture along the region's axes, in pixels from its centre."""
        return (points - [self.x, self.y]) @ _rotation(-self.rotation).T


def _rotation(angle: float) -> np.ndarray:
    return np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
