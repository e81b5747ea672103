"""Mutated headers of small videos: only the project's own errors, within bounds of time and memory.

`make test` repeats the same mutations, `make explore` makes new ones.
"""

import random
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.errors import MediaError
from libs.media.sound.audio_track import try_sound
from libs.media.video.probe import probe_video
from libs.media.video.reader import read_frames
from tests.fuzz_bounds import call_within

SECONDS, MEGABYTES = 100.0, 700.0
"""Of one file of some kilobytes; its frames may claim to be of 8K, which are 107 MB each as RGB."""

KINDS = {
    "clip.mp4": ("mpeg4", "aac"),
    "clip.mkv": ("mpeg4", "ac3"),
    "clip.avi": ("mpeg4", "libmp3lame"),
    "clip.webm": ("libvpx", "libopus"),
    "clip.ts": ("mpeg2video", "mp2"),
    "clip.flv": ("flv1", "libmp3lame"),
}


@pytest.fixture(scope="module")
def whole_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    return {name: _write(folder / name, *codecs).read_bytes() for name, codecs in KINDS.items()}


def _write(path: Path, video: str, sound: str) -> Path:
    with av.open(path, "w") as container:
        stream = container.add_stream(video, rate=24)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        rate = 44_100 if path.suffix == ".flv" else 48_000
        track = container.add_stream(sound, rate=rate, layout="mono")
        for index in range(8):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 20 * index, np.uint8))
            frame.pts, frame.time_base = index, Fraction(1, 24)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        block = av.AudioFrame.from_ndarray(np.zeros((1, rate // 3), np.float32), format="fltp", layout="mono")
        block.sample_rate, block.pts, block.time_base = rate, 0, Fraction(1, rate)
        container.mux(track.encode(block))
        container.mux(track.encode(None))
    return path


def _mutated(data: bytes, seed: int) -> bytes:
    """A few bytes or numbers changed, most of them where headers lie: at the beginning and the end."""
    generator = random.Random(seed)
    changed = bytearray(data)
    for _ in range(generator.randint(1, 6)):
        where = generator.random()
        reach = min(len(changed), 1200)
        at = generator.randrange(reach)
        if where < 0.4:
            at = len(changed) - 1 - at
        elif where < 0.5:
            at = generator.randrange(len(changed))
        kind = generator.randrange(4)
        if kind == 0:
            changed[at] ^= 1 << generator.randrange(8)
        elif kind == 1:
            changed[at] = generator.choice((0, 1, 127, 128, 255))
        elif kind == 2:
            number = generator.choice((0, 1, 2**31 - 1, 2**31, 2**32 - 1, generator.getrandbits(32)))
            changed[at : at + 4] = number.to_bytes(4, generator.choice(("big", "little")))
        else:
            del changed[at : at + generator.randint(1, 16)]
    return bytes(changed)


def _use(path: Path) -> str:
    """What a request does with a driver; the error's text, if it is one of ours."""
    try:
        info = probe_video(path)
        next(read_frames(path))
        if info.has_audio:
            try_sound(path, info.duration)
    except MediaError as error:
        return str(error)
    assert 0 < info.frame_rate <= 240
    assert 0 < info.frame_count <= 216_000
    return ""


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(name=st.sampled_from(sorted(KINDS)), seed=st.integers(0, 2**32 - 1))
@pytest.mark.slow
def test_a_mutated_video_is_used_or_refused_within_bounds(whole_files, tmp_path, name, seed):
    path = tmp_path / name
    path.write_bytes(_mutated(whole_files[name], seed))
    message = call_within(SECONDS, MEGABYTES, _use, path)
    assert not message or str(path) in message


def test_the_files_that_are_mutated_are_whole(whole_files, tmp_path):
    for name, data in whole_files.items():
        (tmp_path / name).write_bytes(data)
        assert _use(tmp_path / name) == "", name


def test_several_films_without_a_decoder_are_refused(whole_files, tmp_path):
    """What the fuzzer found: a track number changed so that sound and picture are two videos of unknown codecs."""
    path = tmp_path / "clip.webm"
    path.write_bytes(_mutated(whole_files["clip.webm"], 100028))
    assert "no decoder" in _use(path)
