from dataclasses import replace

import numpy as np
import pytest

from libs.errors import PoseError
from libs.pose.faces import rescale_faces
from libs.pose.fitting.align_pose import align_to_pose, bone_ratios, figure_scale, scale_to
from libs.pose.fitting.align_reference import BodyFlag, align_to_reference, body_flag, plan_retargeting
from libs.pose.fitting.anchor import choose_anchor, resolve_anchor
from libs.pose.fitting.mode_choice import choose_mode
from libs.pose.keypoints import RETARGET_BONES
from libs.pose.record import record_of


def _with_body(track, change):
    body = track.body.copy()
    change(body)
    return replace(track, body=body)


def _lengths(body, size):
    pixels = body * size
    return np.array([np.linalg.norm(pixels[child] - pixels[parent]) for parent, child in RETARGET_BONES])


def test_bones_get_the_references_lengths(figure):
    reference = _with_body(figure(), lambda body: body.__setitem__((0, [3, 6], 1), 0.36))  # shorter upper arms
    driver = figure(frames=4, sway=0.1, scale=0.8)
    record = align_to_reference(reference, driver)
    expected = _lengths(reference.body[0, :, :2].astype(float), (240, 320))
    found = _lengths(record.body[2], (240, 320))
    drawn = slice(0, 17)
    # forearms become longer in the reference when the elbow moves up, and so do the aligned ones
    np.testing.assert_allclose(found[drawn], expected[drawn], rtol=0.02)


def test_aligning_twice_gives_the_same(figure):
    reference, driver = figure(scale=1.1), figure(frames=3, sway=0.05)
    first, second = (align_to_reference(reference, driver) for _ in range(2))
    np.testing.assert_array_equal(first.body, second.body)
    np.testing.assert_array_equal(first.hands, second.hands)


def test_equal_figures_stay_where_they_are_in_mode_pose(figure):
    record = record_of(figure())
    assert figure_scale(record, record).ratio == pytest.approx(1)
    np.testing.assert_allclose(bone_ratios(record, record), 1, rtol=1e-6)
    aligned = align_to_pose(record, record)
    np.testing.assert_allclose(aligned.body, record.body, atol=1e-6)
    np.testing.assert_allclose(aligned.hands, record.hands, atol=1e-6)


def test_scaled_figure_stands_on_the_targets_neck(figure):
    small, large = record_of(figure(scale=0.5)), record_of(figure(sway=0.2, frames=2)[1:])
    scaled = scale_to(small, large)
    np.testing.assert_allclose(scaled.body, large.body, atol=1e-6)


@pytest.mark.parametrize("bones", [[(9, 10)], [(9, 10), (12, 13)], [(2, 3), (5, 6)], [(1, 0)]])
def test_bones_without_length_in_the_anchor_frame(figure, bones):
    def collapse(body):
        for parent, child in bones:
            body[0, child, :2] = body[0, parent, :2]

    reference, driver = figure(), _with_body(figure(frames=3, sway=0.05), collapse)
    record = align_to_reference(reference, driver)
    assert np.isfinite(record.body).all() and np.abs(record.body).max() < 2
    assert np.linalg.norm(record.body[1, 10] - record.body[1, 9]) > 0.05, "sound frames keep their limbs"


def test_bone_without_length_takes_its_mirror_bones_ratio(figure):
    driver = _with_body(figure(frames=2), lambda body: body.__setitem__((0, 3, slice(0, 2)), body[0, 2, :2]))
    reference = figure(scale=1.2)
    ratios, sound = (plan_retargeting(reference, track[0]).bone_ratios for track in (driver, figure()))
    np.testing.assert_allclose(ratios[[2, 4]], sound[[2, 4]])


@pytest.mark.parametrize("side", ["reference", "driver"])
def test_figure_collapsed_to_one_spot(figure, side):
    tracks = {"reference": figure(), "driver": figure(frames=2)}
    tracks[side] = _with_body(tracks[side], lambda body: body.__setitem__((0, slice(None), slice(0, 2)), 0.5))
    with pytest.raises(PoseError, match=f"{side}.*one spot"):
        align_to_reference(tracks["reference"], tracks["driver"])


@pytest.mark.parametrize("side", ["reference", "driver"])
def test_figure_without_height_is_measured_otherwise(figure, side):
    def flatten(body):
        body[0, [10, 13], 1] = body[0, 0, 1]

    tracks = {"reference": figure(), "driver": figure(frames=2)}
    tracks[side] = _with_body(tracks[side], flatten)
    plan = plan_retargeting(tracks["reference"], tracks["driver"][0])
    assert plan.scale == pytest.approx(1, rel=1e-6)  # by the hips, which are not damaged


def test_body_flag(figure):
    assert body_flag(figure()) is BodyFlag.FULL
    assert body_flag(_with_body(figure(), lambda body: body.__setitem__((0, 10, 2), 0.3))) is BodyFlag.THREE_QUARTER
    assert body_flag(_with_body(figure(), lambda body: body.__setitem__((0, 8, 1), 1.1))) is BodyFlag.HALF


def test_anchor_outside_the_driver(figure):
    with pytest.raises(PoseError, match="no frame 3 in a driver of 3 frames"):
        align_to_reference(figure(), figure(frames=3), 3)
    with pytest.raises(PoseError, match="no frame -1"):
        resolve_anchor(-1, figure().body[0, :, :2], figure(frames=3).body[..., :2])


def test_empty_driver(figure):
    with pytest.raises(PoseError, match="no frames"):
        align_to_reference(figure(), figure(frames=2)[:0], None)
    with pytest.raises(PoseError, match="driver of 0 frames"):
        align_to_pose(record_of(figure()), record_of(figure(frames=2)[:0]))


def test_upright_frame_is_preferred_as_anchor(figure):
    def lie_down(body):
        centre = body[0, 1, :2].copy()
        body[0, :, :2] = (body[0, :, 1::-1] - centre[::-1]) * (1, 0.6) + centre

    driver = _with_body(figure(frames=3), lie_down)
    assert choose_anchor(figure().body[0, :, :2], driver.body[..., :2]) == 1


def test_unsure_hand_points_are_dropped_and_undefined_ones_do_no_harm(figure):
    driver = figure(frames=2)
    hand = driver.left_hand.copy()
    hand[0, 5, 2], hand[0, 6, :2] = 0.39, np.nan
    record = align_to_reference(figure(), replace(driver, left_hand=hand))
    np.testing.assert_array_equal(record.hands[0, 0, 5:7], 0)
    np.testing.assert_array_equal(record.hands_score[0, 0, 5:7], 0)
    assert record.hands_score[0, 0, 7] > 0.9
    assert np.isfinite(record.hands).all()


def test_face_of_no_width_keeps_its_size():
    driver = np.full((1, 68, 2), 0.3)
    reference = np.random.default_rng(0).random((68, 2))
    moved = rescale_faces(driver, reference, np.array([[0.5, 0.6]]))
    np.testing.assert_allclose(moved[0], np.broadcast_to([0.5, 0.6], (68, 2)))


@pytest.mark.parametrize("side", ["reference", "driver"])
def test_a_figure_of_no_finite_size_is_named(figure, side):
    tracks = {"reference": figure(), "driver": figure(frames=2)}
    tracks[side].body[0, [10, 13], 1] = np.inf
    with pytest.raises(PoseError, match=r"frame 0: .*measured"):
        align_to_reference(tracks["reference"], tracks["driver"])
    choose_mode(tracks["reference"], tracks["driver"])
