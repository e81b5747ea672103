"""The display matrix of a video (how a phone was held) applied to frames.

A phone stores the picture as its sensor sees it, plus a 3x3 matrix that tells how to show it. See
``libs.media.pictures.image`` for the EXIF orientation of still pictures.
"""

import struct
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Frame = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Orientation:
    """One of the eight ways a stored frame can be shown: first transpose, then mirror columns, then mirror rows."""

    transpose: bool = False
    mirror_columns: bool = False
    mirror_rows: bool = False

    @property
    def rotation(self) -> int:
        """Degrees (0, 90, 180, 270) by which the stored frame is turned clockwise, a mirroring left aside."""
        if self.transpose:
            return 270 if self.mirror_rows else 90
        return 180 if self.mirror_rows else 0

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of the upright frame for those of the stored one."""
        return (height, width) if self.transpose else (width, height)

    def apply(self, frame: Frame) -> Frame:
        """The upright frame [H, W, 3], contiguous, for a stored one."""
        if self.transpose:
            frame = frame.transpose(1, 0, 2)
        if self.mirror_columns:
            frame = frame[:, ::-1]
        if self.mirror_rows:
            frame = frame[::-1]
        return np.ascontiguousarray(frame)


def orientation_from_display_matrix(matrix: bytes) -> Orientation:
    """Read FFmpeg's display matrix: nine native 32-bit integers ``a b u  c d v  x y w``.

    A stored point (column p, row q) is shown at (a p + c q, b p + d q). Angles that are no multiple of 90 degrees are
    taken to the nearest one.
    """
    a, b, _, c, d, *_ = struct.unpack("=9i", matrix)
    if abs(a) + abs(d) >= abs(b) + abs(c):
        return Orientation(mirror_columns=a < 0, mirror_rows=d < 0)
    return Orientation(transpose=True, mirror_columns=c < 0, mirror_rows=b < 0)
