import base64
import io
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageSequence

from libs.errors import InputError, MediaError
from libs.media.measurements import measure_frames, measure_video
from libs.media.previews.contact_sheet import contact_sheet
from libs.media.previews.data_uri import animation_data_uri, picture_data_uri, thumbnail_data_uri
from libs.media.previews.frame_selection import evenly_spaced_indices, take_indices, thin_out
from libs.media.previews.preview import animated_webp, write_comparison
from libs.media.previews.tiles import GAP
from libs.media.video.probe import probe_video
from libs.media.video.reader import read_frames


def noise(count, height=240, width=160):
    generator = np.random.default_rng(0)
    return (generator.integers(0, 256, (height, width, 3), dtype=np.uint8) for _ in range(count))


@given(st.integers(0, 500), st.integers(0, 40))
def test_evenly_spaced_indices(count, wanted):
    indices = evenly_spaced_indices(count, wanted)
    assert len(indices) == min(count, wanted) == len(set(indices))
    assert indices == sorted(indices)
    if len(indices) > 1:
        assert (indices[0], indices[-1]) == (0, count - 1)
        gaps = np.diff(indices)
        assert gaps.max() - gaps.min() <= 1
    assert list(take_indices(range(count), indices)) == indices


@given(st.integers(0, 500), st.integers(2, 40))
def test_thinning_is_even_and_bounded(count, maximum):
    kept, stride = thin_out(range(count), maximum)
    assert kept == list(range(0, count, stride))
    assert len(kept) <= maximum
    assert stride == 1 or 2 * len(kept) >= maximum


def test_taking_reads_no_further_than_needed():
    source = iter(range(100))
    assert list(take_indices(source, [0, 4])) == [0, 4]
    assert next(source) == 5


