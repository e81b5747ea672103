import random
from fractions import Fraction

import av
import numpy as np
import pytest

from libs.errors import InputError, MediaError
from libs.media import limits
from libs.media.video.colour import matrix_of
from libs.media.video.probe import probe_video
from libs.media.video.reader import read_frames

NTSC = Fraction(30000, 1001)


def numbers(path, number_of, interval=1, start=0, stop=None):
    return [number_of(frame) for frame in read_frames(path, interval, start, stop)]


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.mov", "clip.avi", "clip.ts"])
def test_exact_rate_count_and_order_in_every_container(make_video, number_of, name):
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    path = make_video(name, 45, rate=NTSC, codec=codec)
    info = probe_video(path)
    assert (info.width, info.height) == (96, 64)
    assert info.frame_rate == NTSC
    assert info.frame_count == 45
    assert info.duration == 45 / NTSC
    assert not info.variable_frame_rate
    assert info.rotation == 0
    assert numbers(path, number_of) == list(range(45))


def test_part_of_a_video_is_exact_to_the_frame(make_video, number_of, numbered_frame):
    constant = make_video("constant.mp4", 45, rate=NTSC)
    kept = [index for index in range(45) if index not in (9, 10, 30)]
    variable = make_video(
        "variable.mkv",
        rate=25,
        frames=[numbered_frame(index) for index in kept],
        pts=[index * 40 for index in kept],
        time_base=Fraction(1, 1000),
    )
    for path in (constant, variable):
        whole = numbers(path, number_of)
        assert len(whole) == 45
        for interval, start, stop in (
            (1, 9, 31),
            (1, 10, None),
            (3, 8, 40),
            (4, 44, 45),
            (2, 0, 1),
            (1, 7, 7),
            (1, 45, 60),
        ):
            assert numbers(path, number_of, interval, start, stop) == whole[start:stop:interval]
    with pytest.raises(InputError, match="the first frame is -1"):
        read_frames(constant, 1, -1)


@pytest.mark.parametrize("rate", [24, 25, 30, 60, Fraction(24000, 1001), Fraction(60000, 1001), Fraction(25, 2)])
def test_rates_stay_exact_even_where_times_are_rounded_to_milliseconds(make_video, rate):
    for name in ("clip.mp4", "clip.mkv"):
        assert probe_video(make_video(name, 40, rate=rate)).frame_rate == rate


GRID_RATES = (24, Fraction(24000, 1001), 30, Fraction(48000, 1001), 50, 60, 120, Fraction(120000, 1001))


@pytest.mark.parametrize("rate", GRID_RATES, ids=str)
@pytest.mark.parametrize(("name", "codec"), [("clip.webm", "libvpx"), ("clip.mkv", "mpeg4"), ("clip.flv", "flv1")])
def test_missing_frames_of_a_grid_in_whole_milliseconds_are_filled_at_the_declared_rate(
    make_video, number_of, numbered_frame, name, codec, rate
):
    kept = [index for index in range(40) if index not in (9, 17, 18)]
    path = make_video(
        name,
        rate=rate,
        codec=codec,
        frames=[numbered_frame(index) for index in kept],
        pts=[round(index * 1000 / Fraction(rate)) for index in kept],
        time_base=Fraction(1, 1000),
        options={"deadline": "realtime"} if codec == "libvpx" else {},
    )
    info = probe_video(path)
    assert (info.frame_rate, info.frame_count, info.variable_frame_rate) == (rate, 40, True)
    assert numbers(path, number_of) == [max(shown for shown in kept if shown <= index) for index in range(40)]


@pytest.mark.parametrize("rate", [24, Fraction(30000, 1001), 60])
def test_a_stream_without_time_stamps_has_the_rate_of_its_headers(make_video, rate):
    info = probe_video(make_video("camera.h264", 20, rate=rate))
    assert (info.frame_rate, info.frame_count) == (rate, 20)


def test_a_single_frame_is_a_video(make_video):
    info = probe_video(make_video(count=1, rate=NTSC))
    assert (info.frame_count, info.frame_rate) == (1, NTSC)


def test_interval_keeps_every_kth_frame(make_video, number_of):
    path = make_video(count=11)
    assert numbers(path, number_of, 3) == [0, 3, 6, 9]
    assert numbers(path, number_of, 50) == [0]
    with pytest.raises(InputError, match="interval is 0"):
        read_frames(path, 0)


