"""Open a video file, find out how its frames lie in time, and decode them: what probe and reader share.

Both count on the same generator, so the number of frames a probe reports is the number a reader yields. See ``reader``
for RGB and orientation, ``probe`` for what people want to know about a file.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av

from libs.errors import MediaError
from libs.media.file_kind import kind_of_file
from libs.media.limits import (
    MAXIMUM_DURATION,
    MAXIMUM_FRAME_COUNT,
    MAXIMUM_FRAME_PIXELS,
    MAXIMUM_FRAME_RATE,
    MINIMUM_FRAME_RATE,
    check_size,
)
from libs.media.video.deinterlace import deinterlaced
from libs.media.video.frame_timing import (
    FrameTiming,
    declared_rate,
    grid_length,
    on_constant_grid,
    plan_frame_timing,
)
from libs.media.video.matroska import declared_file_size
from libs.media.video.streams import choose_film, film_candidates

# Only what holds a video itself. Play lists (HLS, concat) would read other files and addresses on behalf of whoever
# sent the file.
_CONTAINERS = "mov,matroska,avi,mpegts,mpeg,flv,gif,asf,ogg,mpegvideo,h264,hevc,apng"
_OPEN_OPTIONS = {"format_whitelist": _CONTAINERS, "protocol_whitelist": "file"}

_MISSING_END_TOLERANCE = Fraction(1, 2)
"""Seconds that a container's declared length may exceed its last packet before it counts as cut off."""

_LARGEST_STEP_BACK = Fraction(1, 2)
"""Seconds; frames of a decoder come in order, but for the jitter of broken clocks."""

_COMPUTED_LENGTH = frozenset({"mpegts", "mpeg"})
"""Containers that declare no length: FFmpeg computes one from the packets that are there."""


def open_container(path: Path) -> av.container.InputContainer:
    """Open ``path`` for reading; close it (``with``) after use.

    Raises:
        MediaError: the file is missing, empty, no media file, or cut off so early that its index is missing.
    """
    if not path.is_file():
        raise MediaError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise MediaError(f"{path}: the file is empty; copy it again")
    try:
        return av.open(path, mode="r", options=dict(_OPEN_OPTIONS))
    except (av.FFmpegError, UnicodeDecodeError) as error:
        if _is_webp(path):
            raise MediaError(
                f"{path}: a WebP picture, which cannot be read as a video even where it moves; convert it to mp4 or "
                "GIF first"
            ) from error
        kind = kind_of_file(path)
        if kind and not kind.startswith(("a video", "an Ogg")):
            raise MediaError(
                f"{path}: not a readable video: it is {kind}; expected a complete mp4, mov, mkv, webm or avi file"
            ) from error
        raise MediaError(
            f"{path}: not a readable video, or cut off before its index ({_reason(error)}); expected a complete "
            "mp4, mov, mkv, webm or avi file"
        ) from error


