"""RGB frames -> an mp4 that browsers play.

H.264, yuv420p, BT.709 written and tagged, constant frame rate as an exact fraction, index before the data, constant
quality, the driving video's sound. See ``libs.media.previews.preview`` for animated pictures and side-by-side views.
"""

import logging
from collections.abc import Mapping
from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Self

import av
import numpy as np
import numpy.typing as npt

from libs.errors import InputError, MediaError
from libs.files.atomic_write import atomic_write
from libs.media.limits import MAXIMUM_FRAME_PIXELS, MAXIMUM_FRAME_RATE, check_size
from libs.media.sound.audio_track import AudioTrack
from libs.media.video.colour import Bt709Converter, tag_bt709
from libs.media.video.x264 import x264_options

Frame = npt.NDArray[np.uint8]

CONSTANT_RATE_FACTOR = 18
"""x264's quality: visually lossless at normal viewing distance."""

# The number of encoder threads changes x264's decisions; a fixed number gives the same bytes on every machine.
_ENCODER_THREADS = 4

# Tags that mp4 has a place for; others need FFmpeg's free key table, which fewer programs read.
_STANDARD_TAGS = frozenset(
    {"title", "artist", "album", "comment", "description", "synopsis", "copyright", "date", "genre", "show"}
)

_log = logging.getLogger(__name__)


class VideoWriter:
    """Context manager that writes one mp4: under a temporary name, put in place when the block ends without error.

    ``frame_rate`` is kept exactly. ``audio_from`` names a video whose sound is copied and trimmed to the clip's length
    (whole packets: about 20 ms), from ``audio_offset`` seconds after its first frame on; a source without sound is
    fine. ``metadata`` becomes mp4 tags (``comment``, ``title``, ...). Odd sizes are padded by one column or row that
    repeats the edge, because yuv420p needs even sides. The same frames and settings give the same bytes: no time of
    creation is written.

    Raises:
        InputError: the frame rate is not positive or too high, or a frame has another size or dtype than declared.
        MediaError: an absurd size, an unusable ``audio_from``, no frame written, or the encoder failed.
    """

    def __init__(
        self,
        path: Path | str,
        width: int,
        height: int,
        frame_rate: Fraction,
        *,
        audio_from: Path | str | None = None,
        audio_offset: Fraction = Fraction(0),
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        check_size(f"{path}: the clip", width, height, MAXIMUM_FRAME_PIXELS)
        if not 0 < frame_rate <= MAXIMUM_FRAME_RATE:
            raise InputError(f"frame rate is {frame_rate}, expected more than 0 and at most {MAXIMUM_FRAME_RATE}")
        self.path = Path(path)
        self.width, self.height = width, height
        self.frame_rate = Fraction(frame_rate)
        self.frame_count = 0
        self._audio_from = None if audio_from is None else Path(audio_from)
        self._audio_offset = audio_offset
        self._metadata = dict(metadata or {})
        self._resources = ExitStack()

    def __enter__(self) -> Self:
        with ExitStack() as resources:
            temporary = resources.enter_context(atomic_write(self.path))
            free_tags = "" if _STANDARD_TAGS.issuperset(self._metadata) else "+use_metadata_tags"
            self._container = resources.enter_context(
                av.open(temporary, mode="w", format="mp4", container_options={"movflags": f"+faststart{free_tags}"})
            )
            self._container.metadata.update(self._metadata)
            self._stream = self._add_video_stream()
            self._audio = None
            if self._audio_from is not None:
                self._audio = AudioTrack(self._audio_from, self._container, self._audio_offset)
                if self._audio.conversion:
                    _log.warning("%s: %s; converted to AAC", self._audio_from.name, self._audio.conversion)
                resources.callback(self._audio.close)
            self._convert = Bt709Converter()
            self._resources = resources.pop_all()
        return self

    def _add_video_stream(self) -> av.VideoStream:
        stream = self._container.add_stream(
            "libx264",
            rate=self.frame_rate,
            options=x264_options(CONSTANT_RATE_FACTOR, "medium"),
            width=self.width + self.width % 2,
            height=self.height + self.height % 2,
            pix_fmt="yuv420p",
        )
        stream.codec_context.time_base = 1 / self.frame_rate
        stream.codec_context.thread_count = _ENCODER_THREADS
        tag_bt709(stream.codec_context)
        return stream

    def write(self, frame: Frame) -> None:
        """Append one frame, uint8 RGB [height, width, 3]."""
        if frame.shape != (self.height, self.width, 3) or frame.dtype != np.uint8:
            raise InputError(
                f"frame {self.frame_count} is {frame.dtype} {frame.shape}, expected uint8 "
                f"({self.height}, {self.width}, 3)"
            )
        if self.width % 2 or self.height % 2:
            frame = np.pad(frame, ((0, self.height % 2), (0, self.width % 2), (0, 0)), mode="edge")
        picture = self._convert(frame)
        picture.pts, picture.time_base = self.frame_count, 1 / self.frame_rate
        self._encode(picture)
        self.frame_count += 1
        if self._audio is not None:
            self._audio.mux_until(self.frame_count / self.frame_rate)

    def _encode(self, picture: av.VideoFrame | None) -> None:
        try:
            self._container.mux(self._stream.encode(picture))
        except av.FFmpegError as error:
            raise MediaError(f"{self.path}: frame {self.frame_count} cannot be encoded: {error.strerror}") from error

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._resources.__exit__(kind, error, trace)
            return
        with self._resources:
            if self.frame_count == 0:
                raise MediaError(f"{self.path}: no frame was written")
            self._encode(None)
