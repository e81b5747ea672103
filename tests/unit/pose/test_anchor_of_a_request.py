"""Which frame of the driver a request compares with its picture, above all where nobody is there at first."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from libs.errors import PoseError
from libs.media.pictures.image import write_png
from libs.media.video.writer import VideoWriter
from libs.pose.fitting.anchor import clear_frames
from libs.stages.animation_files import DRIVER_TRACK, REFERENCE_TRACK
from libs.stages.poses.pose_conditioning import RequestedPoseOptions, condition_poses
from libs.stages.request.request_media import RequestMedia


def _requested(anchor="first", mode="auto", align="auto"):
    return RequestedPoseOptions(
        model="sandbox", mode=mode, align=align, face="faded", head="faded", size=None, anchor=anchor
    )


def _entering_late(figure, frames=6, empty=2, score=0.05):
    """Nobody in the first frames: key-points anywhere, hardly sure, as the pose network gives them."""
    driver = figure(frames=frames, sway=0.02)
    body = driver.body.copy()
    body[:empty] = np.random.default_rng(0).uniform(0, 1, (empty, 20, 3))
    body[:empty, :, 2] = score
    return replace(driver, body=body)


def test_the_first_frame_counts_where_it_shows_the_figure(figure):
    assert clear_frames(figure(frames=3).body).tolist() == [0, 1, 2]
    assert _requested().anchor_frame(figure(), figure(frames=3)) == 0


def test_frames_without_the_figure_are_no_anchors(figure):
    driver = _entering_late(figure)
    assert clear_frames(driver.body).tolist() == [2, 3, 4, 5]
    assert _requested().anchor_frame(figure(), driver) == 2
    assert _requested("auto").anchor_frame(figure(), driver) >= 2
    assert [_requested(frame).anchor_frame(figure(), driver) for frame in (0, 4)] == [0, 4], "a number is that frame"


def test_half_a_figure_at_the_edge_is_no_anchor_unless_there_is_nothing_better(figure):
    driver = figure(frames=3)
    driver.body[:2, :, 0] -= 0.5  # the right shoulder is at 0.42
    assert clear_frames(driver.body).tolist() == [2]
    driver.body[2, :, 0] -= 0.5
    assert clear_frames(driver.body).tolist() == [0, 1, 2]
    driver.body[..., 2] = 0.1
    assert clear_frames(driver.body).tolist() == [0, 1, 2]


@pytest.mark.parametrize(("mode", "align"), [("auto", "auto"), ("ref", "yes"), ("pose", "no")])
def test_somebody_who_enters_late_is_compared_when_there(figure, picture, tmp_path, mode, align):
    picture = np.repeat(np.repeat(picture[::8, ::8], 8, axis=0), 8, axis=1)
    write_png(tmp_path / "reference.png", picture)
    with VideoWriter(tmp_path / "driver.mp4", 240, 320, Fraction(25)) as writer:
        for _ in range(6):
            writer.write(picture)
    media = RequestMedia(
        tmp_path, "reference.png", 240, 320, "driver.mp4", 240, 320, Fraction(25), 6, 1, has_audio=False
    )
    results = []
    for name, driver in (("late", _entering_late(figure)), ("there", figure(frames=6, sway=0.02))):
        folder = tmp_path / name
        figure().save(folder / REFERENCE_TRACK)
        driver.save(folder / DRIVER_TRACK)
        anchor = "first" if name == "late" else 2
        results.append(condition_poses(media, folder, _requested(anchor, mode, align), folder, lambda *_: None))
    (late, choice), (there, expected) = results
    assert (choice.mode, choice.align) == (expected.mode, expected.align)
    assert choice.reason.endswith("Compared in frame 2 of the driver.")
    assert np.array_equal(late.image, there.image)
    assert np.array_equal(late.driver.body[2:], there.driver.body[2:])


def test_an_anchor_outside_the_clip_is_still_an_error(figure):
    from libs.pose.fitting.mode_choice import choose_mode

    with pytest.raises(PoseError, match="no frame 9"):
        choose_mode(figure(), figure(frames=3), _requested(9).anchor_frame(figure(), figure(frames=3)))
