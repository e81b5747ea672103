"""What no clip can be made of is refused at once, in words that say what to do; a still is a driver of one frame."""

import io
import logging
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from libs.errors import InputError, MediaError
from libs.media.pictures.still import is_still
from libs.media.usable import check_driver, check_reference, try_frame_rate
from libs.media.video.probe import probe_video
from libs.media.video.reader import read_frames
from libs.requests.documents.animation_request import AnimationRequest
from libs.requests.documents.batch import Submission
from libs.requests.inbox.local_media import check_local_media


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP", "AVIF"])
def test_a_still_picture_is_a_driver_of_one_frame(tmp_path, kind):
    path = tmp_path / "still.mp4"  # whatever it is called
    pixels = np.full((64, 96, 3), (200, 60, 40), np.uint8)
    Image.fromarray(pixels).save(path, format=kind)
    assert is_still(path)
    info = probe_video(path)
    assert (info.width, info.height, info.frame_count, info.has_audio) == (96, 64, 1, False)
    (frame,) = read_frames(path)
    assert np.abs(frame.astype(int) - pixels).max() < 12
    assert "one frame" in info.notes[0]
    assert check_driver(path, keep_audio=True) is None


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_moving_picture_is_no_still(tmp_path, kind):
    pictures = [Image.fromarray(np.full((64, 96, 3), 40 * index, np.uint8)) for index in range(5)]
    path = tmp_path / f"moving.{kind.lower()}"
    pictures[0].save(path, format=kind, save_all=True, append_images=pictures[1:], duration=100)
    assert not is_still(path)
    assert probe_video(path).frame_count == 5


def test_a_video_as_reference_is_called_one(make_video):
    with pytest.raises(MediaError, match=r"clip\.png: not a picture but a video; are reference and driver exchanged\?"):
        check_reference(make_video("clip.mp4", 3).rename(make_video("x.mp4", 1).parent / "clip.png"))


@pytest.mark.parametrize(
    "content", [b"", b"only text\n" * 300, b"<html>not found</html>"], ids=["empty", "text", "page"]
)
def test_other_files_under_the_name_of_media_are_refused(tmp_path, content):
    for name, check in (("a.mp4", lambda path: check_driver(path, keep_audio=True)), ("a.png", check_reference)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(MediaError, match=name):
            check(tmp_path / name)


def test_how_files_will_be_read_is_told_before_they_are_sent_and_by_no_log(make_video, tone, tmp_path, caplog):
    sounding = make_video("dance.mkv", 25, audio=tone(1.0, 11025, 0.5), audio_codec="libmp3lame", audio_rate=11025)
    Image.new("RGBA", (32, 32), (200, 60, 40, 0)).save(tmp_path / "a.png", icc_profile=b"nothing")
    request = AnimationRequest(id="a", reference="a.png", driver="dance.mkv")
    media = {"a.png": tmp_path / "a.png", "dance.mkv": sounding}
    silent = request.model_copy(update={"id": "b", "keep_audio": False})
    submissions = {"a.yaml": Submission("a", (request, request, silent))}
    assert check_local_media(submissions, media) == [
        "a.yaml: reference: a.png: transparent parts are shown over neutral grey",
        "a.yaml: reference: a.png: its colour profile is damaged and left aside: colours are taken for sRGB",
        "a.yaml: driver: dance.mkv: mp3 sound of 11025 Hz cannot be held by an mp4; converted to AAC",
    ]
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize(
    ("part", "problem"),
    [
        (
            {"start": 1.0},
            r"a\.yaml: start: 1 s lies behind the end: the driver lasts 1 s \(25 frames\) \(.*dance\.mp4\)",
        ),
        (
            {"start": "20f", "duration": 0.5},
            r"a\.yaml: duration: the part would end at 1\.3 s, but the driver lasts 1 s",
        ),
    ],
)
def test_a_part_that_a_driver_has_not_is_refused_before_it_is_sent(make_video, part, problem):
    request = AnimationRequest(id="a", reference="a.png", driver="dance.mp4", **part)
    submissions = {"a.yaml": Submission("a", (request,))}
    with pytest.raises(InputError, match=problem):
        check_local_media(submissions, {"dance.mp4": make_video("dance.mp4", 25)})


def test_a_video_cut_off_is_refused_without_decoding_it(make_video):
    path = make_video("clip.mkv", 60)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(MediaError, match="cut off"):
        check_driver(path, keep_audio=True)


def stamped(path, stamps, time_base, rate=24):
    with av.open(path, "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width = stream.height = 32
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, 1000)
        packets = []
        for index in range(len(stamps)):
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 9 * index % 256, np.uint8))
            frame.pts, frame.time_base = index * 40, Fraction(1, 1000)
            packets += stream.encode(frame)
        packets += stream.encode(None)
        for packet, stamp in zip(packets, stamps, strict=True):
            packet.pts = packet.dts = stamp
            packet.time_base = time_base
            packet.duration = 0
            container.mux(packet)
    return path


def test_frames_that_would_all_fall_on_one_place_are_refused_by_their_rate(tmp_path):
    path = stamped(tmp_path / "fast.mkv", [index // 4 for index in range(80)], Fraction(1, 1000))
    with pytest.raises(
        MediaError, match=r"fast\.mkv: 80 frames in 0\.019 s, .*time stamps are broken, or it is a slow"
    ):
        probe_video(path)


def test_a_frame_in_hours_is_refused(tmp_path):
    path = stamped(tmp_path / "slow.mkv", [index * 3_600_000 for index in range(4)], Fraction(1, 1000))
    with pytest.raises(MediaError, match="at least one every 10 s is expected"):
        probe_video(path)


def test_time_stamps_that_are_all_the_same_give_each_frame_once(tmp_path):
    info = probe_video(stamped(tmp_path / "still.mkv", [0] * 20, Fraction(1, 1000)))
    assert (info.frame_rate, info.frame_count) == (24, 20)


def test_a_rate_of_an_overflowing_header_does_not_become_the_clips(make_video):
    path = make_video("one.mp4", 1, rate=Fraction(1, 1000), time_base=Fraction(1000))
    assert probe_video(path).frame_rate >= Fraction(1, 10)


@pytest.mark.parametrize("rate", [Fraction(1, 300), Fraction(30000, 1001), Fraction(240), Fraction(100_000, 4171)])
def test_rates_that_an_mp4_can_have(rate):
    try_frame_rate(rate)


def test_rates_that_no_clip_can_have():
    with pytest.raises(InputError, match="frame rate is"):
        try_frame_rate(Fraction(241))


def test_a_truncated_still_is_refused(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(buffer, format="PNG")
    path = tmp_path / "cut.png"
    path.write_bytes(buffer.getvalue()[:4000])
    with pytest.raises(MediaError, match="truncated or damaged"):
        check_driver(path, keep_audio=False)
