"""Sharpness: 1 for the picture itself, less where it was blurred."""

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from libs.quality.sharpness import measure_sharpness

Make = Callable[..., np.ndarray]


def test_the_reference_itself_is_as_sharp_as_itself(dance: Make) -> None:
    frames = dance(4, rate=0)
    measured = measure_sharpness(frames, frames[0])
    assert (measured.mean, measured.minimum) == pytest.approx((1, 1))


def test_motion_changes_little(dance: Make) -> None:
    frames = dance(12)
    assert 0.7 < measure_sharpness(frames, frames[0]).minimum < 1.3


def test_blur_shows(dance: Make) -> None:
    frames = dance(6)
    blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), 2) for frame in frames])
    assert measure_sharpness(blurred, frames[0]).mean < 0.15


def test_one_blurred_frame_is_the_minimum(dance: Make) -> None:
    frames = dance(10)
    frames[7] = cv2.GaussianBlur(frames[7], (0, 0), 3)
    measured = measure_sharpness(frames, frames[0])
    assert measured.minimum < 0.1
    assert measured.mean > 0.7


def test_the_edge_of_the_mask_is_not_detail(dance: Make) -> None:
    """What is masked holds a hard edge to black, which would count more than all of the picture."""
    frames = dance(2, rate=0)
    reference, mask = frames[0].copy(), np.zeros(frames.shape[1:3], np.uint8)
    reference[-40:, ::2], mask[-40:] = 255, 255
    assert measure_sharpness(frames, reference).mean < 0.1
    assert 0.5 < measure_sharpness(frames, reference, mask).mean < 2


def test_a_flat_reference_is_nothing_to_measure() -> None:
    flat = np.full((3, 16, 16, 3), 90, np.uint8)
    assert measure_sharpness(flat, flat[0]) is None
