"""A driver's click sounds with the clip's flash, to 10 ms, whatever codec and time stamps the driver has."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from libs.errors import MediaError
from libs.media.sound.audio_track import try_sound, why_not_copied
from libs.media.sound.sound_timeline import continuous_sound
from libs.media.video.probe import probe_video
from libs.media.video.reader import read_frames
from libs.media.video.writer import VideoWriter

RATE = 25
FLASH = 30
"""The frame that is white; the click begins with it, 1.2 s after the first frame."""


def make_driver(
    path: Path, codec="aac", sound_rate=48000, layout="stereo", pixels="mpeg4", early=0.0, late=0.0
) -> Path:
    """50 frames, one of them white, and a tone with a click; the sound begins ``early`` or ``late`` by some seconds."""
    with av.open(path, "w") as container:
        video = container.add_stream(pixels, rate=RATE)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        track = container.add_stream(codec, rate=sound_rate, layout=layout, options={"strict": "-2"})
        track.bit_rate = 128_000
        first = round(early * RATE)
        for index in range(50):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 255 if index == FLASH else 20, np.uint8))
            frame.pts, frame.time_base = first + index, Fraction(1, RATE)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        count = round((2 + early - late) * sound_rate)
        wave = 0.1 * np.sin(2 * np.pi * 440 * np.arange(count) / sound_rate)
        wave += np.random.default_rng(0).uniform(-0.02, 0.02, count)  # so that no two packets are alike
        click = round((early + FLASH / RATE - late) * sound_rate)
        wave[click : click + sound_rate // 50] = 0.9 * np.sign(np.sin(np.arange(sound_rate // 50) * 0.8 + 0.4))
        samples = np.repeat(wave[None].astype(np.float32), track.channels, axis=0)
        for at in range(0, count, 1000):
            block = np.ascontiguousarray(samples[:, at : at + 1000])
            sound = av.AudioFrame.from_ndarray(block, format="fltp", layout=layout)
            sound.sample_rate, sound.time_base = sound_rate, Fraction(1, sound_rate)
            sound.pts = round(late * sound_rate) + at
            container.mux(track.encode(sound))
        container.mux(track.encode(None))
    return path


def click_of(path: Path) -> float:
    """Seconds from the first frame to the first loud sample."""
    with av.open(path) as container:
        start = next(float(frame.time) for frame in container.decode(video=0))
    with av.open(path) as container:
        resampler = av.AudioResampler("fltp", "mono", container.streams.audio[0].sample_rate)
        for frame in container.decode(audio=0):
            time, frame.pts = float(frame.time), None
            samples = np.concatenate([part.to_ndarray()[0] for part in resampler.resample(frame)])
            loud = np.abs(samples) > 0.45
            if loud.any():
                return time + float(np.argmax(loud)) / frame.sample_rate - start
    raise AssertionError("no click")


def flash_of(path: Path) -> float:
    brightness = [frame.mean() for frame in read_frames(path)]
    return int(np.argmax(np.array(brightness) > 128)) / float(probe_video(path).frame_rate)


def clip_of(driver: Path, first_frame: int = 0) -> Path:
    """What the stage makes of a driver, from a frame on, frames as they are."""
    info = probe_video(driver)
    path = driver.parent / "clip.mp4"
    offset = first_frame / info.frame_rate
    with VideoWriter(path, info.width, info.height, info.frame_rate, audio_from=driver, audio_offset=offset) as writer:
        for frame in read_frames(driver, start=first_frame):
            writer.write(frame)
    return path


SOUNDS = [
    ("driver.avi", "libmp3lame", 11025, "stereo"),
    ("driver.mkv", "libmp3lame", 8000, "mono"),
    ("driver.avi", "pcm_s16le", 22255, "stereo"),
    ("driver.avi", "pcm_u8", 8000, "mono"),
    ("driver.avi", "adpcm_ms", 22050, "stereo"),
    ("driver.mov", "pcm_s24le", 96000, "5.1"),
    ("driver.mov", "alac", 44100, "stereo"),
    ("driver.mkv", "pcm_f32le", 48000, "quad"),
    ("driver.mkv", "vorbis", 44100, "stereo"),
    ("driver.mkv", "libopus", 48000, "stereo"),
    ("driver.mkv", "flac", 44100, "5.1"),
    ("driver.mkv", "ac3", 48000, "5.1"),
    ("driver.mkv", "eac3", 32000, "stereo"),
    ("driver.mpg", "mp2", 44100, "stereo"),
    ("driver.ts", "mp2", 48000, "mono"),
    ("driver.ts", "aac", 44100, "stereo"),
    ("driver.wmv", "wmav2", 44100, "stereo"),
    ("driver.flv", "libmp3lame", 11025, "mono"),
]


@pytest.mark.parametrize(("name", "codec", "rate", "layout"), SOUNDS, ids=str)
def test_sound_of_any_codec_and_rate_is_in_step(tmp_path, name, codec, rate, layout):
    pixels = {"driver.flv": "flv1", "driver.mpg": "mpeg1video", "driver.ts": "mpeg2video"}.get(name, "mpeg4")
    driver = make_driver(tmp_path / name, codec, rate, layout, pixels)
    try_sound(driver, Fraction(2))
    clip = clip_of(driver)
    assert probe_video(clip).audio.codec in ("aac", "mp3", "opus", "flac")
    # Of some codecs the encoder's delay is lost in the file: what a player of the driver gives is what counts.
    assert click_of(clip) - flash_of(clip) == pytest.approx(click_of(driver) - flash_of(driver), abs=0.010)
    if codec not in ("libmp3lame", "mp2", "wmav2"):
        assert click_of(clip) == pytest.approx(FLASH / RATE, abs=0.010)


@pytest.mark.parametrize(
    ("name", "codec", "early", "late"),
    [
        ("driver.mp4", "aac", 0.48, 0.0),
        ("driver.mkv", "aac", 0.0, 0.5),
        ("driver.mp4", "ac3", 0.0, 0.5),
        ("driver.mkv", "ac3", 0.48, 0.0),
        ("driver.mp4", "aac", 0.0, 0.013),
        ("driver.mkv", "aac", 0.04, 0.0),
        ("driver.mp4", "ac3", 0.04, 0.0),
        ("driver.mkv", "ac3", 0.0, 0.013),
    ],
)
def test_sound_that_begins_before_or_after_the_picture_is_in_step(tmp_path, name, codec, early, late):
    clip = clip_of(make_driver(tmp_path / name, codec, early=early, late=late))
    assert click_of(clip) == pytest.approx(FLASH / RATE, abs=0.010)
    assert flash_of(clip) == pytest.approx(FLASH / RATE, abs=0.001)


@pytest.mark.parametrize(("name", "codec"), [("driver.mp4", "aac"), ("driver.mkv", "ac3"), ("driver.mkv", "libopus")])
@pytest.mark.parametrize(("early", "late"), [(0.0, 0.0), (0.48, 0.0), (0.0, 0.5)])
def test_sound_of_a_part_is_in_step(tmp_path, name, codec, early, late):
    clip = clip_of(make_driver(tmp_path / name, codec, early=early, late=late), first_frame=17)
    expected = (FLASH - 17) / RATE
    assert flash_of(clip) == pytest.approx(expected, abs=0.001)
    assert click_of(clip) == pytest.approx(expected, abs=0.010)
    with av.open(clip) as container:
        seconds = [float(frame.time) for frame in container.decode(audio=0)]
    assert -0.05 < min(seconds) < 0.05
    assert max(seconds) < (50 - 17) / RATE


@pytest.mark.parametrize(("begins", "ends"), [(2.5, 3.0), (0.0, 0.0)], ids=["after the film", "empty"])
def test_sound_outside_the_frames_counts_as_no_sound(tmp_path, begins, ends):
    driver = tmp_path / "driver.mkv"
    with av.open(driver, "w") as container:
        video = container.add_stream("mpeg4", rate=RATE)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        track = container.add_stream("aac", rate=48000, layout="mono")
        for index in range(50):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 4 * index, np.uint8))
            frame.pts, frame.time_base = index, Fraction(1, RATE)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if ends > begins:
            sound = av.AudioFrame.from_ndarray(
                np.ones((1, round((ends - begins) * 48000)), np.float32) * 0.1, format="fltp", layout="mono"
            )
            sound.sample_rate, sound.time_base, sound.pts = 48000, Fraction(1, 48000), round(begins * 48000)
            container.mux(track.encode(sound))
            container.mux(track.encode(None))
    info = probe_video(driver)
    assert not info.has_audio
    assert info.notes == ("its sound track is empty, or lies before or after the film; the clip has no sound",)
    assert not probe_video(clip_of(driver)).has_audio, "what the check of the clip compares"


def restamp(path: Path, change) -> None:
    """Change time stamps of a Matroska file's sound: ``change`` gets and gives a list of milliseconds."""
    with av.open(path) as container:
        packets = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    data = bytearray(path.read_bytes())
    places = [data.index(packet) - 3 for packet in packets]
    stamps = [int.from_bytes(data[place : place + 2], "big", signed=True) for place in places]
    for place, stamp in zip(places, change(stamps), strict=True):
        data[place : place + 2] = stamp.to_bytes(2, "big", signed=True)
    path.write_bytes(data)


