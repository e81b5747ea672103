"""Every clip is covered, by chunks the network can make, each going on from frames that exist."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.errors import InputError
from libs.one_to_all.sampling.chunk_plan import (
    DEFAULT_CHUNK_LENGTHS,
    PREVIOUS_FRAMES,
    SMALLER_CHUNK_LENGTHS,
    ChunkLengths,
    plan_chunks,
)


@st.composite
def chunk_lengths(draw):
    final = sorted(draw(st.sets(st.integers(2, 25), min_size=1, max_size=5)))
    main = final[-1] + draw(st.integers(0, 1)) * draw(st.integers(0, 3))
    overlap = draw(st.integers(PREVIOUS_FRAMES, 4 * main)) if main > 1 else PREVIOUS_FRAMES
    # with the main length among the final ones every clip has a plan
    return ChunkLengths(4 * main + 1, overlap, tuple(4 * k + 1 for k in sorted({*final, main})))


@given(st.integers(1, 2000), st.one_of(st.just(ChunkLengths()), chunk_lengths()))
def test_chunks_cover_the_clip_and_overlap_by_what_they_continue_from(frame_count, lengths):
    chunks = plan_chunks(frame_count, lengths)
    assert chunks[0].start == 0
    assert [chunk.index for chunk in chunks] == list(range(len(chunks)))
    assert all(chunk.frame_count % 4 == 1 and chunk.frame_count <= lengths.main for chunk in chunks)
    if frame_count < lengths.main:
        assert len(chunks) == 1
        assert frame_count <= chunks[0].end < frame_count + 4
        return
    assert chunks[-1].end == frame_count
    for before, after in pairwise(chunks):
        assert before.start <= after.start
        assert before.end <= after.end
        assert after.start + PREVIOUS_FRAMES <= before.end


@given(st.integers(81, 2000))
def test_the_last_chunk_of_the_reference_lengths_always_goes_forward(frame_count):
    *_, before, last = plan_chunks(frame_count)
    assert before.start < last.start


@pytest.mark.parametrize("frame_count", range(1, 81))
def test_short_clips_are_one_chunk_of_the_smallest_length(frame_count):
    (chunk,) = plan_chunks(frame_count)
    assert chunk.start == 0
    assert chunk.frame_count == min(n for n in range(1, 82, 4) if n >= frame_count)


@pytest.mark.parametrize(
    ("frame_count", "chunks"),
    [
        (80, [(0, 81)]),
        (81, [(0, 81), (16, 81)]),
        (156, [(0, 81), (75, 156)]),
        (157, [(0, 81), (76, 157)]),
        (158, [(0, 81), (76, 157), (93, 158)]),
    ],
)
def test_the_plan_changes_exactly_where_a_regular_chunk_fits(frame_count, chunks):
    assert [(chunk.start, chunk.end) for chunk in plan_chunks(frame_count)] == chunks


def test_smaller_lengths_make_smaller_chunks():
    lengths = ChunkLengths(main=33, overlap=5, final=(17, 21, 25, 29, 33))
    assert [(chunk.start, chunk.end) for chunk in plan_chunks(100, lengths)] == [(0, 33), (28, 61), (56, 89), (83, 100)]


@given(st.integers(1, 2000))
def test_smaller_chunks_continue_from_their_predecessor(frame_count):
    chunks = plan_chunks(frame_count, SMALLER_CHUNK_LENGTHS)
    assert max(chunk.frame_count for chunk in chunks) <= 33
    assert all(before.end - after.start >= PREVIOUS_FRAMES for before, after in pairwise(chunks))


def test_with_an_overlap_of_three_no_chunk_continues_another():
    first, second, *_ = plan_chunks(120, ChunkLengths(33, 3, SMALLER_CHUNK_LENGTHS.final))
    assert first.end - second.start < PREVIOUS_FRAMES


def test_names_of_chunk_lengths_are_unique():
    assert DEFAULT_CHUNK_LENGTHS.name == "81-5-65.69.73.77.81"
    others = [SMALLER_CHUNK_LENGTHS, ChunkLengths(33, 9, SMALLER_CHUNK_LENGTHS.final), ChunkLengths(33, 5, (33,))]
    assert len({lengths.name for lengths in (DEFAULT_CHUNK_LENGTHS, *others)}) == 4


@pytest.mark.parametrize("overlap", [0, 3])
def test_an_overlap_too_small_to_continue_from_still_gives_a_plan(overlap):
    chunks = plan_chunks(100, ChunkLengths(33, overlap, (17, 21, 25, 29, 33)))
    assert chunks[-1].end == 100


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((80, 5, (65,)), "main=80"),
        ((81, 5, (66,)), "final=66"),
        ((81, 5, ()), "ascending"),
        ((81, 5, (69, 65)), "ascending"),
        ((33, 5, (65,)), "none above the main length 33"),
        ((33, 5, (29, 37)), "none above the main length 33"),
        ((33, 5, (-3, 33)), "final=-3"),
        ((33, 33, (33,)), "overlap 33"),
        ((33, -1, (33,)), "overlap -1"),
    ],
)
def test_impossible_lengths_are_refused_by_name(arguments, message):
    with pytest.raises(InputError, match=message):
        ChunkLengths(*arguments)


def test_a_clip_that_no_final_length_fits_is_refused():
    lengths = ChunkLengths(17, 5, (13,))
    refused = [count for count in range(17, 60) if not _plannable(count, lengths)]
    assert refused  # without 17 among the final lengths some clips have no plan
    with pytest.raises(InputError, match=f"{refused[0]} frames: add 17"):
        plan_chunks(refused[0], lengths)


def _plannable(frame_count, lengths):
    try:
        plan_chunks(frame_count, lengths)
    except InputError:
        return False
    return True


def test_a_clip_without_frames_is_refused():
    with pytest.raises(InputError, match="0 frames"):
        plan_chunks(0)
