"""Flicker: pulsing counts, motion and fades do not."""

from collections.abc import Callable

import numpy as np
import pytest

from libs.quality.flicker import measure_flicker

Make = Callable[..., np.ndarray]


def test_a_still_does_not_flicker(dance: Make) -> None:
    assert measure_flicker(dance(5, rate=0)).mean == pytest.approx(0, abs=1e-6)


def test_fewer_than_three_frames_are_nothing_to_measure(dance: Make) -> None:
    assert measure_flicker(dance(2)) is None


@pytest.mark.parametrize("levels", [4, 12])
def test_pulsing_is_measured_in_levels(dance: Make, brighter: Make, levels: int) -> None:
    frames = dance(8, rate=0)
    frames[1::2] = brighter(frames[1::2], levels)
    measured = measure_flicker(frames)
    assert measured.mean == pytest.approx(levels, rel=0.1)
    assert measured.maximum == pytest.approx(levels, rel=0.1)


def test_a_fade_is_not_flicker(dance: Make, brighter: Make) -> None:
    frames = np.stack([brighter(frame, 3 * index) for index, frame in enumerate(dance(10, rate=0))])
    assert measure_flicker(frames).mean < 0.2


def test_motion_counts_far_less_than_pulsing(dance: Make, brighter: Make) -> None:
    """A dance whose pixels differ by as much as the pulse from frame to frame."""
    dancing = dance(16)
    change = np.abs(np.diff(dancing.astype(float), axis=0)).mean()
    pulsing = dance(16, rate=0)
    pulsing[1::2] = brighter(pulsing[1::2], change)
    moved, pulsed = measure_flicker(dancing), measure_flicker(pulsing)
    assert moved.mean < 0.25 * pulsed.mean


def test_pulsing_shows_in_a_dance_too(dance: Make, brighter: Make) -> None:
    calm = dance(16)
    flickering = calm.copy()
    flickering[1::2] = brighter(flickering[1::2], 6)
    assert measure_flicker(flickering).mean > measure_flicker(calm).mean + 4


def test_one_flash_is_the_maximum_not_the_mean(dance: Make, brighter: Make) -> None:
    frames = dance(20, rate=0)
    frames[10] = brighter(frames[10], 20)
    measured = measure_flicker(frames)
    assert measured.maximum > 15
    assert measured.mean < 3
