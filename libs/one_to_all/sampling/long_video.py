"""A clip of any length: chunk after chunk, each of which continues from the frames of its predecessor.

Chunks are made by a callable (``libs.one_to_all.engine`` has it) or taken from a store, and each final frame is handed
out once. See ``chunk_plan`` for where chunks begin and end.

Source: docs/specification.md#long-video: a later chunk overwrites all frames it shares with earlier ones. So a
frame is final as soon as no later chunk covers it. One chunk is in memory, and its predecessor while it is stored.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

from libs.errors import InputError
from libs.one_to_all.events import (
    AnimationEvent,
    AnimationInputs,
    ChunkStarted,
    ChunkStore,
    FramesReady,
    StepFinished,
    check_pixels,
)
from libs.one_to_all.sampling.chunk_plan import PREVIOUS_FRAMES, Chunk
from libs.one_to_all.sampling.colour_match import ColourStatistics, match_colours
from libs.worker_thread import WorkerThread

MakeChunk = Callable[[Chunk, np.ndarray | None], Iterator[StepFinished | np.ndarray]]
"""Chunk and previous frames (uint8 [5, H, W, 3] or None) -> steps, and at last the frames uint8 [n, H, W, 3]."""


def animate_chunks(
    inputs: AnimationInputs,
    plan: Sequence[Chunk],
    make_chunk: MakeChunk,
    store: ChunkStore | None = None,
    *,
    colours_matched: bool = False,
) -> Iterator[AnimationEvent]:
    """Make all chunks of ``plan``, yielding events; frames are handed out as soon as they are final.

    A chunk found in ``store`` is not made again. Either way the next chunk continues from the uint8 frames as they are
    stored, so a resumed clip equals an uninterrupted one bit for bit. A chunk is stored during the first step of the
    next chunk, and before that step is reported.

    With ``colours_matched`` the colours of later chunks are brought to those of the first before they are stored,
    handed out and continued from.
    """
    with WorkerThread("chunks") as saving:
        yield from _chunks(inputs, plan, make_chunk, store, saving, colours_matched)


def _chunks(
    inputs: AnimationInputs,
    plan: Sequence[Chunk],
    make_chunk: MakeChunk,
    store: ChunkStore | None,
    saving: WorkerThread,
    colours_matched: bool,
) -> Iterator[AnimationEvent]:
    current = np.empty((0, inputs.height, inputs.width, 3), np.uint8)
    current_start = 0
    colours: ColourStatistics | None = None
    for chunk in plan:
        offset = chunk.start - current_start
        previous = current[offset : offset + PREVIOUS_FRAMES]
        stored = None if store is None else store.load(chunk.index)
        yield ChunkStarted(
            index=chunk.index,
            count=len(plan),
            start=chunk.start,
            end=min(chunk.end, inputs.frame_count),
            resumed=stored is not None,
        )
        if stored is not None:
            current = _checked_frames(stored, chunk, inputs)
        else:
            for result in make_chunk(chunk, previous if len(previous) == PREVIOUS_FRAMES else None):
                if isinstance(result, StepFinished):
                    saving.wait()
                    yield result
                else:
                    current = result if colours is None else match_colours(result, colours)
            if store is not None:
                saving.call(store.save, chunk.index, current)
        current_start = chunk.start
        if colours_matched and colours is None:
            colours = ColourStatistics.of(current)  # of the first chunk, made or resumed

        following = plan[chunk.index + 1].start if chunk.index + 1 < len(plan) else inputs.frame_count
        if following > chunk.start:
            yield FramesReady(chunk.start, current[: following - chunk.start])


def chunk_poses(inputs: AnimationInputs, chunk: Chunk) -> np.ndarray:
    """Driving poses of a chunk, uint8 [n, H, W, 3]; beyond the end of the clip its last pose is repeated."""
    stop = min(chunk.end, inputs.frame_count)
    poses = inputs.poses(chunk.start, stop)
    check_pixels(f"poses({chunk.start}, {stop})", poses, (stop - chunk.start, inputs.height, inputs.width, 3))
    if stop < chunk.end:
        poses = np.concatenate((poses, np.repeat(poses[-1:], chunk.end - stop, axis=0)))
    return poses


def _checked_frames(frames: np.ndarray, chunk: Chunk, inputs: AnimationInputs) -> np.ndarray:
    shape = (chunk.frame_count, inputs.height, inputs.width, 3)
    if frames.dtype != np.uint8 or frames.shape != shape:
        raise InputError(
            f"stored chunk {chunk.index} is {frames.dtype} {list(frames.shape)}, this clip needs uint8 {list(shape)}: "
            "it belongs to another request; remove the stored chunks"
        )
    return frames
