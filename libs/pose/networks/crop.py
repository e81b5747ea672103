"""The pose network's input, cropped from a frame around a person's box.

See ``detector`` for finding the box, ``heatmaps`` for reading the network's answer.

Source: docs/specification.md#crop. The network was used with blue, green, red channels normalised by the
statistics of red, green, blue; that is kept.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from libs.errors import PoseError

INPUT_HEIGHT, INPUT_WIDTH = 256, 192
_PADDING = 1.25
_SMALLEST_BOX = 10
_MEAN = np.array([0.485, 0.456, 0.406])
_STD = np.array([0.229, 0.224, 0.225])
_LARGEST_CROP_SIDE = 2**17
"""Pixels: three times the whole-frame crop of the largest pictures accepted. More comes from a box that is nonsense."""
LARGEST_COPY_PIXELS = 2**26
"""Pixels of a crop that is copied (as float32 colours: 0.8 GiB); of a larger one only what is needed is looked up."""


@dataclass(frozen=True)
class CropGeometry:
    """Which part of a frame the pose network sees.

    Attributes:
        centre: [2] float64, x and y in frame pixels.
        size: [2] float64, width and height in frame pixels, before rounding; decoding uses these.
        upper_left: [2] int, x and y of the crop's first pixel; may be negative.
        lower_right: [2] int, exclusive.
    """

    centre: np.ndarray
    size: np.ndarray
    upper_left: np.ndarray
    lower_right: np.ndarray

    def overlap(self, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
        """First and last (exclusive) pixel of the part of the crop inside the frame: [2] x, y each."""
        first = np.clip(self.upper_left, 0, (width, height))
        last = np.clip(self.lower_right, first, (width, height))
        return first, last


def crop_geometry(box: np.ndarray, width: int, height: int) -> CropGeometry:
    """The crop of 3:4 with padding around ``box`` (x1, y1, x2, y2, score); the whole frame for a useless box.

    The corners are computed along upstream's floating-point path: a quarter of all boxes has a corner at exactly one
    half, where rounding noise decides.
    """
    x1, y1, x2, y2, score = (float(value) for value in box)
    if score <= 0 or x2 - x1 < _SMALLEST_BOX or y2 - y1 < _SMALLEST_BOX:
        x1, y1, x2, y2 = 0.0, 0.0, float(width), float(height)
    centre_x, centre_y = (x1 + x2) / 2, (y1 + y2) / 2
    aspect = INPUT_HEIGHT / INPUT_WIDTH
    scale = max((x2 - x1) * aspect, y2 - y1) / 200 * _PADDING
    crop_height = 200 * scale
    crop_width = crop_height / aspect
    to_input = np.array(
        [
            [INPUT_WIDTH / crop_width, 0, INPUT_WIDTH * (-centre_x / crop_width + 0.5)],
            [0, INPUT_HEIGHT / crop_height, INPUT_HEIGHT * (-centre_y / crop_height + 0.5)],
            [0, 0, 1],
        ]
    )
    to_frame = np.linalg.inv(to_input)
    return CropGeometry(
        centre=np.array([centre_x, centre_y]),
        size=np.array([crop_width, crop_height]),
        upper_left=np.rint((to_frame @ np.array([0, 0, 1]))[:2]).astype(int),
        lower_right=np.rint((to_frame @ np.array([INPUT_WIDTH, INPUT_HEIGHT, 1]))[:2]).astype(int),
    )


def crop_image(image: np.ndarray, geometry: CropGeometry) -> np.ndarray:
    """The crop resized to [256, 192, 3] float32, black outside the image.

    Args:
        image: [H, W, 3] uint8.
        geometry: where to cut.

    Raises:
        PoseError: the crop is absurdly large.
    """
    crop_width, crop_height = geometry.lower_right - geometry.upper_left
    if min(crop_width, crop_height) < 1 or max(crop_width, crop_height) > _LARGEST_CROP_SIDE:
        raise PoseError(
            f"the detector's box leads to a crop of {crop_width} x {crop_height} pixels of a frame of "
            f"{image.shape[1]} x {image.shape[0]}; check the detector's file, or use smaller pictures"
        )
    left, top = geometry.upper_left
    if crop_width * crop_height > LARGEST_COPY_PIXELS:
        return _gathered(image, left, top, crop_width, crop_height)
    (x1, y1), (x2, y2) = geometry.overlap(image.shape[1], image.shape[0])
    crop = np.zeros((crop_height, crop_width, 3), dtype=np.float32)
    crop[y1 - top : y2 - top, x1 - left : x2 - left] = image[y1:y2, x1:x2]
    return cv2.resize(crop, (INPUT_WIDTH, INPUT_HEIGHT), interpolation=cv2.INTER_LINEAR)


def _gathered(image: np.ndarray, left: int, top: int, crop_width: int, crop_height: int) -> np.ndarray:
    """The resized crop, computed without copying the crop, to within 0.05 of 255 levels (OpenCV rounds its weights)."""
    columns, right_weights = _neighbours(crop_width, INPUT_WIDTH)
    rows, lower_weights = _neighbours(crop_height, INPUT_HEIGHT)

    def pixels(down: int, across: int) -> np.ndarray:
        y, x = rows + top + down, columns + left + across
        inside = ((y >= 0) & (y < image.shape[0]))[:, None] & ((x >= 0) & (x < image.shape[1]))
        found = image[np.ix_(y.clip(0, image.shape[0] - 1), x.clip(0, image.shape[1] - 1))]
        return np.where(inside[..., None], found, 0).astype(np.float32)

    upper, lower = (
        pixels(down, 0) * (1 - right_weights[:, None]) + pixels(down, 1) * right_weights[:, None] for down in (0, 1)
    )
    return upper * (1 - lower_weights[:, None, None]) + lower * lower_weights[:, None, None]


def _neighbours(length: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first of the two neighbours of ``count`` points spread evenly over ``length`` pixels; the second's weight."""
    position = (np.arange(count) + 0.5) * (length / count) - 0.5
    first = np.floor(position).astype(int)
    return first, (position - first).astype(np.float32)


def normalise(crop: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
    """A crop [256, 192, 3] of values 0..255 as network input [3, 256, 192] float32 (computed in double)."""
    result = np.empty((3, INPUT_HEIGHT, INPUT_WIDTH), dtype=np.float32) if out is None else out
    result[...] = ((crop / np.float32(255) - _MEAN) / _STD).transpose(2, 0, 1)
    return result


def pose_network_input(frame: np.ndarray, geometry: CropGeometry, out: np.ndarray | None = None) -> np.ndarray:
    """The network's input [3, 256, 192] for a frame [H, W, 3] uint8 RGB; channels end up blue, green, red.

    Written to ``out`` if that is given.
    """
    return normalise(crop_image(frame, geometry)[:, :, ::-1], out)
