"""Hands and faces followed from frame to frame.

The body tells in each frame where a hand or face must be. The region of the frame before shows it better, as long as
the two agree.
"""

from dataclasses import dataclass

import numpy as np

from libs.pose.mediapipe.regions import Region, turned_back


@dataclass(frozen=True)
class Part:
    """A hand or a face as it was found: its landmarks [N, 2] in pixels, and how sure it is, 0.5 to 1."""

    points: np.ndarray
    score: float


@dataclass(frozen=True)
class Agreement:
    """How far the region of the frame before may lie from the one that this frame suggests.

    Attributes:
        rotation: radians.
        translation: along either axis of the suggested region, in parts of its size.
        scale: difference of the sizes, in parts of the suggested one.
        margin: how much larger than the suggested region the one is that must hold all landmarks of the frame before.
    """

    rotation: float
    translation: float
    scale: float
    margin: float

    def region_to_search(self, suggested: Region, before: Region, landmarks: np.ndarray) -> Region:
        """``before`` where it agrees, else ``suggested``.

        Args:
            suggested: from this frame's body.
            before: from the landmarks of the frame before.
            landmarks: [N, 2] those landmarks.
        """
        return before if self._regions_agree(suggested, before) and self._holds(suggested, landmarks) else suggested

    def _regions_agree(self, suggested: Region, before: Region) -> bool:
        size = np.array([suggested.width, suggested.height])
        moved = np.abs(suggested.axes_coordinates(np.array([[before.x, before.y]]))[0])
        resized = np.abs(np.array([before.width, before.height]) - size)
        turned = abs(turned_back(before.rotation - suggested.rotation))
        near = (moved <= size * self.translation).all() and (resized <= size * self.scale).all()
        return bool(turned <= self.rotation and near)

    def _holds(self, suggested: Region, landmarks: np.ndarray) -> bool:
        halves = np.array([suggested.width, suggested.height]) * (1 + self.margin) / 2
        return bool((np.abs(suggested.axes_coordinates(landmarks)) < halves).all())
