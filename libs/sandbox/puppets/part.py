"""What all parts of a drawn figure share: measures, outlined shapes, lit limbs."""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from libs.sandbox.puppets.canvas import Canvas, Colour, capsule, darker
from libs.sandbox.puppets.characters import Character
from libs.sandbox.puppets.skeleton import Joints

INK: Colour = (44, 32, 50)
LIGHT_FROM = np.array([-0.55, -0.8])
"""Towards the light, from a shape's middle."""


@dataclass
class Part:
    """Something of ``character`` that is drawn on ``canvas``; ``height`` is the standing height in pixels."""

    canvas: Canvas
    character: Character
    joints: Joints
    height: float

    @cached_property
    def edge(self) -> float:
        """Width of outlines in pixels."""
        return max(0.4, 0.0062 * self.height)

    def at(self, name: str) -> np.ndarray:
        """Where a joint is, in pixels."""
        return self.joints.body[name]

    def middle(self, joint: str) -> np.ndarray:
        """The middle between the left and the right ``joint``."""
        return (self.at(f"left_{joint}") + self.at(f"right_{joint}")) / 2

    def width(self, share: float) -> float:
        """A radius in pixels from a share of the height; stout characters have larger ones."""
        return share * self.height * self.character.proportions.girth

    def solid(self, outlines: list[np.ndarray], colour: Colour, edge: float = 1.0) -> None:
        """One shape with an outline in a darker tone."""
        self.canvas.shape(outlines, colour, darker(colour, 0.5), edge * self.edge)

    def limb(self, points: list[np.ndarray], radii: list[float], colour: Colour) -> None:
        """A chain of round cones with a lighter band on the side of the light."""
        pairs = list(zip(points[:-1], points[1:], radii[:-1], radii[1:], strict=True))
        self.solid([capsule(a, b, ra, rb) for a, b, ra, rb in pairs], darker(colour, 0.13))
        for a, b, ra, rb in pairs:
            shift = LIGHT_FROM * 0.24 * min(ra, rb)
            self.canvas.fill(capsule(a + shift, b + shift, 0.7 * ra, 0.7 * rb), colour)


def hull(outlines: list[np.ndarray]) -> np.ndarray:
    """The convex hull of several outlines."""
    points = np.concatenate(outlines).astype(np.float32)
    return cv2.convexHull(points)[:, 0].astype(float)
