"""Of several pictures and sounds in one file the film and the default sound are taken, never a thumbnail."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from libs.errors import MediaError
from libs.media.video.probe import probe_video
from libs.media.video.reader import read_frames

DEFAULT, ATTACHED = av.stream.Disposition.default, av.stream.Disposition.attached_pic


def write_streams(path: Path, films: list[tuple[int, int, int]], sounds: list[tuple[int, int]] = ()) -> Path:
    """``films``: side, frames, disposition; ``sounds``: samples per second, disposition."""
    with av.open(path, "w") as container:
        streams = []
        for side, _, disposition in films:
            stream = container.add_stream("mjpeg" if disposition & ATTACHED else "mpeg4", rate=24)
            stream.width = stream.height = side
            stream.pix_fmt, stream.disposition = "yuvj420p" if disposition & ATTACHED else "yuv420p", disposition
            streams.append(stream)
        tracks = []
        for rate, disposition in sounds:
            track = container.add_stream("aac", rate=rate, layout="mono")
            track.disposition = disposition
            tracks.append(track)
        for index in range(max(count for _, count, _ in films)):
            for stream, (side, count, _) in zip(streams, films, strict=True):
                if index < count:
                    frame = av.VideoFrame.from_ndarray(np.full((side, side, 3), 9 * index, np.uint8))
                    frame.pts, frame.time_base = index, Fraction(1, 24)
                    container.mux(stream.encode(frame))
        for track, (rate, _) in zip(tracks, sounds, strict=True):
            frame = av.AudioFrame.from_ndarray(np.zeros((1, rate // 2), np.float32), format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
            container.mux(track.encode(frame))
        for stream in (*streams, *tracks):
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.mov"])
@pytest.mark.parametrize(
    ("films", "side"),
    [
        pytest.param([(32, 1, DEFAULT), (64, 12, 0)], 64, id="one frame, though default, before the film"),
        pytest.param([(128, 1, DEFAULT), (64, 12, DEFAULT)], 64, id="a large picture of one frame"),
        pytest.param([(64, 12, 0), (32, 12, DEFAULT)], 32, id="the default, though smaller"),
        pytest.param([(32, 12, DEFAULT), (64, 12, DEFAULT)], 64, id="the larger of two defaults"),
        pytest.param([(64, 12, DEFAULT), (64, 6, DEFAULT)], 64, id="the first of two that are alike"),
    ],
)
def test_the_film_is_taken(tmp_path, name, films, side):
    path = write_streams(tmp_path / name, films)
    info = probe_video(path)
    assert (info.width, info.frame_count, info.frame_rate) == (side, 12, 24)
    assert [frame.shape for frame in read_frames(path)] == [(side, side, 3)] * 12
    assert len(info.notes) == 1
    assert "of 2 video streams" in info.notes[0]
    assert f"{side} x {side}" in info.notes[0]


def test_without_a_default_the_larger_film_is_taken(tmp_path):
    assert probe_video(write_streams(tmp_path / "clip.mkv", [(32, 12, 0), (64, 12, 0)])).width == 64


def test_an_attached_picture_is_never_a_film(tmp_path):
    path = write_streams(tmp_path / "clip.mp4", [(64, 1, ATTACHED), (32, 12, 0)])
    assert (probe_video(path).width, probe_video(path).notes) == (32, ())
    with pytest.raises(MediaError, match="no video stream"):
        probe_video(write_streams(tmp_path / "cover.mp4", [(64, 1, ATTACHED)]))


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv"])
@pytest.mark.parametrize(
    ("sounds", "rate"),
    [
        ([(44100, 0), (48000, DEFAULT)], 48000),
        ([(44100, DEFAULT), (48000, DEFAULT)], 44100),
        ([(44100, 0), (48000, 0)], 44100),
        ([(44100, DEFAULT | av.stream.Disposition.visual_impaired), (48000, 0)], 48000),
    ],
)
def test_the_default_sound_track_is_used_and_reported(tmp_path, name, sounds, rate):
    path = write_streams(tmp_path / name, [(64, 12, DEFAULT)], sounds)
    info = probe_video(path)
    assert info.audio.sample_rate == rate
    assert len(info.notes) == 1
    assert f"of 2 sound tracks: aac, {rate} Hz, 1 channel" in info.notes[0]


def test_an_ordinary_file_needs_no_notes(make_video, tone):
    assert probe_video(make_video(audio=tone(0.8, 48000, 0.5))).notes == ()
