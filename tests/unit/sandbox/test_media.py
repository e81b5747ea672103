from fractions import Fraction

import av
import numpy as np
import pytest

from libs.media.video.probe import probe_video
from libs.requests.documents.animation_request import parse_request
from libs.sandbox.media import SAMPLE_RATE, beat, write_puppet_clip
from libs.sandbox.request import SAMPLE_REQUEST_ID, write_sample_request


def test_the_clip_has_the_rate_size_and_sound_it_should(tmp_path):
    keypoints = write_puppet_clip(
        tmp_path / "clip.mp4", frame_count=12, frame_rate=Fraction(30000, 1001), width=192, height=256
    )
    assert keypoints.shape == (12, 133, 2)
    info = probe_video(tmp_path / "clip.mp4")
    assert (info.width, info.height, info.frame_count) == (192, 256, 12)
    assert info.frame_rate == Fraction(30000, 1001)
    assert info.has_audio


def test_the_sound_lasts_as_long_as_the_picture_and_is_heard(tmp_path):
    write_puppet_clip(tmp_path / "clip.mp4", frame_count=24)
    with av.open(str(tmp_path / "clip.mp4")) as container:
        assert container.streams.audio[0].codec_context.name == "aac"
        sound = np.concatenate([frame.to_ndarray() for frame in container.decode(audio=0)], axis=1)
    assert sound.shape[1] / SAMPLE_RATE == pytest.approx(1.0, abs=0.06)
    assert 0.02 < sound.std() < 0.5


def test_a_clip_can_be_silent(tmp_path):
    write_puppet_clip(tmp_path / "clip.mp4", frame_count=3, audio=False)
    assert not probe_video(tmp_path / "clip.mp4").has_audio


def test_the_beat_is_deterministic_and_in_range():
    np.testing.assert_array_equal(beat(1.0, seed=2), beat(1.0, seed=2))
    assert np.abs(beat(2.0)).max() <= 1.0
    assert beat(0.5).shape == (2, SAMPLE_RATE // 2)


@pytest.mark.slow
def test_the_sample_request_is_valid_and_its_media_are_there(tmp_path):
    document = write_sample_request(tmp_path)
    request = parse_request(document.read_bytes(), source=document.name)
    assert request.id == SAMPLE_REQUEST_ID == document.stem
    assert request.model == "sandbox"
    assert (tmp_path / request.reference).is_file()
    info = probe_video(tmp_path / request.driver)
    assert info.frame_count > 81  # a long video: more than one chunk
    assert info.has_audio


@pytest.mark.slow
def test_the_same_seed_gives_the_same_clip_byte_for_byte(tmp_path):
    contents = []
    for run in range(3):
        write_puppet_clip(tmp_path / f"{run}.mp4", frame_count=24)
        contents.append((tmp_path / f"{run}.mp4").read_bytes())
    assert contents[0] == contents[1] == contents[2]
