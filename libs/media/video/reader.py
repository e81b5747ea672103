"""Videos -> upright RGB frames, streamed.

See ``probe`` for describing files, ``libs.pose.fitting.framing`` for cropping and scaling to a model's size.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Self

import av
import numpy as np
import numpy.typing as npt

from libs.errors import InputError
from libs.media.limits import MAXIMUM_FRAME_PIXELS, check_size
from libs.media.pictures.image import read_image
from libs.media.pictures.still import is_still
from libs.media.video.colour import RgbConverter
from libs.media.video.orientation import Orientation, orientation_from_display_matrix
from libs.media.video.video_file import decode_frames, open_video, scan_video

Frame = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class DisplayGeometry:
    """How stored frames become upright ones: first scaled to square pixels (``width`` x ``height``), then turned."""

    width: int
    height: int
    orientation: Orientation

    @classmethod
    def of(cls, path: Path, frame: av.VideoFrame) -> Self:
        """The geometry of a video, from its first frame."""
        matrices = [data for data in frame.side_data if data.type.name == "DISPLAYMATRIX"]
        orientation = orientation_from_display_matrix(bytes(matrices[0])) if matrices else Orientation()
        with open_video(path) as (_, stream):
            pixel_aspect = stream.sample_aspect_ratio or Fraction(1)
        return cls(max(1, round(frame.width * pixel_aspect)), frame.height, orientation)

    @property
    def upright_size(self) -> tuple[int, int]:
        """Width and height of the upright frame."""
        return self.orientation.size(self.width, self.height)


def read_frames(path: Path | str, interval: int = 1, start: int = 0, stop: int | None = None) -> Iterator[Frame]:
    """Yield frames s, s + k, s + 2k, ... (s = ``start``, k = ``interval``) as uint8 RGB [H, W, 3], upright, full range.

    ``stop`` is the first frame that is not read, None for the end of the video.

    A video of constant rate gives every decoded frame once. Of a variable one, frames are repeated or dropped so that
    they lie on a constant grid at the rate ``probe_video`` reports: motion keeps its timing. Colours are converted with
    the matrix the file names (``libs.media.video.colour`` for files that name none), high dynamic range is brought to
    BT.709, interlaced frames are made progressive. A still picture is a video of one frame. Memory: a few frames; each
    yielded array is the caller's own.

    Raises:
        InputError: ``interval`` is below 1, or ``start`` below 0.
        MediaError: the file cannot be read or ends early; raised before the first frame where the container shows it,
            else at the first frame that cannot be decoded.
    """
    if interval < 1:
        raise InputError(f"frame interval is {interval}, expected 1 (every frame) or more")
    if start < 0:
        raise InputError(f"the first frame is {start}, expected 0 or more")
    path = Path(path)
    return _read(path, interval, start, stop)


def _read(path: Path, interval: int, start: int, stop: int | None) -> Iterator[Frame]:
    if stop is not None and stop <= start:
        return
    if path.is_file() and is_still(path):
        picture = read_image(path)
        check_size(f"{path}: the picture", picture.shape[1], picture.shape[0], MAXIMUM_FRAME_PIXELS)
        if start == 0:
            yield picture
        return
    timing = scan_video(path)
    convert = RgbConverter()
    geometry: DisplayGeometry | None = None
    converted: Frame | None = None
    for index, (frame, repeated) in enumerate(decode_frames(path, timing)):
        if geometry is None:
            geometry = DisplayGeometry.of(path, frame)
            check_size(f"{path}: the video", *geometry.upright_size, MAXIMUM_FRAME_PIXELS)
        if not repeated:
            converted = None
        if index < start or (index - start) % interval:
            continue
        if converted is None:
            converted = geometry.orientation.apply(convert(frame, geometry.width, geometry.height))
        yield converted.copy() if timing.variable else converted
        if stop is not None and index + interval >= stop:
            return
