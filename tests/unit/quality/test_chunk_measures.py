"""Colour drift and seams, on clips of several chunks."""

from collections.abc import Callable

import numpy as np
import pytest

from libs.quality.chunk_seams import measure_chunk_seams
from libs.quality.colour_drift import measure_colour_drift

Make = Callable[..., np.ndarray]
STARTS = (0, 10, 20)


def test_an_even_clip_does_not_drift(dance: Make) -> None:
    frames = dance(30)
    drift = measure_colour_drift(frames, STARTS, frames[0])
    assert len(drift.from_first_chunk) == len(drift.from_reference) == 3
    assert drift.from_first_chunk[0] == 0
    assert drift.maximum < 0.6
    assert max(drift.from_reference) < 1.2


def test_a_chunk_that_grows_brighter_drifts(dance: Make, brighter: Make) -> None:
    frames = dance(30)
    frames[10:20] = brighter(frames[10:20], 8)
    frames[20:] = brighter(frames[20:], 16)
    drift = measure_colour_drift(frames, STARTS, frames[0])
    assert drift.from_first_chunk[1] > 2
    assert drift.from_first_chunk[2] > 1.7 * drift.from_first_chunk[1]
    assert drift.maximum == drift.from_first_chunk[2]


def test_a_cast_of_colour_drifts_at_equal_brightness(dance: Make) -> None:
    frames = dance(30).astype(np.int16)
    frames[20:, ..., 0] += 12
    frames[20:, ..., 2] -= 12
    drift = measure_colour_drift(np.clip(frames, 0, 255).astype(np.uint8), STARTS, frames[0].astype(np.uint8))
    assert drift.from_first_chunk[2] > 4


def test_known_distance() -> None:
    """Black to white is 100 units of lightness."""
    frames = np.zeros((2, 8, 8, 3), np.uint8)
    frames[1] = 255
    drift = measure_colour_drift(frames, (0, 1), frames[0])
    assert drift.from_first_chunk == pytest.approx((0, 100), abs=0.01)
    assert drift.from_reference == pytest.approx((0, 100), abs=0.01)


def test_only_the_shown_part_of_the_reference_counts() -> None:
    frames = np.full((2, 8, 8, 3), 200, np.uint8)
    reference, mask = frames[0].copy(), np.zeros((8, 8), np.uint8)
    reference[:, 4:], mask[:, 4:] = 0, 255
    assert measure_colour_drift(frames, (0,), reference, mask).from_reference[0] == pytest.approx(0, abs=1e-4)
    assert measure_colour_drift(frames, (0,), reference).from_reference[0] > 10


def test_a_clip_without_seams(dance: Make) -> None:
    seams = measure_chunk_seams(dance(30), STARTS, 5)
    assert len(seams.excess) == 2
    assert seams.maximum < 1


def test_a_jump_at_a_border_is_found_there(dance: Make, brighter: Make) -> None:
    frames = dance(30)
    frames[20:] = brighter(frames[20:], 10)
    first, second = measure_chunk_seams(frames, STARTS).excess
    assert first < 1
    assert second == pytest.approx(10, abs=2)


def test_a_jump_where_new_frames_begin_belongs_to_the_border(dance: Make, brighter: Make) -> None:
    frames = dance(30)
    frames[15:] = brighter(frames[15:], 10)
    assert measure_chunk_seams(frames, STARTS, 5).excess[0] == pytest.approx(10, abs=2)
    assert measure_chunk_seams(frames, STARTS, 0).excess[0] < 1


def test_fast_motion_everywhere_is_no_seam(dance: Make) -> None:
    assert measure_chunk_seams(dance(30, rate=8), STARTS).maximum < 3


def test_one_chunk_has_no_seam(dance: Make) -> None:
    assert measure_chunk_seams(dance(6), (0,)).maximum == 0