def _is_webp(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(12)[8:] == b"WEBP"


@contextmanager
def open_video(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """The container and the video stream that is the film (``streams.choose_film``), decoding with several threads.

    Raises:
        MediaError: as :func:`open_container`, or there is no video stream, no decoder for it, or its size is absurd.
    """
    with open_container(path) as container:
        candidates = film_candidates(container)
        if not candidates:
            raise MediaError(f"{path}: holds no video stream")
        stream = candidates[0] if len(candidates) == 1 else choose_film(candidates, _frame_counts(path, candidates))
        if stream.codec_context is None:
            raise MediaError(f"{path}: no decoder for its video; convert it to H.264 first")
        check_size(f"{path}: the video", stream.width, stream.height, MAXIMUM_FRAME_PIXELS)
        stream.thread_type = "AUTO"
        yield container, stream


def _frame_counts(path: Path, candidates: list[av.VideoStream]) -> dict[int, int]:
    """Frames of each stream, as far as the file's index says or until each has two: index of the stream -> frames."""
    counts = {stream.index: stream.frames for stream in candidates}
    unknown = {index for index, count in counts.items() if count == 0}
    if not unknown:
        return counts
    with open_container(path) as container:
        for packet in packets_of(path, container):
            if packet.stream_index in unknown and packet.size:
                counts[packet.stream_index] += 1
                if counts[packet.stream_index] > 1:
                    unknown.discard(packet.stream_index)
            if not unknown:
                break
    return counts


def packets_of(path: Path, container: av.container.InputContainer) -> Iterator[av.Packet]:
    """All packets of all streams, in the order of the file.

    Raises:
        MediaError: the file is cut off or damaged, or a stream begins that was not there when it was opened.
    """
    try:
        yield from container.demux()
    except av.FFmpegError as error:
        raise _cut_off(path, _reason(error)) from error
    except IndexError as error:  # PyAV knows the streams of the beginning only
        raise MediaError(
            f"{path}: a further stream begins in the middle of it, as in recordings put one behind the other; convert "
            "it to mp4 first, or use one part"
        ) from error


def scan_video(path: Path) -> FrameTiming:
    """Read all packets (fast: nothing is decoded), plan the frame timing and detect a cut-off file.

    Raises:
        MediaError: as :func:`open_video`, or no frames, too many frames, or the file ends before its index says.
    """
    with open_video(path) as (container, stream):
        file_size = path.stat().st_size
        indexed_end = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
        if indexed_end > file_size:
            raise _cut_off(path, f"its index reaches to byte {indexed_end}, the file has {file_size}")
        if (declared_file_size(path) or 0) > file_size:
            raise _cut_off(path, f"it declares {declared_file_size(path)} bytes and has {file_size}")
        declared_end = _declared_end(container, stream)
        last_end = Fraction(0)
        times: list[Fraction | None] = []
        durations: list[Fraction] = []
        for packet in packets_of(path, container):
            if packet.size == 0 or packet.time_base is None:
                continue
            time = packet.pts if packet.pts is not None else packet.dts
            duration = packet.duration or 0
            if time is not None:
                last_end = max(last_end, (time + duration) * packet.time_base)
            if packet.stream_index != stream.index or packet.is_discard:
                continue
            if packet.is_corrupt:
                raise _cut_off(path, f"the data of frame {len(times)} is incomplete")
            times.append(None if packet.pts is None else packet.pts * packet.time_base)
            durations.append(duration * packet.time_base)
            if len(times) > MAXIMUM_FRAME_COUNT:
                raise MediaError(f"{path}: more than {MAXIMUM_FRAME_COUNT} frames; cut it into shorter videos")
        if not times:
            raise MediaError(f"{path}: the video has no frames")
        if declared_end - last_end > _MISSING_END_TOLERANCE:
            raise _cut_off(path, f"it declares {float(declared_end):.2f} s and ends after {float(last_end):.2f} s")
        timing = _plan(stream, times, durations)
        shown = _checked_length(path, timing, sorted(time for time in times if time is not None), len(times))
        return replace(timing, stored_count=len(times), shown_count=shown)


def _checked_length(path: Path, timing: FrameTiming, times: list[Fraction], count: int) -> int:
    """The number of frames that will be shown; refuses rates and lengths that only broken time stamps have.

    ``times`` ascending, those that are known; ``count`` of the stored frames.
    """
    shown = grid_length(timing, times) if timing.variable else count
    if shown > MAXIMUM_FRAME_COUNT:
        raise MediaError(
            f"{path}: its frames are spread over {float(shown / timing.frame_rate):.0f} s, more than "
            f"{MAXIMUM_FRAME_COUNT} frames at {timing.frame_rate} a second: cut out the part that moves"
        )
    way_out = "convert it to an mp4 of 24 to 60 frames a second first"
    if 2 * shown < count:
        raise MediaError(
            f"{path}: {count} frames in {float(times[-1] - times[0]):.3g} s, of which only {shown} would be shown at "
            f"{timing.frame_rate} a second (at most {MAXIMUM_FRAME_RATE} are accepted): its time stamps are broken, or "
            f"it is a slow motion; {way_out}"
        )
    if timing.frame_rate < MINIMUM_FRAME_RATE:
        raise MediaError(
            f"{path}: shows a frame every {float(1 / timing.frame_rate):.0f} s, at least one every "
            f"{float(1 / MINIMUM_FRAME_RATE):.0f} s is expected: its time stamps are broken; {way_out}"
        )
    if shown / timing.frame_rate > MAXIMUM_DURATION:
        raise MediaError(
            f"{path}: lasts {float(shown / timing.frame_rate / 3600):.0f} hours, at most "
            f"{MAXIMUM_DURATION / 3600} are accepted: cut out the part that moves"
        )
    return shown


def decode_frames(path: Path, timing: FrameTiming, *, as_stored: bool = False) -> Iterator[tuple[av.VideoFrame, bool]]:
    """Decode a video onto its constant grid: frames in order, each with whether it repeats the one before.

    A video of constant rate gives every decoded frame once. Interlaced frames are made progressive, unless they are
    wanted ``as_stored``; their number and times are the same. Memory: a few frames.

    Raises:
        MediaError: a frame cannot be decoded or is damaged, or there is not a single one.
    """
    frames = _decode(path) if as_stored else deinterlaced(_decode(path))
    if timing.variable:
        yield from on_constant_grid(timing, _timed(path, timing.start, frames))
    else:
        yield from ((frame, False) for frame in frames)


def _timed(path: Path, start: Fraction, frames: Iterator[av.VideoFrame]) -> Iterator[tuple[Fraction, av.VideoFrame]]:
    """Frames with their times; an error where the clock starts again, because those frames would be lost."""
    latest = start
    for index, frame in enumerate(frames):
        time = latest if frame.pts is None else frame.pts * frame.time_base
        if latest - time > _LARGEST_STEP_BACK:
            raise MediaError(
                f"{path}: its clock goes back from {float(latest):.2f} s to {float(time):.2f} s at frame {index}, as "
                "in recordings put one behind the other; convert it to mp4 first, or use one part"
            )
        latest = max(latest, time)
        yield time, frame


def _decode(path: Path) -> Iterator[av.VideoFrame]:
    with open_video(path) as (container, stream):
        count = 0
        try:
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    raise MediaError(f"{path}: frame {count} is damaged; copy the file again or re-encode it")
                yield frame
                count += 1
        except av.FFmpegError as error:
            raise MediaError(
                f"{path}: cannot be decoded after frame {count} ({_reason(error)}); the file is damaged or cut off: "
                "copy it again or re-encode it"
            ) from error
        if count == 0:
            raise MediaError(f"{path}: the video has no frames that can be decoded")


def _declared_end(container: av.container.InputContainer, stream: av.VideoStream) -> Fraction:
    """Time in seconds at which the file says it ends, in the packets' own time; 0 where it does not say."""
    if container.format.name == "avi" and stream.duration:
        # Sound that begins later counts in the container's length, but AVI stores no time: its packets begin at 0.
        return Fraction(stream.duration * stream.time_base)
    if not container.duration or container.format.name in _COMPUTED_LENGTH:
        return Fraction(0)
    declared = Fraction(container.duration, av.time_base)
    if "matroska" in container.format.name:
        # Counted from 0 by some programs, from the first packet by others: taken for what claims less.
        return declared
    return declared + max(Fraction(container.start_time or 0, av.time_base), Fraction(0))


def _plan(stream: av.VideoStream, times: list[Fraction | None], durations: list[Fraction]) -> FrameTiming:
    """Timing from packet times, given in decoding order; without times (raw streams) the declared rate counts."""
    known = [time for time in times if time is not None]
    rates = [stream.average_rate, stream.guessed_rate]
    if not known:
        rates.reverse()  # FFmpeg makes up 25 for a raw stream; the other rate is the one its headers declare
    declared = list(dict.fromkeys([*(declared_rate(rate, stream.time_base) for rate in rates), *rates]))
    last_duration = durations[max(range(len(times)), key=lambda index: times[index] or 0)] or None
    if len(known) < len(times):
        return plan_frame_timing([known[0] if known else Fraction(0)], declared, last_duration)
    return plan_frame_timing(sorted(known), declared, last_duration)


def _cut_off(path: Path, detail: str) -> MediaError:
    return MediaError(f"{path}: the file is cut off or damaged ({detail}); copy it again")


def _reason(error: Exception) -> str:
    return str(getattr(error, "strerror", None) or error)
