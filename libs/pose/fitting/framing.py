"""Sizes and framing: the target size of a clip, and the centre crop that brings a picture to a size.

See ``libs.media`` for reading pictures, ``warp`` for moving a person inside a picture.

Source: docs/specification.md#frames-and-sizes and #preparing-inputs.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain

import numpy as np

from libs.errors import MediaError
from libs.pose.fitting import bicubic
from libs.pose.networks.prefetch import ordered_map, worker_count

SIZE_MULTIPLE = 16
PREPROCESS_SHORT_SIDE = 768
"""The limit of upstream's preprocessing script; its inference scripts limit again (384 or 576)."""


@dataclass(frozen=True)
class FrameSize:
    """Height and width in pixels."""

    height: int
    width: int


def target_size(height: int, width: int, short_side_limit: int = PREPROCESS_SHORT_SIDE) -> FrameSize:
    """The size of the outputs for a wanted size: the short side limited, both sides floored to multiples of 16.

    Args:
        height: wanted height in pixels, usually the reference picture's.
        width: wanted width in pixels.
        short_side_limit: if the short side is longer, both sides shrink so that it equals this.

    Raises:
        MediaError: a side would be shorter than 16 pixels, so nothing would be left of it.
    """
    new_height, new_width = height, width
    short = min(height, width)
    if short > short_side_limit:
        factor = short_side_limit / short
        new_height = short_side_limit if height == short else int(height * factor)
        new_width = short_side_limit if width == short else int(width * factor)
    size = FrameSize(new_height // SIZE_MULTIPLE * SIZE_MULTIPLE, new_width // SIZE_MULTIPLE * SIZE_MULTIPLE)
    if min(size.height, size.width) < SIZE_MULTIPLE:
        raise MediaError(
            f"a picture of {width} x {height} pixels (width x height) is too small: each side needs at least "
            f"{SIZE_MULTIPLE} pixels after the short side is limited to {short_side_limit}"
        )
    return size


def resize_crop(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """``image`` cropped around its centre to the aspect of the target, then resized to it (bicubic, antialiased).

    For a single picture; :func:`resize_crop_frames` is faster for many. Each edge of the crop box is rounded half to
    even, so the crop can be a pixel off the centre.

    Args:
        image: [H, W, 3] or [H, W] uint8.
        height: target height in pixels.
        width: target width in pixels.

    Returns:
        [height, width, ...] uint8.

    Raises:
        MediaError: the target is empty, or so unlike the image that nothing of it would be left.
    """
    return bicubic.resize_by_pillow(_cropped(image, height, width), height, width)


def resize_crop_frames(frames: Iterable[np.ndarray], height: int, width: int) -> Iterator[np.ndarray]:
    """:func:`resize_crop` for a stream of RGB frames, by several threads, in order, a bounded number at a time.

    The same bit for bit; the first frame of a new pair of sizes takes longer.
    """
    iterator = iter(frames)
    for first in iterator:
        workers = worker_count(first.nbytes + height * width * 3)
        every = chain([first], iterator)
        yield from ordered_map(
            lambda frame: bicubic.resize(_cropped(frame, height, width), height, width), every, workers
        )


def resize_crop_drawing(drawing: np.ndarray, height: int, width: int) -> np.ndarray:
    """:func:`resize_crop`, the same bit for bit and faster for one of many drawings on black, [H, W, 3] uint8."""
    return bicubic.resize_drawing(_cropped(drawing, height, width), height, width)


def _cropped(image: np.ndarray, height: int, width: int) -> np.ndarray:
    source_height, source_width = image.shape[:2]
    if min(height, width, source_height, source_width) < 1:
        raise MediaError(f"cannot resize a picture of {source_width} x {source_height} pixels to {width} x {height}")
    left, top, right, bottom = _crop_box(source_height, source_width, height, width)
    if right <= left or bottom <= top:
        raise MediaError(
            f"nothing is left of a picture of {source_width} x {source_height} pixels cropped to the shape of "
            f"{width} x {height}: use pictures of a more similar shape"
        )
    return image[top:bottom, left:right]


def _crop_box(source_height: int, source_width: int, height: int, width: int) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of the centre crop in pixels, rounded half to even as upstream's Pillow does."""
    crop_width, crop_height = source_width, source_height
    if source_height / source_width > height / width:
        crop_height = int(source_width * height / width)
    else:
        crop_width = int(source_height * width / height)
    return (
        round((source_width - crop_width) / 2),
        round((source_height - crop_height) / 2),
        round((source_width + crop_width) / 2),
        round((source_height + crop_height) / 2),
    )


def framed_points(points: np.ndarray, source_size: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Map points of a picture to their positions after :func:`resize_crop`.

    Args:
        points: [..., 2]; x / width, y / height of the picture.
        source_size: height and width of the picture in pixels.
        size: height and width it is brought to.

    Returns:
        [..., 2] float64; x, y in pixels of the result, outside of it where the crop cut the point off.
    """
    left, top, right, bottom = _crop_box(*source_size, *size)
    pixels = points.astype(np.float64) * (source_size[1], source_size[0])
    return (pixels - (left, top)) * (size[1] / (right - left), size[0] / (bottom - top))
