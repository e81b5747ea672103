"""The frames of a clip as networks take them: a stream of pictures of one size."""

from collections.abc import Iterable, Iterator

import numpy as np

from libs.errors import PoseError


def checked_frames(frames: Iterable[np.ndarray], subject: str) -> Iterator[np.ndarray]:
    """Yield the frames and check each one.

    Raises:
        PoseError: names the first that differs from frame 0 in size, or is no RGB picture.
    """
    first: tuple[int, ...] | None = None
    for index, frame in enumerate(frames):
        if frame.dtype != np.uint8 or frame.ndim != 3 or frame.shape[2] != 3:
            raise PoseError(f"{subject}: frame {index} is {frame.dtype} {frame.shape}; expected uint8 [H, W, 3] RGB")
        first = first or frame.shape
        if frame.shape != first:
            raise PoseError(
                f"{subject}: frame {index} has {frame.shape[1]} x {frame.shape[0]} pixels, frame 0 {first[1]} x "
                f"{first[0]}; all frames of a clip must have one size"
            )
        yield frame
