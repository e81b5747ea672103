"""What a video file is: size, exact rate, exact number of frames, sound, tags.

See ``libs.requests.documents.animation_request`` for whether a video suits a request, ``reader`` for frames themselves.
"""

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from libs.media.limits import MAXIMUM_FRAME_PIXELS, check_size
from libs.media.pictures.still import is_still
from libs.media.sound.audio_track import sound_lies_between
from libs.media.video.colour import high_dynamic_range
from libs.media.video.frame_timing import DEFAULT_RATE
from libs.media.video.reader import DisplayGeometry, read_frames
from libs.media.video.streams import film_candidates, usable_sound
from libs.media.video.video_file import decode_frames, open_container, open_video, scan_video


@dataclass(frozen=True)
class AudioInfo:
    """The sound track that is used (``streams.usable_sound``): FFmpeg's codec name, samples per second, channels."""

    codec: str
    sample_rate: int
    channels: int


@dataclass(frozen=True)
class VideoInfo:
    """A video as :func:`libs.media.video.reader.read_frames` hands it out.

    ``width`` and ``height`` are of the upright frame with square pixels. ``frame_rate`` is exact (30000/1001 stays
    that); for a variable video it is the rate of the constant grid its frames are laid on. ``frame_count`` is the
    number of frames ``read_frames`` yields, counted by decoding them all. ``duration`` in seconds is ``frame_count /
    frame_rate``. ``rotation`` are the degrees clockwise by which stored frames were turned.
    ``interlaced`` tells whether frames were stored so and are made progressive (``libs.media.video.deinterlace``);
    ``high_dynamic_range`` is ``PQ`` or ``HLG`` where colours are brought to BT.709 (``libs.media.video.colour``), else
    None. ``notes`` say what was chosen or changed: which of several streams, how many frames were repeated or left out;
    mostly none.
    """

    width: int
    height: int
    frame_rate: Fraction
    frame_count: int
    duration: Fraction
    rotation: int
    codec: str
    pixel_format: str
    variable_frame_rate: bool
    interlaced: bool
    high_dynamic_range: str | None
    audio: AudioInfo | None
    notes: tuple[str, ...] = ()

    @property
    def has_audio(self) -> bool:
        """True when there is a sound track."""
        return self.audio is not None


def probe_video(path: Path | str) -> VideoInfo:
    """Read a whole video (all packets, all frames, no colour conversion) and describe it.

    About 1000 frames of 576 x 1024 per second on two cores.

    Raises:
        MediaError: unreadable, cut off, damaged, no video stream, no frames, a side below 16 pixels, or an absurd size.
    """
    path = Path(path)
    if path.is_file() and is_still(path):
        return _still_as_video(path)
    timing = scan_video(path)
    with open_video(path) as (container, stream):
        codec = stream.codec_context.codec.canonical_name
        audio = _audio_info(container)
        notes = [*_stream_notes(container, stream), *_sound_notes(container)]
    frame_count = repeated_count = 0
    interlaced = False
    transfer: str | None = None
    for frame, repeated in decode_frames(path, timing, as_stored=True):
        if frame_count == 0:
            geometry = DisplayGeometry.of(path, frame)
            pixel_format = frame.format.name
        frame_count += 1
        repeated_count += repeated
        interlaced = interlaced or frame.interlaced_frame
        transfer = transfer or high_dynamic_range(frame)
    width, height = geometry.upright_size
    check_size(f"{path}: the video", width, height, MAXIMUM_FRAME_PIXELS)
    rate = timing.frame_rate
    if audio is not None and not sound_lies_between(path, timing.start, timing.start + frame_count / rate):
        audio = None
        notes.append("its sound track is empty, or lies before or after the film; the clip has no sound")
    if timing.variable:
        left_out = max(0, timing.stored_count - (frame_count - repeated_count))
        notes.append(
            f"frames do not follow in one rhythm: laid on a grid of {rate} frames a second "
            f"(filled by the frame before: {repeated_count}, left out: {left_out})"
        )
    return VideoInfo(
        width=width,
        height=height,
        frame_rate=rate,
        frame_count=frame_count,
        duration=frame_count / rate,
        rotation=geometry.orientation.rotation,
        codec=codec,
        pixel_format=pixel_format,
        variable_frame_rate=timing.variable,
        interlaced=interlaced,
        high_dynamic_range=transfer,
        audio=audio,
        notes=tuple(notes),
    )


def read_tags(path: Path | str) -> dict[str, str]:
    """Name -> text of the container's tags (``VideoWriter(metadata=...)``), without decoding anything.

    Raises:
        MediaError: the file cannot be read.
    """
    with open_container(Path(path)) as container:
        return dict(container.metadata)


def _still_as_video(path: Path) -> VideoInfo:
    """A picture that does not move, as a video of one frame."""
    height, width = next(read_frames(path)).shape[:2]
    return VideoInfo(
        width=width,
        height=height,
        frame_rate=DEFAULT_RATE,
        frame_count=1,
        duration=1 / DEFAULT_RATE,
        rotation=0,
        codec="still picture",
        pixel_format="rgb24",
        variable_frame_rate=False,
        interlaced=False,
        high_dynamic_range=None,
        audio=None,
        notes=("a still picture: the clip has one frame, with the pose of this picture",),
    )


def _audio_info(container: av.container.InputContainer) -> AudioInfo | None:
    stream = usable_sound(container)
    if stream is None:
        return None
    return AudioInfo(stream.codec_context.codec.canonical_name, stream.sample_rate, stream.channels)


def _stream_notes(container: av.container.InputContainer, chosen: av.VideoStream) -> list[str]:
    candidates = film_candidates(container)
    if len(candidates) < 2:
        return []
    number = [stream.index for stream in candidates].index(chosen.index) + 1
    name = chosen.codec_context.codec.canonical_name
    return [
        f"number {number} of {len(candidates)} video streams: {name}, {chosen.width} x {chosen.height} "
        "(of those with more than one frame the default one, or the largest)"
    ]


def _sound_notes(container: av.container.InputContainer) -> list[str]:
    tracks, chosen = container.streams.audio, usable_sound(container)
    if tracks and chosen is None:
        return [f"none of its sound tracks ({len(tracks)}) can be decoded; the clip has no sound"]
    if chosen is None or len(tracks) < 2:
        return []
    number = [stream.index for stream in tracks].index(chosen.index) + 1
    name = chosen.codec_context.codec.canonical_name
    channels = f"{chosen.channels} channel{'s' if chosen.channels > 1 else ''}"
    return [
        f"number {number} of {len(tracks)} sound tracks: {name}, {chosen.sample_rate} Hz, {channels} "
        "(of those that can be decoded the default one, or the first)"
    ]
