"""Colours of later chunks are brought to those of the first."""

import numpy as np
import pytest

from libs.one_to_all.events import AnimationInputs, FramesReady, StepFinished
from libs.one_to_all.sampling.chunk_plan import ChunkLengths, plan_chunks
from libs.one_to_all.sampling.colour_match import ColourStatistics, match_colours, oklab
from libs.one_to_all.sampling.long_video import animate_chunks
from libs.quality.colour_drift import measure_colour_drift

SIZE = 64
LENGTHS = ChunkLengths(main=17, overlap=5, final=(9, 13, 17))


def scene(count: int, start: int = 0) -> np.ndarray:
    """A bright figure that moves over a coloured room, uint8 [count, SIZE, SIZE, 3]."""
    frames = np.empty((count, SIZE, SIZE, 3), np.uint8)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    for index in range(count):
        frames[index] = np.stack((60 + rows, 90 + columns // 2, 120 - rows // 2), axis=-1)
        left = (start + index) % (SIZE - 16)
        frames[index, 16:56, left : left + 12] = (200, 150, 110)
    return frames


def drifted(frames: np.ndarray, strength: float) -> np.ndarray:
    """Brighter, of more contrast, and redder."""
    changed = (frames - 110.0) * (1 + 0.12 * strength) + 110 + np.array([14.0, 2.0, -8.0]) * strength
    return np.rint(changed).clip(0, 255).astype(np.uint8)


def test_oklab_of_known_colours() -> None:
    colours = np.array([[0, 0, 0], [255, 255, 255], [255, 0, 0]], np.uint8)
    expected = [[0, 0, 0], [1, 0, 0], [0.62796, 0.22486, 0.12585]]
    assert np.allclose(oklab(colours), expected, atol=2e-4)


def test_frames_of_the_same_statistics_stay_as_they_are() -> None:
    frames = scene(5)
    assert np.abs(match_colours(frames, ColourStatistics.of(frames)).astype(int) - frames).max() <= 1


def test_mean_and_deviation_become_those_of_the_target() -> None:
    target = ColourStatistics.of(scene(9))
    found = ColourStatistics.of(match_colours(drifted(scene(9), 1.0), target))
    assert np.abs(found.mean - target.mean).max() < 2e-3
    assert np.abs(found.deviation - target.deviation).max() < 2e-3


@pytest.mark.parametrize("value", [0, 128, 255])
def test_a_flat_chunk_is_moved_and_not_stretched(value: int) -> None:
    flat = np.full((2, SIZE, SIZE, 3), value, np.uint8)
    matched = match_colours(flat, ColourStatistics.of(scene(9)))
    assert np.abs(ColourStatistics.of(matched).mean - ColourStatistics.of(scene(9)).mean).max() < 5e-3
    assert np.isfinite(ColourStatistics.of(match_colours(scene(2), ColourStatistics.of(flat))).mean).all()


def clip(colours_matched: bool, store=None) -> tuple[np.ndarray, list[int]]:
    """A clip whose every chunk drifts on from the frames it continues."""
    count, plan = 60, plan_chunks(60, LENGTHS)
    picture = np.zeros((SIZE, SIZE, 3), np.uint8)
    inputs = AnimationInputs(
        picture, picture[:, :, 0], picture, count, lambda start, stop: np.zeros((stop - start, SIZE, SIZE, 3), np.uint8)
    )
    expected = scene(plan[-1].end)

    def make(chunk, previous):
        strength = 0.0
        if previous is not None:  # as far as its beginning has drifted, and once more
            strength = (previous.mean() - expected[chunk.start : chunk.start + 5].mean()) / 3.0 + 0.5
        yield StepFinished(chunk.index, 1, 1)
        yield drifted(expected[chunk.start : chunk.end], strength)

    events = animate_chunks(inputs, plan, make, store, colours_matched=colours_matched)
    frames = np.concatenate([event.frames for event in events if isinstance(event, FramesReady)])
    return frames, [chunk.start for chunk in plan]


def test_the_drift_of_a_clip_is_taken_back() -> None:
    measured = {}
    for matched in (False, True):
        frames, starts = clip(matched)
        measured[matched] = measure_colour_drift(frames, starts, frames[0]).maximum
    assert measured[False] > 10
    assert measured[True] < 2, "CIELAB: 2 is just visible side by side"


def test_a_resumed_clip_is_the_same() -> None:
    class Store(dict):
        def load(self, index):
            return self.get(index)

        def save(self, index, frames):
            self[index] = frames.copy()

    store = Store()
    whole, _ = clip(True, store)
    for index in list(store)[2:]:
        del store[index]
    assert np.array_equal(clip(True, store)[0], whole)
