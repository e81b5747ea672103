"""The sound of a driving video, carried over to a clip.

Packets are copied, not encoded again, and trimmed to the clip. Sound is converted to AAC where it cannot be copied: a
codec or rate that mp4 cannot hold or browsers cannot play from there, or time stamps that an mp4 cannot hold. See
``writer`` for pictures, ``sound_timeline`` for where converted samples lie in time.
"""

import logging
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from io import BytesIO
from itertools import pairwise
from pathlib import Path
from statistics import median

import av
import numpy as np

from libs.errors import MediaError
from libs.media.sound.sound_timeline import Samples, continuous_sound
from libs.media.video.streams import usable_sound
from libs.media.video.video_file import open_container, packets_of, scan_video

COPIED_CODECS = frozenset({"aac", "mp3", "opus", "flac"})
"""Sound that is copied as it is: mp4 holds it and browsers play it from there."""

_FIXED_LENGTH_CODECS = frozenset({"aac", "mp3"})
"""Each packet holds the same number of samples, so a longer distance is a hole, whatever duration the file declares."""

_PRIMING_PACKETS = 2
"""Packets kept before the first audible one: AAC, MP3 and Opus need their predecessor to decode."""

_TRIED_PACKETS = 50
"""Packets put into an mp4 in memory to see whether it takes them: about a second."""

_REGULAR = 0.0025
"""Seconds by which the distance of two packets may be off: time stamps are rounded to whole milliseconds in places."""

_TRIED_SECONDS = Fraction(10)
"""Seconds of the clip for which its sound is tried out before anything is computed."""

_TRANSCODED_BIT_RATE = 192_000

_AAC_RATES = frozenset(av.Codec("aac", "w").audio_rates or ())
_OTHER_RATES_BECOME = 48_000
"""Samples per second; studio sound of 192 kHz, or the odd rates of old cards. PyAV resamples before it encodes."""

_WAY_OUT = "convert it to AAC first, or set keep_audio: false"

_log = logging.getLogger(__name__)


class AudioTrack:
    """The sound track of ``source``, put into ``target`` piece by piece as the clip grows.

    Time 0 of the clip is the first frame of the source's video, or ``offset`` seconds after it, so picture and sound
    stay together even where the source's tracks start at different times. ``present`` is False when the source has no
    sound; ``conversion`` says why the sound is converted to AAC, None where it is copied.

    Raises:
        MediaError: the source cannot be read, or nothing of its sound can be decoded.
    """

    def __init__(self, source: Path, target: av.container.OutputContainer, offset: Fraction = Fraction(0)) -> None:
        self._start = scan_video(source).start + offset
        self._source = open_container(source)
        self._target = target
        self._path = source
        self.conversion: str | None = None
        stream = usable_sound(self._source)
        self.present = stream is not None
        if stream is not None:
            self._open_track(stream)
        else:
            _log.info("%s has no sound that can be used; the clip gets none", source.name)

    def _open_track(self, stream: av.AudioStream) -> None:
        self.conversion = why_not_copied(self._path)
        if self.conversion is None:
            self._output = self._target.add_stream_from_template(stream)
            self._packets = self._copied(stream)
        else:
            layout = "mono" if stream.channels == 1 else "stereo"
            rate = stream.sample_rate if stream.sample_rate in _AAC_RATES else _OTHER_RATES_BECOME
            self._output = self._target.add_stream("aac", rate=rate, layout=layout)
            self._output.bit_rate = _TRANSCODED_BIT_RATE
            self._packets = self._transcoded(stream, layout)
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
                    f"{self._path}: its sound cannot be put into an mp4 ({error.strerror}); {_WAY_OUT}"
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
            if not packet.size or packet.pts is None:
                continue
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

    def _transcoded(self, stream: av.AudioStream, layout: str) -> Iterator[tuple[Fraction, av.Packet]]:
        """AAC packets of the decoded sound, from the clip's start on, holes filled with silence."""
        rate, position = stream.sample_rate, 0
        try:
            for block in continuous_sound(self._decoded(stream, layout, rate), rate):
                # The encoder refuses what is no number, and clips what is louder than full scale anyway.
                samples = np.nan_to_num(block, nan=0.0, posinf=1.0, neginf=-1.0).clip(-1.0, 1.0)
                frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=layout)
                frame.sample_rate, frame.pts, frame.time_base = rate, position, Fraction(1, rate)
                position += samples.shape[1]
                yield from self._timed(self._output.encode(frame))
            yield from self._timed(self._output.encode(None))
        except av.FFmpegError as error:
            raise MediaError(
                f"{self._path}: its sound cannot be converted to AAC ({error.strerror}); {_WAY_OUT}"
            ) from error

    def _decoded(self, stream: av.AudioStream, layout: str, rate: int) -> Iterator[tuple[float | None, Samples]]:
        """Times and samples; a packet that cannot be decoded is left out, and becomes silence.

        Raises:
            MediaError: not a single packet can be decoded.
        """
        converter = _ToFloat(layout, rate)
        decoded = failed = 0
        for packet in self._read(stream):
            try:
                frames = packet.decode()
            except av.FFmpegError:
                failed += 1
                continue
            for frame in frames:
                time = None if frame.pts is None or frame.time_base is None else frame.pts * frame.time_base
                decoded += 1
                yield None if time is None else float(time - self._start), converter(frame)
        if failed and not decoded:
            raise MediaError(f"{self._path}: its sound cannot be decoded; {_WAY_OUT}")
        if failed:
            _log.warning("%s: %d packet(s) of its sound damaged; the clip is silent there", self._path.name, failed)

    def _timed(self, packets: list[av.Packet]) -> Iterator[tuple[Fraction, av.Packet]]:
        for packet in packets:
            yield packet.pts * packet.time_base, packet

    def _read(self, stream: av.AudioStream) -> Iterator[av.Packet]:
        try:
            yield from self._source.demux(stream)
        except av.FFmpegError as error:
            raise MediaError(f"{self._path}: its sound cannot be read ({error.strerror})") from error