def test_contact_sheet_shows_the_same_moments_in_every_row(numbered_frame):
    def video(height):
        return (numbered_frame(index, 96, height) for index in range(50))

    rows = {"driver": video(64), "clip": video(96)}
    sheet = contact_sheet(rows, 50, Fraction(25), columns=5, cell_height=64)
    tops = (22 + GAP, 22 + GAP + 64 + GAP + 22 + GAP)
    for top, width in zip(tops, (96, 64), strict=True):
        for column, index in enumerate([0, 12, 24, 37, 49]):
            left = column * (width + GAP)
            cell = sheet[top : top + 64, left : left + width]
            bars = [int(cell[8 * bit + 4, width // 4].mean() > 128) for bit in range(8)]
            assert sum(on << bit for bit, on in enumerate(bars)) == index
    assert sheet[-15:].max() > 150  # the frame numbers


def test_contact_sheet_of_a_short_row_or_nothing_is_refused(numbered_frame):
    with pytest.raises(InputError, match="'clip' ends before frame 9"):
        contact_sheet({"clip": [numbered_frame(0)] * 5}, 10, columns=2)
    with pytest.raises(InputError, match="at least one row"):
        contact_sheet({}, 10)


def test_comparison_shows_stills_and_videos_side_by_side(tmp_path, numbered_frame, number_of):
    columns = {
        "reference": numbered_frame(77),
        "pose": (numbered_frame(index) for index in range(12)),
        "clip": (numbered_frame(100 + index) for index in range(10)),
    }
    path = tmp_path / "comparison.mp4"
    assert write_comparison(path, columns, Fraction(25), height=64) == 10
    info = probe_video(path)
    assert (info.frame_count, info.frame_rate) == (10, 25)
    for index, frame in enumerate(read_frames(path)):
        tiles = [frame[26:90, left : left + 96] for left in (0, 100, 200)]
        assert [number_of(tile) for tile in tiles] == [77, index, 100 + index]


def test_comparison_without_video_or_frames_is_refused(tmp_path, numbered_frame):
    with pytest.raises(InputError, match="at least one video"):
        write_comparison(tmp_path / "c.mp4", {"reference": numbered_frame(0)}, Fraction(25))
    with pytest.raises(MediaError, match="no frames"):
        write_comparison(tmp_path / "c.mp4", {"clip": iter(())}, Fraction(25))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("limit", [200_000, 40_000, 8_000])
def test_animation_stays_below_its_limit_at_true_speed(numbered_frame, limit):
    frames = (frame for frame in noise(75))
    data = animated_webp(frames, Fraction(25), limit)
    assert len(data) <= limit
    with Image.open(io.BytesIO(data)) as animation:
        assert animation.is_animated
        total = 0
        for index in range(animation.n_frames):
            animation.seek(index)
            animation.load()
            total += animation.info["duration"]
    assert total == pytest.approx(3000, abs=700)


def test_animation_that_cannot_fit_is_an_error():
    with pytest.raises(MediaError, match="100 bytes"):
        animated_webp(noise(10), Fraction(25), 100)
    with pytest.raises(InputError, match="at least one frame"):
        animated_webp([], Fraction(25), 10_000)


@pytest.mark.parametrize("limit", [36_000, 5_000])
def test_data_uris_stay_below_their_limit(limit):
    frame = next(noise(1, 900, 600))
    thumbnail = thumbnail_data_uri(frame, limit)
    assert len(thumbnail) <= limit
    decoded = Image.open(io.BytesIO(base64.b64decode(thumbnail.removeprefix("data:image/jpeg;base64,"))))
    assert decoded.size[0] / decoded.size[1] == pytest.approx(2 / 3, rel=0.05)
    animation = animation_data_uri(noise(30), Fraction(25), limit)
    assert len(animation) <= limit
    assert Image.open(io.BytesIO(base64.b64decode(animation.removeprefix("data:image/webp;base64,")))).n_frames > 1
    with pytest.raises(MediaError, match="no thumbnail"):
        thumbnail_data_uri(frame, 50)


def test_picture_files_become_addresses_as_they_are_or_smaller(tmp_path: Path) -> None:
    (tmp_path / "moving.webp").write_bytes(animated_webp(noise(30), Fraction(25), 200_000))
    Image.fromarray(next(noise(1, 900, 600))).save(tmp_path / "still.png")
    whole = picture_data_uri(tmp_path / "moving.webp", 300_000)
    assert base64.b64decode(whole.removeprefix("data:image/webp;base64,")) == (tmp_path / "moving.webp").read_bytes()
    smaller = picture_data_uri(tmp_path / "moving.webp", 18_000)
    assert len(smaller) <= 18_000
    animation = Image.open(io.BytesIO(base64.b64decode(smaller.removeprefix("data:image/webp;base64,"))))
    milliseconds = [(frame.load(), frame.info["duration"])[1] for frame in ImageSequence.Iterator(animation)]
    assert len(milliseconds) > 1
    assert sum(milliseconds) == pytest.approx(1200, abs=350)  # at true speed still
    assert len(picture_data_uri(tmp_path / "still.png", 18_000)) <= 18_000
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(MediaError, match="no picture"):
        picture_data_uri(tmp_path / "text.png", 18_000)


def test_measurements_tell_blank_still_and_moving_apart(numbered_frame):
    red = np.zeros((64, 96, 3), np.uint8)
    red[..., 0] = 200
    assert not measure_frames([numbered_frame(5)]).is_blank
    mixed = measure_frames([red, numbered_frame(0), numbered_frame(0), numbered_frame(255)])
    assert mixed.blank_frames == (0,)
    assert not mixed.is_blank
    assert mixed.motion[1] == 0
    assert mixed.motion[2] == pytest.approx(215 / 2)
    assert measure_frames([red, red]).is_blank
    assert measure_frames([red, red]).mean_motion == 0
    assert mixed.brightness[0] == pytest.approx(200 / 3)


def test_measuring_a_file_reports_damage_instead_of_raising(tmp_path, make_video):
    whole = measure_video(make_video("whole.mp4", 20))
    assert (whole.decodes_fully, whole.frame_count) == (True, 20)
    path = make_video("cut.mp4", 20, container_options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[:-500])
    cut = measure_video(path)
    assert not cut.decodes_fully
    assert "cut off" in cut.decode_error
