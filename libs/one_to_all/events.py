"""Inputs of an engine, and the events that it yields while a clip is made. Light: numpy, no torch."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from libs.errors import InputError

SIZE_MULTIPLE = 16
"""Height and width are multiples of this: 8 in the VAE, 2 in the patches."""


@dataclass(frozen=True)
class AnimationInputs:
    """The pictures of one clip, all of one size.

    Args:
        image: reference picture, uint8 RGB [H, W, 3].
        mask: uint8 [H, W]; 255 outside the given picture, 0 where the picture is valid.
        reference_pose: drawn pose of the reference, uint8 RGB [H, W, 3].
        frame_count: frames of the clip, at least 1.
        poses: ``poses(start, stop)`` draws the driving poses of these frames, uint8 RGB [stop - start, H, W, 3].

    Raises:
        InputError: names the field and what is expected.
    """

    image: np.ndarray
    mask: np.ndarray
    reference_pose: np.ndarray
    frame_count: int
    poses: Callable[[int, int], np.ndarray]

    def __post_init__(self) -> None:
        if self.image.ndim != 3 or self.image.shape[2] != 3:
            raise InputError(f"image has shape {list(self.image.shape)}; expected [height, width, 3]")
        if self.height % SIZE_MULTIPLE or self.width % SIZE_MULTIPLE:
            raise InputError(
                f"image is {self.width}x{self.height} pixels; width and height must be multiples of {SIZE_MULTIPLE}"
            )
        check_pixels("image", self.image, (self.height, self.width, 3))
        check_pixels("mask", self.mask, (self.height, self.width))
        check_pixels("reference_pose", self.reference_pose, (self.height, self.width, 3))
        if self.frame_count < 1:
            raise InputError(f"frame_count={self.frame_count}; a clip has at least one frame")

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.image.shape[0])

    @property
    def width(self) -> int:
        """Width in pixels."""
        return int(self.image.shape[1])


def check_pixels(name: str, pixels: np.ndarray, shape: tuple[int, ...]) -> None:
    """Raise InputError unless ``pixels`` is uint8 of ``shape``."""
    if pixels.dtype != np.uint8 or pixels.shape != shape:
        raise InputError(f"{name} is {pixels.dtype} {list(pixels.shape)}; expected uint8 {list(shape)}")


@dataclass(frozen=True)
class ChunkStarted:
    """The begin of a chunk: frames [start, end) of the clip, ``resumed`` when an earlier run has stored them."""

    index: int
    count: int
    start: int
    end: int
    resumed: bool


@dataclass(frozen=True)
class StepFinished:
    """The end of a denoising step of a chunk; ``step`` counts from 1 to ``step_count``."""

    chunk_index: int
    step: int
    step_count: int


@dataclass(frozen=True)
class FramesReady:
    """Final frames from ``start`` on, uint8 RGB [n, H, W, 3]; each frame of the clip comes exactly once, in order."""

    start: int
    frames: np.ndarray


AnimationEvent = ChunkStarted | StepFinished | FramesReady


class ChunkStore(Protocol):
    """Finished chunks of one clip, stored so that a killed run can be resumed.

    The store belongs to exactly one set of inputs and options; the engine cannot tell whose chunks it is given.
    """

    def load(self, index: int) -> np.ndarray | None:
        """Return the stored frames of this chunk, uint8 [n, H, W, 3], or None."""

    def save(self, index: int, frames: np.ndarray) -> None:
        """Store all frames that a chunk made, also those that later chunks overwrite."""


@dataclass(frozen=True)
class EngineLoad:
    """Whether the engine was loaded for a clip (cold) or reused (warm), and the seconds that this took."""

    cold: bool
    seconds: float