# The corner colours of an upright picture 96 x 64, and how a phone would store it for each rotation.
@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("counter_clockwise", [0, 90, -90, 180])
def test_rotated_and_mirrored_phone_video_comes_out_upright(make_video, counter_clockwise, mirrored):
    upright = np.zeros((64, 96, 3), np.uint8)
    upright[:32, :48], upright[:32, 48:], upright[32:, :48] = (220, 30, 30), (30, 220, 30), (30, 30, 220)
    # Stored so that mirroring, then turning counter-clockwise, gives the upright picture.
    stored = np.rot90(upright, -counter_clockwise // 90)
    if mirrored:
        stored = stored[:, ::-1] if counter_clockwise in (0, 180) else stored[::-1]
    path = make_video(frames=[stored] * 4, rotation=counter_clockwise, mirrored=mirrored)
    info = probe_video(path)
    assert (info.width, info.height) == (96, 64)
    if not mirrored:
        assert info.rotation == -counter_clockwise % 360
    for frame in read_frames(path):
        assert frame.shape == (64, 96, 3)
        assert frame.flags.c_contiguous
        for y, x in ((16, 24), (16, 72), (48, 24), (48, 72)):
            assert np.abs(frame[y, x].astype(int) - upright[y, x]).max() < 12


def test_odd_sizes_are_read_as_they_are(make_video):
    path = make_video(frames=[np.full((53, 71, 3), 90, np.uint8)] * 3, pixel_format="yuv444p")
    assert (probe_video(path).width, probe_video(path).height) == (71, 53)
    assert next(read_frames(path)).shape == (53, 71, 3)


def test_wide_pixels_become_square(make_video):
    path = make_video(count=3, pixel_aspect=Fraction(4, 3))
    assert (probe_video(path).width, probe_video(path).height) == (128, 64)
    assert next(read_frames(path)).shape == (64, 128, 3)


def test_a_path_may_be_text(make_video):
    path = str(make_video(count=2))
    assert probe_video(path).frame_count == len(list(read_frames(path))) == 2


@pytest.mark.parametrize("matrix", ["601", "709"])
def test_the_tagged_colour_matrix_is_used(make_video, matrix):
    colours = [(200, 30, 40), (20, 180, 60), (30, 60, 210), (128, 128, 128)]
    for colour in colours:
        path = make_video(frames=[np.full((64, 64, 3), colour, np.uint8)] * 2, matrix=matrix)
        assert np.abs(next(read_frames(path)).astype(int) - colour).max() <= 3


@pytest.mark.parametrize(("side", "matrix"), [(480, "601"), (1280, "709")])
def test_untagged_video_is_taken_for_601_when_small_and_709_when_large(make_video, monkeypatch, side, matrix):
    colour = (30, 180, 40)
    path = make_video(frames=[np.full((64, side, 3), colour, np.uint8)] * 2, matrix=matrix, options={"colorspace": "2"})
    stored = path.read_bytes()
    tag = b"colrnclx"
    if tag in stored:
        at = stored.index(tag) + len(tag) + 4
        path.write_bytes(stored[:at] + b"\x00\x02" + stored[at + 2 :])
    assert np.abs(next(read_frames(path)).astype(int) - colour).max() <= 3


def test_variable_rate_is_laid_on_a_constant_grid_without_changing_the_timing(make_video, number_of):
    # 30 frames per second, but nothing was recorded between 0.2 and 0.5 s, and two frames came within one period.
    milliseconds = [0, 33, 67, 100, 133, 167, 200, 500, 533, 567, 575, 600, 633, 667, 700]
    for name in ("clip.mkv", "clip.mp4"):
        path = make_video(name, len(milliseconds), rate=30, pts=milliseconds, time_base=Fraction(1, 1000))
        info = probe_video(path)
        assert info.variable_frame_rate
        assert info.frame_rate == 30
        shown = numbers(path, number_of)
        assert len(shown) == info.frame_count
        for index, number in enumerate(shown):
            seconds = index / 30
            latest = max(k for k, time in enumerate(milliseconds) if time / 1000 <= seconds + 1 / 60 + 1e-3)
            assert abs(number - latest) <= (1 if 0.55 < seconds < 0.61 else 0), (index, number, latest)
        assert shown[7:15] == [6] * 8
        assert shown[15] == 7


def test_a_jittering_camera_clock_counts_as_constant(make_video, number_of):
    generator = random.Random(5)
    microseconds = [round(index * 1e6 / 30 + generator.uniform(-6000, 6000)) for index in range(60)]
    path = make_video("clip.mp4", 60, rate=30, pts=microseconds, time_base=Fraction(1, 1_000_000))
    info = probe_video(path)
    assert not info.variable_frame_rate
    assert info.frame_rate in (30, NTSC)
    assert numbers(path, number_of) == list(range(60))


def test_audio_is_described(make_video, tone):
    info = probe_video(make_video(count=25, audio=tone(1.0, 44100, 0.5), audio_rate=44100))
    assert info.has_audio
    assert (info.audio.codec, info.audio.sample_rate, info.audio.channels) == ("aac", 44100, 2)
    assert not probe_video(make_video("silent.mp4", 5)).has_audio


@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.avi", "fragmented.mp4"])
@pytest.mark.parametrize("part", [0.05, 0.4, 0.9])
def test_a_cut_off_file_is_refused_before_anything_is_used(make_video, name, part):
    noise = np.random.default_rng(0)
    frames = [noise.integers(0, 256, (64, 96, 3), dtype=np.uint8) for _ in range(40)]
    flags = {"fragmented.mp4": "frag_keyframe+empty_moov", "clip.mp4": "faststart"}.get(name)
    codec = "mpeg4" if name.endswith("avi") else "libx264"
    path = make_video(
        name, frames=frames, codec=codec, options={"g": "8"}, container_options={"movflags": flags} if flags else None
    )
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])
    with pytest.raises(MediaError, match=r"cut off|damaged|no frames|not a readable") as refusal:
        probe_video(path)
    assert str(path) in str(refusal.value)
    with pytest.raises(MediaError):
        list(read_frames(path))


