import hashlib
import logging
from fractions import Fraction

import av
import numpy as np
import psutil
import pytest

from libs.errors import InputError, MediaError
from libs.media.video.probe import probe_video
from libs.media.video.reader import read_frames
from libs.media.video.writer import VideoWriter
from tests.fuzz_bounds import call_within

NTSC = Fraction(30000, 1001)


def write(path, frames, rate=NTSC, **options):
    with VideoWriter(path, frames[0].shape[1], frames[0].shape[0], rate, **options) as writer:
        for frame in frames:
            writer.write(frame)
    return path


@pytest.fixture
def frames(numbered_frame):
    return [numbered_frame(index) for index in range(60)]


def audio_packets(path):
    with av.open(path) as container:
        return [bytes(packet) for packet in container.demux(audio=0) if packet.size]


def click_time(path):
    """Presentation time in seconds of the first loud sample, and the end of the sound."""
    with av.open(path) as container:
        track = container.streams.audio[0]
        blocks, start = [], None
        for frame in container.decode(track):
            start = float(frame.time) if start is None else start
            values = frame.to_ndarray().astype(np.float64)
            values = values[0] if frame.format.is_planar else values.reshape(-1, track.channels)[:, 0]
            blocks.append(values / (1 if "flt" in frame.format.name else 2 ** (8 * frame.format.bytes - 1)))
        sound = np.concatenate(blocks)
        return start + np.argmax(np.abs(sound) > 0.6) / track.sample_rate, start + len(sound) / track.sample_rate


def test_what_is_written_is_read_back(tmp_path, frames, number_of):
    path = write(tmp_path / "clip.mp4", frames)
    info = probe_video(path)
    assert (info.width, info.height, info.frame_rate, info.frame_count) == (96, 64, NTSC, 60)
    assert (info.codec, info.pixel_format, info.variable_frame_rate) == ("h264", "yuv420p", False)
    for index, frame in enumerate(read_frames(path)):
        assert number_of(frame) == index
        assert np.abs(frame[32, 72].astype(int) - (200, 30, 40)).max() <= 4


@pytest.mark.parametrize(
    "rate",
    [
        24,
        25,
        16,
        Fraction(24000, 1001),
        Fraction(2993, 100),
        Fraction(2997, 100),
        Fraction(30000, 7007),
        Fraction(19001, 317),
    ],
)
def test_frame_times_are_exact(tmp_path, frames, rate):
    path = write(tmp_path / "clip.mp4", frames[:7], Fraction(rate))
    with av.open(path) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == rate
        times = sorted(packet.pts * packet.time_base for packet in container.demux(stream) if packet.size)
        assert stream.duration * stream.time_base == 7 / Fraction(rate)
    assert [time - times[0] for time in times] == [index / Fraction(rate) for index in range(7)]
    assert probe_video(path).frame_rate == rate


def test_bt709_limited_range_is_tagged_and_true(tmp_path):
    colours = [(230, 20, 30), (20, 200, 40), (40, 30, 220), (128, 128, 128), (255, 255, 255), (0, 0, 0)]
    path = write(tmp_path / "clip.mp4", [np.full((64, 64, 3), colour, np.uint8) for colour in colours])
    assert b"colrnclx\x00\x01\x00\x01\x00\x01" in path.read_bytes()
    with av.open(path) as container:
        for frame, colour in zip(container.decode(video=0), colours, strict=True):
            assert (frame.colorspace, frame.color_primaries, frame.color_trc, frame.color_range) == (1, 1, 1, 1)
            red, green, blue = (value / 255 for value in colour)
            luma = 0.2126 * red + 0.7152 * green + 0.0722 * blue  # ITU-R BT.709, item 3.2
            expected = (16 + 219 * luma, 128 + 224 * (blue - luma) / 1.8556, 128 + 224 * (red - luma) / 1.5748)
            planes = frame.to_ndarray()
            measured = (planes[32, 32], planes[64:80].reshape(32, 32)[16, 16], planes[80:].reshape(32, 32)[16, 16])
            assert np.abs(np.subtract(measured, expected)).max() <= 1.5


def test_index_stands_before_the_data(tmp_path, frames):
    data = write(tmp_path / "clip.mp4", frames).read_bytes()
    assert 0 < data.index(b"moov") < data.index(b"mdat")


