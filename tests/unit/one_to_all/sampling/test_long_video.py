"""Joining chunks: every frame once, in order, overwritten as planned; stored chunks are not made again."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.errors import InputError
from libs.one_to_all.events import AnimationInputs, ChunkStarted, FramesReady, StepFinished
from libs.one_to_all.sampling.chunk_plan import ChunkLengths, plan_chunks
from libs.one_to_all.sampling.long_video import animate_chunks, chunk_poses
from libs.storage.backends.folder import FolderObjectStore
from libs.storage.chunks import StoredChunks

SIZE = 16


def _inputs(frame_count, poses=None):
    picture = np.zeros((SIZE, SIZE, 3), np.uint8)
    drawn = lambda start, stop: np.stack([np.full((SIZE, SIZE, 3), n % 256, np.uint8) for n in range(start, stop)])  # noqa: E731
    return AnimationInputs(picture, picture[..., 0], picture, frame_count, poses or drawn)


def _maker(made, previous_frames=None):
    """A chunk's frames say which chunk made them (red) and which frame they are (green, blue)."""

    def make(chunk, previous):
        made.append(chunk.index)
        if previous_frames is not None:
            previous_frames.append(None if previous is None else previous[:, 0, 0].tolist())
        yield StepFinished(chunk.index, 1, 1)
        frames = np.zeros((chunk.frame_count, SIZE, SIZE, 3), np.uint8)
        numbers = np.arange(chunk.start, chunk.end)
        frames[..., 0] = chunk.index
        frames[..., 1] = (numbers // 256)[:, None, None]
        frames[..., 2] = (numbers % 256)[:, None, None]
        yield frames

    return make


def _store(folder):
    return StoredChunks(FolderObjectStore(folder), "chunks")


def _joined(plan, frame_count):
    """The specification, literally: every chunk overwrites what earlier ones made."""
    clip = np.full((frame_count, 3), -1)
    for chunk in plan:
        for frame in range(chunk.start, min(chunk.end, frame_count)):
            clip[frame] = chunk.index, frame // 256, frame % 256
    return clip


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1, 400),
    st.sampled_from([ChunkLengths(), ChunkLengths(33, 5, (17, 21, 25, 29, 33)), ChunkLengths(17, 9, (13, 17))]),
)
def test_every_frame_comes_once_and_from_the_right_chunk(frame_count, lengths):
    plan = plan_chunks(frame_count, lengths)
    made, previous = [], []
    events = list(animate_chunks(_inputs(frame_count), plan, _maker(made, previous)))
    assert made == [chunk.index for chunk in plan]
    told = [(event.start, event.end, event.count) for event in events if isinstance(event, ChunkStarted)]
    assert told == [(chunk.start, min(chunk.end, frame_count), len(plan)) for chunk in plan]
    position, frames = 0, []
    for event in events:
        if isinstance(event, FramesReady):
            assert event.start == position
            position += len(event.frames)
            frames.append(event.frames[:, 0, 0])
    assert position == frame_count
    assert np.array_equal(np.concatenate(frames), _joined(plan, frame_count))
    # later chunks are handed the five frames at their start, as their predecessor made them
    assert previous[0] is None
    for chunk, given_frames in zip(plan[1:], previous[1:], strict=True):
        numbers = range(chunk.start, chunk.start + 5)
        assert given_frames == [[chunk.index - 1, number // 256, number % 256] for number in numbers]


def test_chunks_without_common_frames_are_made_independently():
    previous = []
    list(animate_chunks(_inputs(120), plan_chunks(120, ChunkLengths(33, 3, (33,))), _maker([], previous)))
    assert previous[:3] == [None, None, None]


def test_short_clips_repeat_the_last_pose():
    (chunk,) = plan_chunks(6)
    assert chunk_poses(_inputs(6), chunk)[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5, 5, 5, 5]


def test_poses_of_the_wrong_shape_are_named():
    (chunk,) = plan_chunks(5)
    with pytest.raises(InputError, match=r"poses\(0, 5\)"):
        chunk_poses(_inputs(5, poses=lambda start, stop: np.zeros((1, SIZE, SIZE, 3), np.uint8)), chunk)


def test_a_killed_run_resumes_at_its_chunk(tmp_path):
    plan = plan_chunks(200)
    whole = [event for event in animate_chunks(_inputs(200), plan, _maker([])) if isinstance(event, FramesReady)]

    store, made = _store(tmp_path), []
    run = animate_chunks(_inputs(200), plan, _maker(made), store)
    for event in run:
        if isinstance(event, StepFinished) and event.chunk_index == 1:
            run.close()
            break
    assert made == [0, 1]

    made.clear()
    events = list(animate_chunks(_inputs(200), plan, _maker(made), _store(tmp_path)))
    assert made == [1, 2]
    assert [event.resumed for event in events if isinstance(event, ChunkStarted)] == [True, False, False]
    frames = [event.frames for event in events if isinstance(event, FramesReady)]
    assert np.array_equal(np.concatenate(frames), np.concatenate([event.frames for event in whole]))


def test_a_cancel_keeps_the_chunk_that_is_just_finished(tmp_path):
    """Also before the next chunk's first step, while it may still be on its way to the store."""
    made = []
    run = animate_chunks(_inputs(200), plan_chunks(200), _maker(made), _store(tmp_path))
    for event in run:
        if isinstance(event, FramesReady):
            run.close()
            break
    assert made == [0]
    assert _store(tmp_path).load(0) is not None


def test_chunks_of_another_clip_are_refused(tmp_path):
    store = _store(tmp_path)
    store.save(0, np.zeros((81, 32, 32, 3), np.uint8))
    with pytest.raises(InputError, match="another request"):
        list(animate_chunks(_inputs(100), plan_chunks(100), _maker([]), store))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("image", np.zeros((16, 20, 3), np.uint8), "20x16 pixels"),
        ("image", np.zeros((16, 16), np.uint8), "height, width, 3"),
        ("image", np.zeros((16, 16, 3), np.float32), "float32"),
        ("mask", np.zeros((16, 16, 3), np.uint8), "mask"),
        ("reference_pose", np.zeros((32, 16, 3), np.uint8), "reference_pose"),
        ("frame_count", 0, "frame_count=0"),
    ],
)
def test_wrong_inputs_are_named(field, value, message):
    fields = {
        "image": np.zeros((16, 16, 3), np.uint8),
        "mask": np.zeros((16, 16), np.uint8),
        "reference_pose": np.zeros((16, 16, 3), np.uint8),
        "frame_count": 1,
    }
    with pytest.raises(InputError, match=message):
        AnimationInputs(**{**fields, field: value}, poses=lambda start, stop: None)


def test_a_chunk_is_stored_before_the_next_one_reports_a_step() -> None:
    class SlowStore:
        saved: list[int] = []  # noqa: RUF012

        def load(self, index):
            return None

        def save(self, index, frames):
            time.sleep(0.05)
            self.saved.append(index)

    def steps_and_frames(chunk, _previous):
        yield StepFinished(chunk.index, 1, 1)
        yield np.zeros((chunk.frame_count, SIZE, SIZE, 3), np.uint8)

    told = []
    for event in animate_chunks(_inputs(200), plan_chunks(200, ChunkLengths()), steps_and_frames, SlowStore()):
        if isinstance(event, StepFinished):
            assert event.chunk_index - 1 in [-1, *SlowStore.saved]
            told.append(event.chunk_index)
    assert told == SlowStore.saved == list(range(len(told)))


def test_an_error_of_the_chunk_store_ends_the_clip() -> None:
    class FullStore:
        def load(self, index):
            return None

        def save(self, index, frames):
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        list(animate_chunks(_inputs(200), plan_chunks(200, ChunkLengths()), _maker([]), FullStore()))
