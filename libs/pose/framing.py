"""Sizes and framing: the target size of a clip, and the centre crop that brings a picture to a size.

What does not belong here: reading pictures (``libs.media``), and moving a person inside a picture (``warp``).

Source: golden pose specification, section 2; golden model specification, section 9.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from PIL import Image

from libs.errors import MediaError
from libs.pose.parallel import ordered_map

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

    Pillow rounds each edge of the crop box half to even, so the crop can be a pixel off the centre.

    Args:
        image: [H, W, 3] or [H, W] uint8.
        height: target height in pixels.
        width: target width in pixels.

    Returns:
        [height, width, ...] uint8.

    Raises:
        MediaError: the target is empty, or so unlike the image that nothing of it would be left.
    """
    return np.asarray(_cropped(image, height, width).resize((width, height), Image.Resampling.BICUBIC))


def resize_crop_drawing(drawing: np.ndarray, height: int, width: int) -> np.ndarray:
    """:func:`resize_crop`, the same bit for bit and faster for a drawing on black, [H, W, 3] uint8.

    Pillow resizes along one axis, rounds to bytes, then resizes along the other: each row, then each column, for
    itself, or the other way round. Black ones stay black, so only the others are given to it.
    """
    cropped = _cropped(drawing, height, width)
    order = _pass_order(cropped.height, cropped.width, height, width)
    if order is None:
        return np.asarray(cropped.resize((width, height), Image.Resampling.BICUBIC))
    resized = np.asarray(cropped)
    for axis in order:
        resized = _resize_drawn_lines(resized, axis, (height, width)[axis])
    return resized


def _resize_drawn_lines(drawing: np.ndarray, axis: int, length: int) -> np.ndarray:
    """``drawing``, [H, W, 3] uint8, resized to ``length`` pixels along ``axis`` only (0: height, 1: width)."""
    across = 1 - axis
    drawn = _extent(_drawn_lines(drawing, axis))
    where = (drawn, slice(None)) if across == 0 else (slice(None), drawn)
    count = drawn.stop - drawn.start
    size = (length, count) if axis == 1 else (count, length)
    shape = (len(drawing), length, 3) if axis == 1 else (length, drawing.shape[1], 3)
    resized = np.zeros(shape, dtype=np.uint8)
    lines = Image.fromarray(np.ascontiguousarray(drawing[where]))
    resized[where] = np.asarray(lines.resize(size, Image.Resampling.BICUBIC))
    return resized


def _drawn_lines(drawing: np.ndarray, axis: int) -> np.ndarray:
    """Which rows (``axis`` 1) or columns (``axis`` 0) of a drawing [H, W, 3] are not all black; bool [H] or [W]."""
    height, width, _ = drawing.shape
    if axis == 1:
        return np.asarray(drawing.reshape(height, -1).any(axis=1))
    # numpy looks for "any" down the columns a hundred times more slowly than it joins whole rows
    joined = np.bitwise_or.reduce(drawing.reshape(height, -1), axis=0)
    return np.asarray(joined.reshape(width, 3).any(axis=1))


@lru_cache(maxsize=64)
def _pass_order(source_height: int, source_width: int, height: int, width: int) -> tuple[int, int] | None:
    """The axes in the order in which Pillow resizes them between these sizes; None if neither order gives its result.

    From version 13 on it chooses the cheaper order, and each order rounds in its own way. That choice is Pillow's own
    business and may change, so it is found out by trial, on noise, once for each pair of sizes.
    """
    noise = np.random.default_rng(0).integers(0, 256, (source_height, source_width, 3), dtype=np.uint8)
    expected = np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))
    for order in ((1, 0), (0, 1)):
        resized = noise
        for axis in order:
            resized = _resize_drawn_lines(resized, axis, (height, width)[axis])
        if np.array_equal(resized, expected):
            return order
    return None


def _extent(occupied: np.ndarray) -> slice:
    """From the first to the last True; the first place where there is none."""
    places = np.flatnonzero(occupied)
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 1)


def _cropped(image: np.ndarray, height: int, width: int) -> Image.Image:
    source_height, source_width = image.shape[:2]
    if min(height, width, source_height, source_width) < 1:
        raise MediaError(f"cannot bring a picture of {source_width} x {source_height} pixels to {width} x {height}")
    box = _crop_box(source_height, source_width, height, width)
    cropped: Image.Image = Image.fromarray(image).crop(box)  # type: ignore[arg-type]  # Pillow rounds the edges, as upstream relies on
    if min(cropped.size) < 1:
        raise MediaError(
            f"nothing is left of a picture of {source_width} x {source_height} pixels cropped to the shape of "
            f"{width} x {height}: use pictures of a more similar shape"
        )
    return cropped


def _crop_box(source_height: int, source_width: int, height: int, width: int) -> tuple[float, float, float, float]:
    """Left, top, right, bottom of the centre crop, in pixels, not yet rounded."""
    crop_width, crop_height = source_width, source_height
    if source_height / source_width > height / width:
        crop_height = int(source_width * height / width)
    else:
        crop_width = int(source_height * width / height)
    return (
        (source_width - crop_width) / 2,
        (source_height - crop_height) / 2,
        (source_width + crop_width) / 2,
        (source_height + crop_height) / 2,
    )


def framed_points(points: np.ndarray, source_size: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """Where points of a picture lie after :func:`resize_crop`.

    Args:
        points: [..., 2]; x / width, y / height of the picture.
        source_size: height and width of the picture in pixels.
        size: height and width it is brought to.

    Returns:
        [..., 2] float64; x, y in pixels of the result, outside of it where the crop cut the point off.
    """
    left, top, right, bottom = (round(edge) for edge in _crop_box(*source_size, *size))
    pixels = points.astype(np.float64) * (source_size[1], source_size[0])
    return (pixels - (left, top)) * (size[1] / (right - left), size[0] / (bottom - top))


def resize_crop_frames(frames: Iterable[np.ndarray], height: int, width: int) -> Iterator[np.ndarray]:
    """:func:`resize_crop` for a stream of frames, by several threads, in order, a bounded number at a time."""
    return ordered_map(lambda frame: resize_crop(frame, height, width), frames)