@pytest.mark.parametrize(("height", "width"), [(96, 64), (480, 272), (384, 288)])
def test_same_frames_give_same_bytes_at_sizes_where_x264_differed_from_run_to_run(tmp_path, height, width):
    """Its macroblock tree read memory that nobody wrote; a moving texture keeps that tree busy."""
    blocks = np.random.default_rng(0).integers(0, 255, (height // 8 + 8, width // 8 + 8, 3), dtype=np.uint8)
    texture = blocks.repeat(8, axis=0).repeat(8, axis=1)
    moving = [np.ascontiguousarray(texture[n : n + height, 2 * n : 2 * n + width]) for n in range(24)]
    digests = {
        hashlib.sha256(write(tmp_path / f"{run}.mp4", moving, rate=Fraction(24)).read_bytes()).hexdigest()
        for run in range(4)
    }
    assert len(digests) == 1


def test_same_input_gives_same_bytes(tmp_path, frames, make_video, tone):
    driver = make_video("driver.mp4", 60, rate=NTSC, audio=tone(2.0, 48000, 1.0))
    digests = {
        hashlib.sha256(
            write(tmp_path / name, frames, audio_from=driver, metadata={"comment": "x"}).read_bytes()
        ).hexdigest()
        for name in ("one.mp4", "two.mp4")
    }
    assert len(digests) == 1


def test_quality_is_high(tmp_path, real_media):
    original = [frame for _, frame in zip(range(20), read_frames(real_media / "vid_3s.mp4"), strict=False)]
    path = write(tmp_path / "clip.mp4", original, Fraction(30))
    for before, after in zip(original, read_frames(path), strict=True):
        error = np.mean((before.astype(np.float64) - after) ** 2)
        assert 10 * np.log10(255**2 / error) > 38


def test_tags_are_written(tmp_path, frames):
    path = write(tmp_path / "standard.mp4", frames[:3], metadata={"comment": '{"seed": 42}', "title": "Tänzer"})
    free = write(tmp_path / "free.mp4", frames[:3], metadata={"request_id": "r-1", "comment": "c"})
    with av.open(path) as container:
        assert container.metadata["comment"] == '{"seed": 42}'
        assert container.metadata["title"] == "Tänzer"
        assert "creation_time" not in container.metadata
    with av.open(free) as container:
        assert container.metadata["request_id"] == "r-1"
        assert container.metadata["comment"] == "c"


def test_odd_sizes_repeat_their_edge(tmp_path):
    frame = np.full((33, 47, 3), 60, np.uint8)
    frame[:, -1] = 250
    path = write(tmp_path / "clip.mp4", [frame] * 3)
    read = next(read_frames(path))
    assert read.shape == (34, 48, 3)
    assert read[:, -1].min() > 200


@pytest.mark.parametrize(
    ("codec", "container"), [("aac", "mp4"), ("libmp3lame", "mp4"), ("libopus", "mkv"), ("flac", "mkv")]
)
@pytest.mark.parametrize("first_frame", [0, 15])
def test_sound_is_copied_trimmed_and_in_step(
    tmp_path, frames, make_video, tone, codec, container, first_frame, number_of
):
    """The driver's picture starts ``first_frame`` frames after its sound; its click sounds with its frame 30."""
    sound = tone(float((90 + first_frame) / NTSC), 48000, float((30 + first_frame) / NTSC))
    driver = make_video(
        f"driver.{container}",
        90,
        rate=NTSC,
        pts=[index + first_frame for index in range(90)],
        audio=sound,
        audio_codec=codec,
    )
    path = write(tmp_path / "clip.mp4", frames, audio_from=driver)
    copied, original = audio_packets(path), audio_packets(driver)
    first = original.index(copied[0])
    assert copied == original[first : first + len(copied)]
    assert first == 0 or first_frame > 0
    clicked, end = click_time(path)
    assert clicked == pytest.approx(float(30 / NTSC), abs=0.003)
    assert 0 <= end - float(60 / NTSC) < 0.11
    assert probe_video(path).audio.codec == probe_video(driver).audio.codec


def test_sound_shorter_than_the_clip_is_kept_whole(tmp_path, frames, make_video, tone):
    driver = make_video("driver.mp4", 25, audio=tone(1.0, 48000, 0.5))
    path = write(tmp_path / "clip.mp4", frames, audio_from=driver)
    assert audio_packets(path) == audio_packets(driver)
    assert probe_video(path).frame_count == 60


@pytest.mark.parametrize(("codec", "container"), [("pcm_s16le", "mov"), ("ac3", "mp4")])
def test_sound_that_browsers_cannot_play_becomes_aac_and_the_log_says_so(
    tmp_path, frames, make_video, tone, caplog, codec, container
):
    driver = make_video(
        f"driver.{container}", 90, rate=NTSC, audio=tone(3.0, 48000, float(30 / NTSC)), audio_codec=codec
    )
    with caplog.at_level(logging.WARNING, "libs.media"):
        path = write(tmp_path / "clip.mp4", frames, audio_from=driver)
    assert f"sound in {codec}" in caplog.text
    assert "AAC" in caplog.text
    assert probe_video(path).audio.codec == "aac"
    clicked, end = click_time(path)
    assert clicked == pytest.approx(float(30 / NTSC), abs=0.012)  # AC-3's own delay of 256 samples is not compensated
    assert end - float(60 / NTSC) < 0.05


@pytest.mark.parametrize("rate", [192_000, 22_255])
def test_sound_of_a_rate_that_aac_does_not_have_is_resampled(tmp_path, frames, make_video, tone, rate):
    driver = make_video(
        "driver.mov", 60, rate=NTSC, audio=tone(2.0, rate, 1.0), audio_rate=rate, audio_codec="pcm_s16le"
    )
    path = write(tmp_path / "clip.mp4", frames, audio_from=driver)
    assert probe_video(path).audio.sample_rate == 48_000
    assert click_time(path)[0] == pytest.approx(1.0, abs=0.005)


def test_sound_that_only_begins_in_the_middle_of_a_recording_is_left_out(
    tmp_path, frames, make_video, tone, join_transport_streams
):
    noise = [np.random.default_rng(seed).integers(0, 256, (64, 96, 3), dtype=np.uint8) for seed in range(60)]
    silent = make_video("1.ts", frames=noise, options={"crf": "1", "bf": "0"}).read_bytes()
    sounding = make_video("2.ts", 20, pts=range(60, 80), audio=tone(0.8, 48000, 0.5)).read_bytes()
    driver = tmp_path / "driver.ts"
    driver.write_bytes(join_transport_streams(silent, sounding))
    assert not probe_video(driver).has_audio
    path = write(tmp_path / "clip.mp4", frames, audio_from=driver)
    assert probe_video(path).frame_count == 60


def test_a_silent_driver_is_fine_and_a_broken_one_is_not(tmp_path, frames, make_video):
    path = write(tmp_path / "clip.mp4", frames, audio_from=make_video("silent.mp4", 5))
    assert not probe_video(path).has_audio
    with pytest.raises(MediaError, match="no such file"):
        write(tmp_path / "other.mp4", frames, audio_from=tmp_path / "missing.mp4")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["clip.mp4", "silent.mp4"]


def test_an_error_in_the_body_leaves_what_was_there(tmp_path, frames):
    path = tmp_path / "clip.mp4"
    path.write_bytes(b"the clip before")
    with pytest.raises(RuntimeError, match="lost"), VideoWriter(path, 96, 64, NTSC) as writer:
        for frame in frames[:20]:
            writer.write(frame)
        assert path.read_bytes() == b"the clip before"
        raise RuntimeError("lost")
    assert [entry.name for entry in tmp_path.iterdir()] == ["clip.mp4"]
    assert path.read_bytes() == b"the clip before"


def test_an_empty_clip_is_an_error_and_leaves_nothing(tmp_path):
    with pytest.raises(MediaError, match="no frame was written"), VideoWriter(tmp_path / "clip.mp4", 96, 64, NTSC):
        pass
    assert list(tmp_path.iterdir()) == []


def test_wrong_frames_and_rates_are_refused(tmp_path, frames):
    path = tmp_path / "clip.mp4"
    with (
        pytest.raises(InputError, match=r"frame 0 is float64 \(64, 96"),
        VideoWriter(path, 96, 64, NTSC) as writer,
    ):
        writer.write(frames[0].astype(float))
    with pytest.raises(InputError, match=r"expected uint8 \(64, 96, 3\)"), VideoWriter(path, 96, 64, NTSC) as writer:
        writer.write(frames[0][:32])
    with pytest.raises(InputError, match="frame rate is 0"):
        VideoWriter(path, 96, 64, Fraction(0))
    with pytest.raises(MediaError, match="at least 16"):
        VideoWriter(path, 96, 8, NTSC)
    assert list(tmp_path.iterdir()) == []


def _grown_over_a_long_clip(path):
    """By how many bytes this process grows over the second part of a clip, while it is written and while it is read."""
    process = psutil.Process()
    frame = np.random.default_rng(0).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    with VideoWriter(path, 256, 256, NTSC) as writer:
        for index in range(750):
            if index == 200:
                before = process.memory_info().rss
            writer.write(np.roll(frame, index, axis=1))
        written = process.memory_info().rss - before
    for index, _ in enumerate(read_frames(path)):
        if index == 200:
            before = process.memory_info().rss
    return written, process.memory_info().rss - before


@pytest.mark.slow
def test_memory_stays_bounded_over_a_long_clip(tmp_path):
    """Some tens of megabytes are the encoder's and decoder's; the frames of the second part are 108 MB."""
    for grown in call_within(600, 1000, _grown_over_a_long_clip, tmp_path / "clip.mp4"):
        assert grown < 64e6
