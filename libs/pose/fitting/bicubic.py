"""Pillow's bicubic, antialiased resize of RGB pictures, bit for bit and several times faster, for many of one size.

Pillow resizes along one axis, rounds to bytes, then along the other; each line of a result is a weighted sum of lines.
The weights are computed here as Pillow computes them, and the sums are compiled (``weighted_rows``). Whether that gives
Pillow's pictures is tried out on noise for each pair of sizes: where it does not, as might be with a later Pillow,
Pillow itself is used. So one single picture is better left to Pillow.

See ``framing`` for cropping, and for what is brought to which size.
"""

from functools import lru_cache

import cv2
import numpy as np
from PIL import Image

from libs.pose.fitting.weighted_rows import WEIGHT_BITS, add_weighted_rows

_SUPPORT = 2.0
"""How far the bicubic kernel reaches, in pixels of the coarser of the two grids."""

_TRIED_VALUES = 3000
"""So many bytes of results are compared: in a result of a few pixels both orders may agree by chance."""

_MOST_TRIED_PIXELS = 4_000_000
"""So many pixels of pictures are tried at most, but always one picture."""


def resize(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """``picture``, [H, W, 3] uint8, as Pillow resizes it to [height, width, 3]."""
    order = pass_order(*picture.shape[:2], height, width)
    if order is None:
        return resize_by_pillow(picture, height, width)
    return _resize_in_order(picture, (height, width), order)


def resize_drawing(drawing: np.ndarray, height: int, width: int) -> np.ndarray:
    """:func:`resize`, faster for a drawing on black: lines without anything drawn stay black."""
    order = pass_order(*drawing.shape[:2], height, width)
    if order is None:
        return resize_by_pillow(drawing, height, width)
    resized = drawing
    for axis in order:
        drawn = _drawn_extent(resized, 1 - axis)
        where = (slice(None), drawn) if axis == 0 else (drawn, slice(None))
        length = (height, width)[axis]
        shape = (length, resized.shape[1], 3) if axis == 0 else (len(resized), length, 3)
        target = np.zeros(shape, dtype=np.uint8)
        target[where] = _resize_along(resized[where], axis, length)
        resized = target
    return resized


def resize_by_pillow(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """``picture``, [H, W, 3] or [H, W] uint8, resized by Pillow: the yardstick, and best for a single picture."""
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC))


@lru_cache(maxsize=64)
def pass_order(source_height: int, source_width: int, height: int, width: int) -> tuple[int, int] | None:
    """The axes in the order in which Pillow resizes them between these sizes; None if neither order gives its result.

    From version 13 on it chooses the cheaper order, and each order rounds in its own way. That choice is Pillow's own
    business and may change, as may its arithmetic, so both are found out by trial, once for each pair of sizes.
    """
    random = np.random.default_rng(0)
    affordable = max(1, _MOST_TRIED_PIXELS // (source_height * source_width))
    trials = min(-(-_TRIED_VALUES // (height * width * 3)), affordable)
    orders = [(1, 0), (0, 1)]
    for _ in range(trials):
        noise = random.integers(0, 256, (source_height, source_width, 3), dtype=np.uint8)
        expected = resize_by_pillow(noise, height, width)
        orders = [
            order for order in orders if np.array_equal(_resize_in_order(noise, (height, width), order), expected)
        ]
    return orders[0] if orders else None


def _resize_in_order(picture: np.ndarray, size: tuple[int, int], order: tuple[int, int]) -> np.ndarray:
    for axis in order:
        picture = _resize_along(picture, axis, size[axis])
    return picture


def _resize_along(picture: np.ndarray, axis: int, length: int) -> np.ndarray:
    """``picture``, [H, W, 3] uint8, resized to ``length`` pixels along ``axis`` only (0: height, 1: width)."""
    if picture.shape[axis] == length:
        return picture
    if axis == 1:  # sums of whole rows are what processors do fast, and so is turning a picture over
        return cv2.transpose(_resize_along(cv2.transpose(picture), 0, length))
    rows = picture.reshape(len(picture), -1)
    return add_weighted_rows(rows, *_weights(len(rows), length)).reshape(length, -1, 3)


@lru_cache(maxsize=64)
def _weights(source_length: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """For each of ``length`` lines the first source line, [length] int32, and weights [length, K] int32 (2^-22).

    Computed in double and in Pillow's order of operations (``precompute_coeffs``, ``normalize_coeffs_8bpc``).
    """
    scale = source_length / length
    stretch = max(scale, 1.0)
    reach = _SUPPORT * stretch
    lines = np.arange(length)
    centre = (lines + 0.5) * scale
    first = np.maximum((centre - reach + 0.5).astype(np.int64), 0)
    end = np.minimum((centre + reach + 0.5).astype(np.int64), source_length)
    taps = np.arange((end - first).max())
    weights = _cubic((taps + first[:, None] - centre[:, None] + 0.5) * (1.0 / stretch))
    weights[taps >= (end - first)[:, None]] = 0
    total = weights.cumsum(axis=1)[:, -1:]  # one after the other, as Pillow adds them up
    weights = weights / np.where(total == 0, 1.0, total) * (1 << WEIGHT_BITS)
    return first.astype(np.int32), np.trunc(weights + np.copysign(0.5, weights)).astype(np.int32)


def _cubic(distance: np.ndarray) -> np.ndarray:
    """The bicubic kernel with a = -0.5."""
    x = np.abs(distance)
    near = ((-0.5 + 2.0) * x - (-0.5 + 3.0)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * -0.5
    return np.where(x < 1, near, np.where(x < _SUPPORT, far, 0.0))


def _drawn_extent(drawing: np.ndarray, axis: int) -> slice:
    """From the first to the last row (``axis`` 0) or column (1) of [H, W, 3] with anything drawn; the first if none."""
    height, width, _ = drawing.shape
    if axis == 0:
        drawn = drawing.reshape(height, -1).any(axis=1)
    else:
        # numpy looks for "any" down the columns a hundred times more slowly than it joins whole rows
        drawn = np.bitwise_or.reduce(drawing.reshape(height, -1), axis=0).reshape(width, 3).any(axis=1)
    places = np.flatnonzero(drawn)
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 1)
