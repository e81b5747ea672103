"""Simple numbers about a clip, for asset checks: does it decode, is it empty, does it move."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from libs.errors import MediaError
from libs.media.video.reader import read_frames

Frame = npt.NDArray[np.uint8]

BLANK_STANDARD_DEVIATION = 4.0
"""Levels of 255. A frame whose values vary less holds one flat colour plus coding noise."""


@dataclass(frozen=True)
class ClipMeasurements:
    """Measurements of a clip; all values in levels of 0 to 255.

    ``contrast`` is the standard deviation of each frame's values, ``brightness`` each frame's mean, ``motion`` the
    mean absolute difference of each frame to the one before (one value fewer). ``decode_error`` is None when every
    frame could be decoded; otherwise the numbers describe the frames before the error.
    """

    contrast: tuple[float, ...]
    brightness: tuple[float, ...]
    motion: tuple[float, ...]
    decode_error: str | None = None

    @property
    def frame_count(self) -> int:
        """Number of frames that could be decoded."""
        return len(self.contrast)

    @property
    def decodes_fully(self) -> bool:
        """True when there are frames and none is damaged."""
        return self.decode_error is None and self.frame_count > 0

    @property
    def blank_frames(self) -> tuple[int, ...]:
        """Indices of frames of one flat colour: a uniformly red one, too."""
        return tuple(index for index, value in enumerate(self.contrast) if value < BLANK_STANDARD_DEVIATION)

    @property
    def is_blank(self) -> bool:
        """True when no frame shows anything."""
        return len(self.blank_frames) == self.frame_count

    @property
    def mean_motion(self) -> float:
        """Mean of ``motion``; 0 for a still or a single frame."""
        return float(np.mean(self.motion)) if self.motion else 0.0


def measure_frames(frames: Iterable[Frame]) -> ClipMeasurements:
    """Measure a stream of uint8 RGB frames of one size; errors while reading end it and are recorded."""
    contrast: list[float] = []
    brightness: list[float] = []
    motion: list[float] = []
    previous: npt.NDArray[np.int16] | None = None
    problem: str | None = None
    try:
        for frame in frames:
            values = frame.astype(np.int16)
            contrast.append(_contrast(frame))
            brightness.append(float(values.mean()))
            if previous is not None:
                motion.append(float(np.abs(values - previous).mean()))
            previous = values
    except MediaError as error:
        problem = str(error)
    return ClipMeasurements(tuple(contrast), tuple(brightness), tuple(motion), problem)


def measure_video(path: Path | str) -> ClipMeasurements:
    """Measure all frames of a video file; a file that cannot be read gives ``decode_error``, not an exception."""
    return measure_frames(read_frames(path))


def _contrast(frame: Frame) -> float:
    """Largest standard deviation among the channels, in levels."""
    return float(frame.reshape(-1, frame.shape[-1]).std(axis=0, dtype=np.float32).max())
