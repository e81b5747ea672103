"""Moving previews: several videos side by side as mp4, and a small animated WebP for a page.

See ``contact_sheet`` for still sheets, ``data_uri`` for how a picture gets into Dagster's metadata.
"""

import io
from collections.abc import Iterable, Iterator, Mapping
from fractions import Fraction
from itertools import repeat
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from libs.errors import InputError, MediaError
from libs.media.previews.frame_selection import thin_out
from libs.media.previews.tiles import below, beside, caption_bar, scaled_to_fit, scaled_to_height
from libs.media.video.writer import VideoWriter

Frame = npt.NDArray[np.uint8]

_ANIMATION_FRAMES = 48
_ANIMATION_SIDE = 480
# Tried in this order until the animation fits: longest side in pixels, keep every n-th frame, WebP quality.
_ANIMATION_STEPS = (
    (480, 1, 75),
    (320, 1, 70),
    (320, 2, 60),
    (256, 2, 50),
    (192, 2, 45),
    (160, 2, 40),
    (192, 4, 40),
    (128, 4, 35),
    (128, 8, 25),
    (96, 8, 20),
    (64, 16, 10),
)


def write_comparison(
    path: Path | str,
    columns: Mapping[str, Frame | Iterable[Frame]],
    frame_rate: Fraction,
    height: int = 480,
) -> int:
    """Write an mp4 that shows several videos side by side, each below its caption; returns the number of frames.

    A column is a stream of frames, or one frame [H, W, 3] that stands still (the reference picture). All are scaled
    to ``height``; the shortest stream ends the preview. Written atomically, streamed.

    Raises:
        InputError: no column moves.
        MediaError: as :class:`libs.media.video.writer.VideoWriter`.
    """
    streams = [iter(column) for column in columns.values() if not isinstance(column, np.ndarray)]
    if not streams:
        raise InputError("a comparison needs at least one video among its columns")
    composed = side_by_side(columns, height)
    first = next(composed, None)
    if first is None:
        raise MediaError(f"{path}: a column of the comparison has no frames")
    with VideoWriter(path, first.shape[1], first.shape[0], frame_rate) as writer:
        writer.write(first)
        for frame in composed:
            writer.write(frame)
    return writer.frame_count


def side_by_side(columns: Mapping[str, Frame | Iterable[Frame]], height: int) -> Iterator[Frame]:
    """The frames of several videos in a row, each below its caption; a column that is one frame stands still.

    All are scaled to ``height`` pixels; the shortest stream ends it.
    """
    moving = [repeat(column) if isinstance(column, np.ndarray) else column for column in columns.values()]
    bars: Frame | None = None
    for frames in zip(*moving, strict=False):
        scaled = [scaled_to_height(frame, height) for frame in frames]
        if bars is None:
            bars = beside([caption_bar(text, tile.shape[1]) for text, tile in zip(columns, scaled, strict=True)])
        yield below([bars, beside(scaled)])


def animated_webp(frames: Iterable[Frame], frame_rate: Fraction, byte_limit: int) -> bytes:
    """A looping animated WebP of at most ``byte_limit`` bytes, at true speed.

    Frames are left out, scaled down and compressed harder until it fits. Streamed; at most 49 small frames are held.

    Raises:
        InputError: there are no frames.
        MediaError: not even the smallest version fits (limits below about 2 KB).
    """
    kept, stride = thin_out((scaled_to_fit(frame, _ANIMATION_SIDE) for frame in frames), _ANIMATION_FRAMES)
    if not kept:
        raise InputError("an animation needs at least one frame")
    for side, step, quality in _ANIMATION_STEPS:
        chosen = [Image.fromarray(scaled_to_fit(frame, side)) for frame in kept[::step]]
        milliseconds = max(1, round(1000 * stride * step / frame_rate))
        encoded = io.BytesIO()
        chosen[0].save(
            encoded, "WEBP", save_all=True, append_images=chosen[1:], duration=milliseconds, loop=0, quality=quality
        )
        if encoded.tell() <= byte_limit:
            return encoded.getvalue()
    raise MediaError(f"no animated preview fits into {byte_limit} bytes")