def try_sound(source: Path, duration: Fraction, offset: Fraction = Fraction(0)) -> str | None:
    """Put the first seconds of a video's sound into an mp4 in memory, as a clip of ``duration`` seconds will have it.

    The clip begins ``offset`` seconds after the video's first frame.

    Returns:
        Why the sound is converted to AAC; None where it is copied or there is none.

    Raises:
        MediaError: the clip could not get this sound; the message says what to do.
    """
    with av.open(BytesIO(), "w", format="mp4") as target:
        track = AudioTrack(source, target, offset)
        try:
            track.mux_until(min(duration, _TRIED_SECONDS))
        finally:
            track.close()
    return track.conversion


def sound_lies_between(path: Path, start: Fraction, end: Fraction) -> bool:
    """Whether a packet of a video's sound lies between two of its times, in seconds; reads on to the first of them.

    Raises:
        MediaError: the file cannot be read.
    """
    with open_container(path) as container:
        stream = usable_sound(container)
        if stream is None:
            return False
        for packet in packets_of(path, container):
            if packet.stream_index != stream.index or not packet.size:
                continue
            if packet.pts is None:  # unknown; its converted sound begins with the film
                return True
            time = packet.pts * packet.time_base
            if time < end and time + (packet.duration or 0) * packet.time_base > start:
                return True
    return False


def why_not_copied(path: Path) -> str | None:
    """What keeps the packets of a video's sound from being put into an mp4 as they are; None when nothing does.

    Reads all packets; the first second of them is put into an mp4 in memory.

    Raises:
        MediaError: the file cannot be read.
    """
    with open_container(path) as container, av.open(BytesIO(), "w", format="mp4") as target:
        stream = usable_sound(container)
        if stream is None:
            return None
        codec = stream.codec_context.codec.canonical_name
        if codec not in COPIED_CODECS:
            return f"sound in {codec} cannot be played from mp4 in browsers"
        is_refused = False
        times: list[tuple[float | None, float]] = []
        try:
            output = target.add_stream_from_template(stream)
            for packet in packets_of(path, container):
                if packet.stream_index != stream.index or not packet.size:
                    continue
                time = None if packet.pts is None else float(packet.pts * packet.time_base)
                times.append((time, float((packet.duration or 0) * packet.time_base)))
                if len(times) <= _TRIED_PACKETS and not is_refused:
                    packet.dts, packet.stream = packet.pts, output
                    is_refused = _is_refused(target, packet)
        except ValueError as error:  # from PyAV, which knows no such stream in an mp4
            _log.info("%s: %s sound: %s", path.name, codec, error)
            is_refused = True
    if not _is_regular(times, codec):
        return f"time stamps of its {codec} sound are doubled, missing or out of order"
    return f"{codec} sound of {stream.sample_rate} Hz cannot be held by an mp4" if is_refused else None


def _is_refused(target: av.container.OutputContainer, packet: av.Packet) -> bool:
    try:
        target.mux(packet)
    except av.FFmpegError as error:
        _log.info("an mp4 does not take the sound: %s", error.strerror)
        return True
    return False


def _is_regular(times: list[tuple[float | None, float]], codec: str) -> bool:
    """Does each packet (time, duration) begin where the one before ends, but for rounding?"""
    known = [(time, duration) for time, duration in times if time is not None]
    steps = [(after - before, duration) for (before, duration), (after, _) in pairwise(known)]
    if len(known) < len(times):
        return False
    typical = median(step for step, _ in steps) if steps else 0.0
    for step, duration in steps:
        follows = codec not in _FIXED_LENGTH_CODECS and abs(step - duration) <= _REGULAR
        if step <= 0 or not (follows or abs(step - typical) <= _REGULAR):
            return False
    return True


class _ToFloat:
    """Decoded frames -> float samples of one layout and rate, even where a recording changes its own."""

    def __init__(self, layout: str, rate: int) -> None:
        self._layout, self._rate = layout, rate
        self._kind: tuple[object, ...] = ()
        self._resampler: av.AudioResampler | None = None

    def __call__(self, frame: av.AudioFrame) -> Samples:
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if kind != self._kind:
            self._resampler, self._kind = av.AudioResampler("fltp", self._layout, self._rate), kind
        assert self._resampler is not None
        frame.pts = None
        parts = [part.to_ndarray() for part in self._resampler.resample(frame)]
        channels = 1 if self._layout == "mono" else 2
        return np.concatenate(parts, axis=1) if parts else np.zeros((channels, 0), np.float32)
