"""What is written down of a driving video, and which tracks it shares, depends on how its pixels are read."""

import hashlib
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest

from libs.errors import MediaError
from libs.stages.poses.pose_conditioning import reference_caption
from libs.stages.poses.pose_tracks import sources_of
from libs.stages.request.request_media import MEDIA_FILE, RequestMedia

ORDINARY = RequestMedia(Path("folder"), "a.png", 240, 320, "b.mp4", 480, 640, Fraction(25), 6, 2, has_audio=False)
DIGESTS = {"a.png": "a", "b.mp4": "b"}


def test_the_description_of_an_ordinary_video_is_what_it_always_was(tmp_path):
    described = ORDINARY.describe()
    assert list(described) == [
        *("reference_file", "reference_width", "reference_height", "driver_file", "driver_width", "driver_height"),
        *("frame_rate", "frame_count", "frame_interval", "has_audio"),
    ]
    (tmp_path / MEDIA_FILE).write_text(json.dumps(described))
    assert RequestMedia.load(tmp_path) == replace(ORDINARY, folder=tmp_path)
    assert ORDINARY.driver_conversion == ""


@pytest.mark.parametrize(
    ("changed", "conversion"),
    [
        ({"driver_interlaced": True}, "deinterlaced"),
        ({"driver_high_dynamic_range": "HLG"}, "HLG to BT.709"),
        ({"driver_interlaced": True, "driver_high_dynamic_range": "PQ"}, "deinterlaced, PQ to BT.709"),
    ],
)
def test_what_was_done_to_the_pixels_is_written_down_and_makes_other_tracks(tmp_path, changed, conversion):
    media = replace(ORDINARY, **changed)
    (tmp_path / MEDIA_FILE).write_text(json.dumps(media.describe()))
    assert RequestMedia.load(tmp_path) == replace(media, folder=tmp_path)
    assert media.driver_conversion == conversion
    before, after = sources_of(ORDINARY, DIGESTS, "n", "2"), sources_of(media, DIGESTS, "n", "2")
    assert before.driver.code == "2"
    assert after.driver.code == f"2, {conversion}"
    assert after.reference == before.reference


def test_the_clip_takes_the_last_frame_of_an_uneven_count_and_lasts_as_long_as_its_frames():
    media = replace(ORDINARY, frame_count=7)
    assert (media.used_frame_count, media.output_frame_rate) == (4, Fraction(25, 2))
    assert media.output_duration == Fraction(8, 25)


def test_part_of_a_driver_is_written_down_and_shares_the_tracks_of_the_whole(tmp_path):
    media = replace(ORDINARY, frame_count=20, first_frame=4, part_frame_count=7)
    (tmp_path / MEDIA_FILE).write_text(json.dumps(media.describe()))
    assert RequestMedia.load(tmp_path) == replace(media, folder=tmp_path)
    assert list(media.used_frames) == [4, 6, 8, 10]
    assert (media.used_frame_count, media.start_seconds) == (4, Fraction(4, 25))
    whole = sources_of(replace(ORDINARY, frame_count=20), DIGESTS, "n", "2").driver
    assert sources_of(media, DIGESTS, "n", "2").driver == whole
    odd = sources_of(replace(media, first_frame=5), DIGESTS, "n", "2").driver
    assert odd.key != whole.key
    assert odd.first_frame == 1


def test_the_key_of_a_whole_drivers_track_is_what_it_always_was():
    source = sources_of(ORDINARY, DIGESTS, "n", "2").driver
    fields = {"content": "b", "width": 240, "height": 320, "frame_interval": 2, "networks": "n", "code": "2"}
    assert source.key == hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


@pytest.mark.parametrize("text", [None, "{", "{}", "[]", '{"frame_rate": "25", "other": 1}'])
def test_a_damaged_description_is_named(tmp_path, text):
    if text is not None:
        (tmp_path / MEDIA_FILE).write_text(text)
    with pytest.raises(MediaError, match="make it again"):
        RequestMedia.load(tmp_path)


def test_a_transparent_reference_is_recorded_captioned_and_tracked_separately(tmp_path):
    media = replace(ORDINARY, reference_transparent=True, reference_notes=("transparent parts …",))
    assert media.describe() == ORDINARY.describe() | {"reference_transparent": True}
    (tmp_path / MEDIA_FILE).write_text(json.dumps(media.describe()))
    assert RequestMedia.load(tmp_path) == replace(media, folder=tmp_path, reference_notes=())
    before, after = sources_of(ORDINARY, DIGESTS, "n", "2"), sources_of(media, DIGESTS, "n", "2")
    assert after.reference.code != before.reference.code == "2"
    assert after.driver == before.driver
    assert (reference_caption(media), reference_caption(ORDINARY)) == ("reference, over grey", "reference")
