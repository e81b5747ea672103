"""Videos made by PyAV for the media tests: each frame shows its own number as grey bars, so that order can be read."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

BITS = 8


def numbered_frame(number: int, width: int = 96, height: int = 64) -> np.ndarray:
    """A frame whose left half shows ``number`` in binary as eight horizontal bars, and whose right half is red."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[:, width // 2 :] = (200, 30, 40)
    for bit in range(BITS):
        top, bottom = bit * height // BITS, (bit + 1) * height // BITS
        frame[top:bottom, : width // 2] = 235 if number >> bit & 1 else 20
    return frame


def number_of(frame: np.ndarray) -> int:
    """The number a frame shows."""
    height, width = frame.shape[:2]
    bars = [int(frame[(2 * bit + 1) * height // (2 * BITS), width // 4].mean()) for bit in range(BITS)]
    return sum((level > 128) << bit for bit, level in enumerate(bars))


def tone(seconds: float, rate: int, click_at: float) -> np.ndarray:
    """int16 [samples] of a quiet tone with a loud click."""
    time = np.arange(int(seconds * rate))
    samples = (np.sin(2 * np.pi * 440 * time / rate) * 3000).astype(np.int16)
    samples[int(click_at * rate) :][:200] = 30000
    return samples


def write_video(
    path: Path,
    frames: Sequence[np.ndarray],
    rate: Fraction | int = 25,
    *,
    codec: str = "libx264",
    pts: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    rotation: int | None = None,
    mirrored: bool = False,
    audio: np.ndarray | None = None,
    audio_codec: str = "aac",
    audio_rate: int = 48000,
    audio_start: int = 0,
    options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    pixel_format: str = "yuv420p",
    matrix: str | None = None,
    pixel_aspect: Fraction | None = None,
) -> Path:
    """Write ``frames`` as they are; ``pts`` are in ``time_base`` and default to one frame after the other."""
    rate = Fraction(rate)
    with av.open(path, "w", container_options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=rate, options={"crf": "10", **(options or {})})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pixel_format
        stream.codec_context.time_base = time_base or 1 / rate
        if pixel_aspect:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if matrix:
            stream.codec_context.colorspace = {"709": 1, "601": 6}[matrix]
        if rotation is not None:
            stream.set_display_rotation(rotation, hflip=mirrored)
        track = None
        if audio is not None:
            track = container.add_stream(audio_codec, rate=audio_rate, layout="stereo")
        for index, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels))
            if matrix:
                swscale_matrix = {"709": 1, "601": 5}[matrix]
                frame = frame.reformat(
                    format=pixel_format, dst_colorspace=swscale_matrix, src_color_range=2, dst_color_range=1
                )
            frame.pts = index if pts is None else pts[index]
            frame.time_base = stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if track is not None:
            block = np.repeat(audio[None, :, None], 2, axis=2).reshape(1, -1)
            sound = av.AudioFrame.from_ndarray(np.ascontiguousarray(block), format="s16", layout="stereo")
            sound.sample_rate, sound.pts = audio_rate, audio_start * audio_rate
            sound.time_base = Fraction(1, audio_rate)
            resampler = av.AudioResampler(format=track.format, layout="stereo", rate=audio_rate)
            for part in [*resampler.resample(sound), *resampler.resample(None)]:
                container.mux(track.encode(part))
            container.mux(track.encode(None))
    return path


def join_transport_streams(*parts: bytes) -> bytes:
    """Recordings one behind the other, packet counters going on so that none counts as lost (ISO 13818-1, 2.4.3)."""
    whole, counters = bytearray(b"".join(parts)), {}
    for at in range(0, len(whole), 188):
        identifier = (whole[at + 1] & 31) << 8 | whole[at + 2]
        if whole[at + 3] & 16:
            counters[identifier] = (counters.get(identifier, -1) + 1) % 16
        whole[at + 3] = whole[at + 3] & 0xF0 | counters.get(identifier, 0)
    return bytes(whole)


@pytest.fixture
def make_video(tmp_path: Path) -> Callable[..., Path]:
    """``make_video(name, count, **options)``: a video of numbered frames below the test's folder."""

    def make(name: str = "video.mp4", count: int = 20, **options) -> Path:
        frames = options.pop("frames", None) or [numbered_frame(index) for index in range(count)]
        return write_video(tmp_path / name, frames, **options)

    return make


# Handed over as fixtures, because test modules in importlib mode cannot import from each other.
@pytest.fixture(name="number_of")
def _number_of() -> Callable[[np.ndarray], int]:
    return number_of


@pytest.fixture(name="numbered_frame")
def _numbered_frame() -> Callable[..., np.ndarray]:
    return numbered_frame


@pytest.fixture(name="join_transport_streams")
def _join_transport_streams() -> Callable[..., bytes]:
    return join_transport_streams


@pytest.fixture(name="tone")
def _tone() -> Callable[[float, int, float], np.ndarray]:
    return tone


@pytest.fixture
def real_media() -> Path:
    """The optional real test media beside the repository."""
    folder = Path(__file__).resolve().parents[4] / "shared" / "media"
    if not folder.is_dir():
        pytest.skip("no real media beside the repository (../shared/media)")
    return folder