@pytest.mark.parametrize("start", [4, 100])
@pytest.mark.parametrize("name", ["clip.mp4", "clip.mkv", "clip.ts", "clip.flv"])
def test_a_whole_file_whose_time_begins_late_is_not_taken_for_cut_off(make_video, number_of, tone, name, start):
    pts = [start * 25 + index for index in range(30)]
    path = make_video(name, 30, pts=pts, options={"bf": "0"})
    assert probe_video(path).frame_count == 30
    assert numbers(path, number_of) == list(range(30))


@pytest.mark.parametrize("name", ["clip.avi", "clip.mkv", "clip.mp4"])
def test_sound_that_begins_after_the_picture_does_not_count_as_cut_off(make_video, number_of, tone, name):
    path = make_video(name, 30, codec="mpeg4", audio=tone(1.2, 48000, 0.5), audio_start=4)
    assert numbers(path, number_of) == list(range(30))


def test_a_transport_stream_with_rare_frames_is_read_completely(make_video, number_of):
    path = make_video("clip.ts", 4, pts=[0, 2000, 4000, 7000], time_base=Fraction(1, 1000))
    assert numbers(path, number_of) == [0, 1, 2, 3]


@pytest.mark.parametrize(("name", "hours"), [("clip.mp4", 5), ("clip.mkv", 300)])
def test_a_pause_that_would_fill_the_clip_is_refused_at_once(make_video, name, hours):
    pts = [*range(0, 400, 40), *range(hours * 3_600_000, hours * 3_600_000 + 400, 40)]
    path = make_video(name, 20, pts=pts, time_base=Fraction(1, 1000))
    with pytest.raises(MediaError, match=rf"spread over {hours * 3600} s, more than 216000 frames"):
        probe_video(path)
    with pytest.raises(MediaError, match="spread over"):
        next(read_frames(path))


def test_recordings_one_behind_the_other_do_not_lose_the_second(make_video, join_transport_streams):
    path = make_video("both.ts", 1)
    path.write_bytes(join_transport_streams(make_video("1.ts", 60).read_bytes(), make_video("2.ts", 30).read_bytes()))
    with pytest.raises(MediaError, match=r"both\.ts: its clock goes back from 2\.\d+ s to 0\.\d+ s at frame \d+"):
        probe_video(path)


