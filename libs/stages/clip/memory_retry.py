"""One clip, and once more with more room when the device's memory did not suffice. Never a third time.

See ``orchestration.crashes`` for runs that are made again.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from libs.errors import DeviceOutOfMemoryError
from libs.one_to_all.engine import Engine
from libs.one_to_all.engine_cache import ENGINES
from libs.one_to_all.events import ChunkStore
from libs.one_to_all.memory import ClipSize
from libs.one_to_all.sampling.approximation import QUALITIES
from libs.one_to_all.sampling.chunk_plan import DEFAULT_CHUNK_LENGTHS, SMALLER_CHUNK_LENGTHS, ChunkLengths, plan_chunks
from libs.stages.clip.sampling import ClipInputs, ClipSummary, ClipTags, ProgressCallback, animate_request, no_tags
from libs.stages.request.request_media import RequestMedia

ChunkStores = Callable[[ChunkLengths], ChunkStore | None]
"""The store for a clip divided by these lengths; chunks of other lengths must not be found there."""


def animate_within_memory(
    inputs: ClipInputs,
    engine: Engine,
    folder: Path,
    chunk_stores: ChunkStores,
    on_step: ProgressCallback,
    tags: ClipTags = no_tags,
) -> ClipSummary:
    """:func:`animate_request`, in chunks of 81 frames; when those did not fit, once more in chunks of 33.

    Other models that this process keeps loaded on the device are dropped before the second attempt. A clip whose only
    chunk is no longer than 33 frames has a second attempt only if one was.

    Returns:
        The summary; ``out_of_memory`` says what happened when a second attempt was needed.

    Raises:
        DeviceOutOfMemoryError: the second attempt failed, too, or there is nothing to gain from one.
    """

    def attempt(lengths: ChunkLengths) -> ClipSummary:
        chunks = chunk_stores(lengths)
        return animate_request(inputs, engine, folder, chunks, on_step, lengths, tags)

    try:
        return attempt(DEFAULT_CHUNK_LENGTHS)
    except DeviceOutOfMemoryError as error:
        reason = str(error)
    # Out of the handler: the exception, whose traceback held the tensors of that attempt, is gone.
    dropped = ENGINES.evict_others(engine)
    engine.release_memory()
    media = inputs.media
    divisible = _longest_chunk(media, SMALLER_CHUNK_LENGTHS) < _longest_chunk(media, DEFAULT_CHUNK_LENGTHS)
    if not divisible and not dropped:
        raise _does_not_fit(engine, f"({reason})")
    lengths = SMALLER_CHUNK_LENGTHS if divisible else DEFAULT_CHUNK_LENGTHS
    on_step(0, 1, _second_attempt(lengths, dropped))
    try:
        return replace(attempt(lengths), out_of_memory=reason)
    except DeviceOutOfMemoryError as error:
        tried = f"in chunks of {DEFAULT_CHUNK_LENGTHS.main} frames, nor of {lengths.main} " if divisible else ""
        raise _does_not_fit(engine, f"{tried}({error})") from error


def clip_size(inputs: ClipInputs) -> ClipSize:
    """What the memory of the first attempt depends on."""
    height, width = inputs.conditioning.image.shape[:2]
    cached = QUALITIES[inputs.request.quality].block_cache_threshold is not None
    return ClipSize(height, width, _longest_chunk(inputs.media, DEFAULT_CHUNK_LENGTHS), block_cache=cached)


def _second_attempt(lengths: ChunkLengths, dropped: list[str]) -> str:
    phrase = f"out of memory: once more in chunks of at most {lengths.main} frames"
    return f"{phrase}, without the model {', '.join(dropped)} beside it" if dropped else phrase


def _longest_chunk(media: RequestMedia, lengths: ChunkLengths) -> int:
    return max(chunk.frame_count for chunk in plan_chunks(media.used_frame_count, lengths))


def _does_not_fit(engine: Engine, how: str) -> DeviceOutOfMemoryError:
    return DeviceOutOfMemoryError(
        f"the clip does not fit into the memory of {engine.device} {how}: ask for a smaller size or a smaller model "
        "variant in the request, or run it on a device with more memory"
    )
