"""Samples a clip from its conditioning and writes the mp4 at the same time.

Memory is bounded by one chunk for any clip length: poses are drawn per chunk, finished frames are encoded and
dropped.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from libs.media.video.writer import Frame, VideoWriter
from libs.one_to_all.engine import Engine
from libs.one_to_all.events import AnimationInputs, ChunkStarted, ChunkStore, FramesReady, StepFinished
from libs.one_to_all.options import SamplingOptions
from libs.one_to_all.sampling.approximation import QUALITIES
from libs.one_to_all.sampling.chunk_plan import DEFAULT_CHUNK_LENGTHS, ChunkLengths
from libs.pose.conditioning import PoseConditioning
from libs.requests.documents.animation_request import ResolvedRequest
from libs.stages.animation_files import CLIP_FILE
from libs.stages.clip.clip_progress import ENCODING
from libs.stages.request.request_media import RequestMedia
from libs.worker_thread import WorkerThread

ProgressCallback = Callable[[int, int, str], None]
ClipTags = Callable[[SamplingOptions], Mapping[str, str]]
"""The tags of a clip sampled with these options, e.g. what made it; equal for equal work, so that the file is, too."""


@dataclass(frozen=True)
class ClipInputs:
    """What a clip is sampled from.

    Attributes:
        request: prompt, steps, guidance, seed, whether to keep the sound.
        media: rate and frame count of the clip, and the driver for its sound.
        conditioning: picture, mask and poses at the clip's size.
    """

    request: ResolvedRequest
    media: RequestMedia
    conditioning: PoseConditioning

    def for_engine(self) -> AnimationInputs:
        """The pictures, as the engine takes them."""
        return AnimationInputs(
            image=self.conditioning.image,
            mask=self.conditioning.mask,
            reference_pose=self.conditioning.reference_pose,
            frame_count=self.media.used_frame_count,
            poses=self.conditioning.draw,
        )


def no_tags(_: SamplingOptions) -> Mapping[str, str]:
    """A clip without provenance."""
    return {}


@dataclass(frozen=True)
class ClipSummary:
    """What was made: pixels, frames, exact rate as text, and how the work was divided. Times in seconds.

    ``chunk_starts`` are the frames from which on each chunk is the one that shows.
    ``out_of_memory`` is what the device said when larger chunks did not fit, None when they did (``memory_retry``).
    """

    width: int
    height: int
    frame_count: int
    frame_rate: str
    chunks: int
    chunks_resumed: int
    chunk_length: int
    chunk_overlap: int
    chunk_starts: tuple[int, ...]
    sampling_seconds: float
    out_of_memory: str | None = None

    def describe(self) -> dict[str, Any]:
        """The summary as values that JSON can hold."""
        return {**asdict(self), "chunk_starts": list(self.chunk_starts)}


def animate_request(
    inputs: ClipInputs,
    engine: Engine,
    folder: Path,
    chunks: ChunkStore | None,
    on_step: ProgressCallback,
    chunk_lengths: ChunkLengths = DEFAULT_CHUNK_LENGTHS,
    tags: ClipTags = no_tags,
) -> ClipSummary:
    """Sample the clip and write ``clip.mp4`` into ``folder``; the file appears when it is whole.

    Args:
        inputs: request, media and conditioning.
        engine: the loaded networks.
        folder: an existing folder.
        chunks: where finished chunks survive a killed process; None to keep none.
        on_step: called with (steps done, steps in all, a phrase).
        chunk_lengths: how the clip is divided; ``chunks`` must belong to the same lengths.
        tags: what the mp4 says of itself.

    Raises:
        DeviceOutOfMemoryError: a chunk does not fit; no file is left.
    """
    started = time.monotonic()
    request, media = inputs.request, inputs.media
    height, width = inputs.conditioning.image.shape[:2]
    step_count = chunk_count = resumed = 0
    chunk_starts: list[int] = []
    options = sampling_options(request, chunk_lengths)
    audio = media.driver if request.keep_audio and media.has_audio else None
    with (
        VideoWriter(
            folder / CLIP_FILE,
            width,
            height,
            media.output_frame_rate,
            audio_from=audio,
            audio_offset=media.start_seconds,
            metadata=tags(options),
        ) as writer,
        WorkerThread("encoder") as encoding,  # while the next chunk is sampled
        closing(engine.animate(inputs.for_engine(), options, chunks)) as events,
    ):
        for event in events:
            match event:
                case ChunkStarted():
                    chunk_count = event.count
                    chunk_starts.append(event.start)
                    resumed += event.resumed
                    if event.resumed:
                        step_count += request.steps
                    phrase = f"chunk {event.index + 1} of {event.count}{', resumed' if event.resumed else ''}"
                    on_step(step_count, chunk_count * request.steps, phrase)
                case StepFinished():
                    step_count += 1
                    on_step(step_count, chunk_count * request.steps, f"chunk {event.chunk_index + 1} of {chunk_count}")
                case FramesReady():
                    encoding.call(_write, writer, event.frames)
        on_step(step_count, chunk_count * request.steps, ENCODING)
    return ClipSummary(
        width=width,
        height=height,
        frame_count=writer.frame_count,
        frame_rate=str(media.output_frame_rate),
        chunks=chunk_count,
        chunks_resumed=resumed,
        chunk_length=chunk_lengths.main,
        chunk_overlap=chunk_lengths.overlap,
        chunk_starts=tuple(chunk_starts),
        sampling_seconds=time.monotonic() - started,
    )


def sampling_options(request: ResolvedRequest, chunk_lengths: ChunkLengths) -> SamplingOptions:
    """The part of a request that the sampler understands, with the lengths of the chunks."""
    return SamplingOptions(
        prompt=request.prompt,
        negative_prompt=request.negative_prompt,
        num_inference_steps=request.steps,
        image_guidance_scale=request.image_guidance,
        pose_guidance_scale=request.pose_guidance,
        seed=request.seed,
        chunk_lengths=chunk_lengths,
        approximation=QUALITIES[request.quality],
        shift=request.shift,
        schedule=tuple(request.schedule) if isinstance(request.schedule, list) else request.schedule,
        sampler=request.sampler,
        pose_guidance_alone=request.pose_guidance_alone,
        match_colours=request.match_colours,
    )


def _write(writer: VideoWriter, frames: Frame) -> None:
    for frame in frames:
        writer.write(frame)