def test_an_mp4_without_its_index_is_refused(make_video):
    path = make_video(count=30)
    whole = path.read_bytes()
    path.write_bytes(whole[: whole.rindex(b"moov") - 4])
    with pytest.raises(MediaError, match="cut off before its index"):
        probe_video(path)


def test_damaged_data_in_the_middle_is_refused(make_video):
    noise = np.random.default_rng(0)
    frames = [noise.integers(0, 256, (64, 96, 3), dtype=np.uint8) for _ in range(30)]
    path = make_video(frames=frames, options={"g": "10"}, container_options={"movflags": "faststart"})
    whole = bytearray(path.read_bytes())
    middle = len(whole) // 2
    whole[middle : middle + 6000] = bytes(noise.integers(0, 256, 6000, dtype=np.uint8))
    path.write_bytes(whole)
    with pytest.raises(MediaError, match=r"damaged|decoded"):
        probe_video(path)


def test_other_files_are_refused_with_a_message_that_names_them(tmp_path, make_video, tone):
    missing = tmp_path / "missing.mp4"
    with pytest.raises(MediaError, match=r"missing\.mp4: no such file"):
        probe_video(missing)
    (tmp_path / "empty.mp4").touch()
    with pytest.raises(MediaError, match="empty"):
        probe_video(tmp_path / "empty.mp4")
    (tmp_path / "text.mp4").write_text("not a video" * 500)
    with pytest.raises(MediaError, match="not a readable video: it is a text file; expected a complete mp4"):
        probe_video(tmp_path / "text.mp4")
    # A play list must not make the server open what it names.
    secret = make_video("secret.ts", 5)
    (tmp_path / "list.mp4").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{secret}\n#EXT-X-ENDLIST\n")
    with pytest.raises(MediaError, match="not a readable video"):
        probe_video(tmp_path / "list.mp4")


def test_sound_without_pictures_is_refused(tmp_path, tone):
    import av

    path = tmp_path / "sound.mp4"
    with av.open(path, "w") as container:
        track = container.add_stream("aac", rate=48000, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(0.5, 48000, 0.1)[None], format="s16", layout="mono")
        frame.sample_rate = 48000
        for part in av.AudioResampler(format=track.format, layout="mono", rate=48000).resample(frame):
            container.mux(track.encode(part))
        container.mux(track.encode(None))
    with pytest.raises(MediaError, match="no video stream"):
        probe_video(path)


def test_sizes_out_of_range_are_refused(make_video, monkeypatch):
    with pytest.raises(MediaError, match="at least 16 pixels"):
        probe_video(make_video("small.mp4", frames=[np.zeros((12, 64, 3), np.uint8)] * 2))
    path = make_video("large.mp4", 2)
    monkeypatch.setattr("libs.media.video.video_file.MAXIMUM_FRAME_PIXELS", 1000)
    with pytest.raises(MediaError, match="96 x 64 pixels"):
        probe_video(path)
    with pytest.raises(MediaError, match="16384"):
        limits.check_size("the clip", 20_000, 64, limits.MAXIMUM_FRAME_PIXELS)


def test_too_many_frames_are_refused_before_decoding(make_video, monkeypatch):
    monkeypatch.setattr("libs.media.video.video_file.MAXIMUM_FRAME_COUNT", 10)
    with pytest.raises(MediaError, match="more than 10 frames"):
        probe_video(make_video(count=11))


def test_real_videos(real_media):
    expected = {"vid_3s.mp4": (576, 1024, 30, 90), "douyinvid5_v2_3s.mp4": (418, 740, 24, 72)}
    for name, (width, height, rate, count) in expected.items():
        info = probe_video(real_media / name)
        assert (info.width, info.height, info.frame_rate, info.frame_count) == (width, height, rate, count)
        assert sum(frame.shape == (height, width, 3) for frame in read_frames(real_media / name)) == count


@pytest.mark.parametrize(
    ("width", "height", "matrix"),
    [(1024, 576, "ITU601"), (1024, 578, "ITU709"), (578, 1024, "ITU709"), (1278, 400, "ITU601"), (1280, 400, "ITU709")],
)
def test_untagged_video_is_taken_for_bt_709_from_high_definition_on(width: int, height: int, matrix: str) -> None:
    assert matrix_of(av.VideoFrame(width, height, "yuv420p")).name == matrix
