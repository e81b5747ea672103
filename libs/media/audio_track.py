"""The sound of a driving video, carried over to a clip.

Packets are copied, not encoded again, and trimmed to the clip. Sound that mp4 cannot hold, or that browsers cannot play
from mp4, is converted to AAC; the log says so. What does not belong here: pictures (``writer``).
"""

import logging
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av

from libs.errors import MediaError
from libs.media.video_file import open_container, scan_video

COPIED_CODECS = frozenset({"aac", "mp3", "opus", "flac"})
"""Sound that is copied as it is: mp4 holds it and browsers play it from there."""

_PRIMING_PACKETS = 2
"""Packets kept before the first audible one: AAC, MP3 and Opus need their predecessor to decode."""

_TRANSCODED_BIT_RATE = 192_000

_AAC_RATES = frozenset(av.Codec("aac", "w").audio_rates or ())
_OTHER_RATES_BECOME = 48_000
"""Samples per second; studio sound of 192 kHz, or the odd rates of old cards. PyAV resamples before it encodes."""

_log = logging.getLogger(__name__)


def usable_sound(container: av.container.InputContainer) -> av.AudioStream | None:
    """The first sound track that can be decoded; None without one.

    A transport stream may announce a track that only begins later, or never: it has neither rate nor channels yet.
    """
    for stream in container.streams.audio:
        if stream.codec_context is not None and stream.sample_rate and stream.channels:
            return stream
    return None


class AudioTrack:
    """The sound track of ``source``, put into ``target`` piece by piece as the clip grows.

    Time 0 of the clip is the first frame of the source's video, so picture and sound stay together even where the
    source's tracks start at different times. ``present`` is False when the source has no sound.

    Raises:
        MediaError: the source cannot be read.
    """

    def __init__(self, source: Path, target: av.container.OutputContainer) -> None:
        self._start = scan_video(source).start
        self._source = open_container(source)
        self._target = target
        self._path = source
        self.present = False
        stream = usable_sound(self._source)
        if stream is not None:
            self._open_track(stream)
        else:
            _log.info("%s has no sound that can be used; the clip gets none", source)

    def _open_track(self, stream: av.AudioStream) -> None:
        self.present = True
        codec = stream.codec_context.codec.canonical_name
        if codec in COPIED_CODECS:
            self._output = self._target.add_stream_from_template(stream)
            self._packets = self._copied(stream)
        else:
            _log.warning("%s: sound in %s cannot be played from mp4 in browsers; converted to AAC", self._path, codec)
            layout = "mono" if stream.channels == 1 else "stereo"
            rate = stream.sample_rate if stream.sample_rate in _AAC_RATES else _OTHER_RATES_BECOME
            self._output = self._target.add_stream("aac", rate=rate, layout=layout)
            self._output.bit_rate = _TRANSCODED_BIT_RATE
            self._packets = self._transcoded(stream)
        self._next = next(self._packets, None)

    def mux_until(self, seconds: Fraction) -> None:
        """Write all packets that start before ``seconds`` of the clip. Call with growing times, at last its length."""
        while self.present and self._next is not None:
            time, packet = self._next
            if time >= seconds:
                return
            try:
                self._target.mux(packet)
            except av.FFmpegError as error:
                raise MediaError(
                    f"{self._path}: its sound cannot be put into an mp4 ({error.strerror}); convert it to AAC first"
                ) from error
            self._next = next(self._packets, None)

    def close(self) -> None:
        """Close the source; safe to call twice."""
        self._source.close()

    def _copied(self, stream: av.AudioStream) -> Iterator[tuple[Fraction, av.Packet]]:
        """Packets on the clip's time line, from the one before the first audible."""
        priming: deque[tuple[Fraction, av.Packet]] = deque(maxlen=_PRIMING_PACKETS)
        audible = False
        for packet in self._read(stream):
            offset = round(self._start / packet.time_base)
            time = packet.pts * packet.time_base - self._start
            packet.pts -= offset
            packet.dts = packet.pts
            packet.stream = self._output
            if audible:
                yield time, packet
            elif time + (packet.duration or 0) * packet.time_base > 0:
                audible = True
                yield from priming
                yield time, packet
            else:
                priming.append((time, packet))

    def _transcoded(self, stream: av.AudioStream) -> Iterator[tuple[Fraction, av.Packet]]:
        """AAC packets of the decoded sound, from the first frame that ends after the clip's start."""
        try:
            for packet in self._read(stream):
                for frame in packet.decode():
                    if frame.pts is None or frame.time_base is None:
                        continue
                    time = frame.pts * frame.time_base - self._start
                    if time + Fraction(frame.samples, frame.sample_rate) <= 0:
                        continue
                    frame.pts = round(time * frame.sample_rate)
                    frame.time_base = Fraction(1, frame.sample_rate)
                    yield from self._timed(self._output.encode(frame))
            yield from self._timed(self._output.encode(None))
        except av.FFmpegError as error:
            raise MediaError(f"{self._path}: its sound cannot be decoded ({error.strerror})") from error

    def _timed(self, packets: list[av.Packet]) -> Iterator[tuple[Fraction, av.Packet]]:
        for packet in packets:
            yield packet.pts * packet.time_base, packet

    def _read(self, stream: av.AudioStream) -> Iterator[av.Packet]:
        try:
            for packet in self._source.demux(stream):
                if packet.size and packet.pts is not None:
                    yield packet
        except av.FFmpegError as error:
            raise MediaError(f"{self._path}: its sound cannot be read ({error.strerror})") from error