def _copied_stamp(stamps, to, of):
    return [*stamps[:to], stamps[of], *stamps[to + 1 :]]


def _swapped(stamps):
    return [*stamps[:20], stamps[21], stamps[20], *stamps[22:]]


BROKEN_STAMPS = {
    "one doubled": lambda stamps: _copied_stamp(stamps, 20, 19),
    "one doubled at the click": lambda stamps: _copied_stamp(stamps, 57, 56),
    "the first doubled": lambda stamps: _copied_stamp(stamps, 1, 0),
    "two doubled": lambda stamps: _copied_stamp(_copied_stamp(stamps, 20, 19), 40, 39),
    "one far back": lambda stamps: _copied_stamp(stamps, 30, 3),
    "two exchanged": _swapped,
}


@pytest.mark.parametrize(
    ("change", "codec"),
    [*((name, "aac") for name in BROKEN_STAMPS), ("one doubled", "libopus"), ("two exchanged", "libopus")],
)
def test_broken_time_stamps_of_sound_are_mended(tmp_path, change, codec):
    driver = make_driver(tmp_path / "driver.mkv", codec)
    assert why_not_copied(driver) is None
    restamp(driver, BROKEN_STAMPS[change])
    assert "doubled, missing or out of order" in try_sound(driver, Fraction(2))
    clip = clip_of(driver)
    assert click_of(clip) == pytest.approx(FLASH / RATE, abs=0.010)
    with av.open(clip) as container:
        loudness = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    quiet = np.abs(loudness[: 96000 // 200 * 200].reshape(-1, 200)).max(axis=1) < 0.02
    assert quiet[5:-20].sum() == 0, "no hole where only the stamp was wrong"


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le", "vorbis"])
def test_packets_lost_from_the_sound_become_silence(tmp_path, codec):
    whole = make_driver(tmp_path / "whole.mkv", codec)
    driver = tmp_path / "driver.mkv"
    with av.open(whole) as source, av.open(driver, "w") as target:
        streams = {stream.index: target.add_stream_from_template(stream) for stream in source.streams}
        for packet in source.demux():
            if not packet.size or packet.dts is None:
                continue
            if packet.stream.type == "audio" and 0.4 < packet.pts * packet.time_base < 0.6:
                continue
            packet.stream = streams[packet.stream_index]
            target.mux(packet)
    clip = clip_of(driver)
    assert click_of(clip) == pytest.approx(FLASH / RATE, abs=0.010)
    assert probe_video(clip).audio.codec == "aac"


def test_sound_that_is_no_number_or_too_loud_is_converted(tmp_path):
    driver = make_driver(tmp_path / "driver.mkv", "pcm_f32le", layout="mono")
    data = bytearray(driver.read_bytes())
    with av.open(driver) as container:
        packet = [bytes(packet) for packet in container.demux(audio=0) if packet.size][3]
    at = data.index(packet)
    data[at : at + 8] = np.array([np.nan, np.inf], "<f4").tobytes()
    driver.write_bytes(data)
    assert "pcm_f32le" in try_sound(driver, Fraction(2))
    assert clip_of(driver).is_file()


def test_damaged_packets_become_silence_and_unreadable_sound_is_refused(tmp_path):
    driver = make_driver(tmp_path / "driver.mkv", "ac3")
    with av.open(driver) as container:
        packets = [bytes(packet) for packet in container.demux(audio=0) if packet.size]
    data = driver.read_bytes()
    driver.write_bytes(data.replace(packets[5], bytes(len(packets[5]))))
    assert click_of(clip_of(driver)) == pytest.approx(FLASH / RATE, abs=0.012)
    for packet in packets:
        data = data.replace(packet, b"\xff" * len(packet))
    driver.write_bytes(data)
    with pytest.raises(MediaError, match=r"driver\.mkv: its sound cannot be decoded; .*keep_audio: false"):
        try_sound(driver, Fraction(2))


def test_pieces_are_laid_from_time_zero_on():
    rate = 1000
    ones = np.ones((1, 100), np.float32)
    sound = np.concatenate(
        list(continuous_sound([(-0.05, ones), (0.05, ones), (0.65, ones), (0.75, ones)], rate)), axis=1
    )[0]
    assert sound.size == 850
    assert not sound[150:650].any()
    assert sound[:150].all()
    assert sound[650:].all()
    late = np.concatenate(list(continuous_sound([(1.5, ones), (None, ones)], rate)), axis=1)[0]
    assert (late.size, int(np.argmax(late))) == (1700, 1500)


def test_silence_before_sound_that_begins_in_an_hour_is_made_a_second_at_a_time():
    pieces = continuous_sound([(3600.0, np.ones((2, 100), np.float32))], 48_000)
    assert [next(pieces).shape for _ in range(3)] == [(2, 48_000)] * 3
