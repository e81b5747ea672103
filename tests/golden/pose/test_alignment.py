"""Golden: the anchor frame, and both kinds of retargeting."""

import numpy as np
import pytest
from pose_vectors import (
    NORMALISED,
    RATIO,
    difference,
    pose_cases,
    record_difference,
    record_from,
    relative_difference,
)

from libs.pose.fitting.align_pose import RATIO_BONES, align_to_pose, bone_ratios, figure_scale, scale_to
from libs.pose.fitting.align_reference import align_to_reference, plan_retargeting
from libs.pose.fitting.anchor import anchor_scores, choose_anchor
from libs.pose.record import PoseRecord, record_of

_CHOSEN = -1
_ANGLE_4_DECIMALS = 6e-5


def _anchors(vectors):
    """(prefix of the outputs, anchor frame or None, index that was chosen) of a file."""
    for anchor in vectors["in_anchors"]:
        if anchor == _CHOSEN:
            yield "out_auto_", None, int(vectors["out_auto_index"])
        else:
            yield f"out_a{anchor}_", int(anchor), int(anchor)


@pytest.mark.parametrize("vectors", pose_cases("align_ref"))
def test_align_to_reference(vectors, record_case):
    reference, driver = (vectors.track(str(vectors[name])) for name in ("in_ref", "in_drv"))
    for prefix, anchor, index in _anchors(vectors):
        plan = plan_retargeting(reference, driver[index], index)
        record = align_to_reference(reference, driver, anchor)
        expected = record_from(vectors.arrays, prefix)
        error = record_difference(record, expected)
        record_case("pose align_ref", error)
        assert choose_anchor(reference.body[0, :, :2], driver.body[..., :2]) == index or anchor is not None
        assert relative_difference(plan.scale, vectors[f"{prefix}scale_min"]) <= RATIO
        assert relative_difference(plan.bone_ratios, vectors[f"{prefix}bone_ratio"]) <= RATIO
        pixels = NORMALISED * max(driver.width, driver.height)
        assert difference(plan.offset, vectors[f"{prefix}delta"]) <= pixels
        assert difference(plan.ground_x, vectors[f"{prefix}ground_x"]) <= pixels
        assert f"{plan.flag.name.lower()}_body" == str(vectors[f"{prefix}body_flag"])
        np.testing.assert_array_equal((reference.width, reference.height), vectors[f"{prefix}dst_wh"])
        assert error <= NORMALISED


@pytest.mark.parametrize("vectors", pose_cases("align_pose"))
def test_align_to_pose(vectors, record_case):
    reference, driver = (record_of(vectors.track(str(vectors[name]))) for name in ("in_ref", "in_drv"))
    for prefix, anchor, index in _anchors(vectors):
        target = driver[index : index + 1]
        scaled = scale_to(reference, target)
        record = align_to_pose(reference, driver, anchor)
        error = max(
            record_difference(record, record_from(vectors.arrays, prefix)),
            record_difference(scaled, record_from(vectors.arrays, f"{prefix}scaledref_")),
        )
        record_case("pose align_pose", error)
        scale = figure_scale(reference, target)
        assert relative_difference(scale.ratio, vectors[f"{prefix}scale_ratio"]) <= RATIO
        assert scale.shoulders_sure == vectors[f"{prefix}shoulder_ok"]
        assert scale.hips_sure == vectors[f"{prefix}hip_ok"]
        np.testing.assert_array_equal(RATIO_BONES, vectors[f"{prefix}ratio_pairs"])
        assert relative_difference(bone_ratios(scaled, target), vectors[f"{prefix}ratios"]) <= RATIO
        assert error <= NORMALISED


def _unit(vectors, side: str, case: int) -> PoseRecord:
    chosen = slice(case, case + 1)
    return PoseRecord(
        body=vectors[f"in_{side}_candidate"][chosen],
        body_score=vectors[f"in_{side}_score"][chosen],
        body_present=np.ones((1, 18), dtype=bool),
        hands=vectors[f"in_{side}_hands"][chosen],
        hands_score=np.ones((1, 2, 21), np.float32),
        face=vectors[f"in_{side}_faces"][chosen],
        face_score=np.ones((1, 68), np.float32),
    )


@pytest.mark.parametrize("vectors", pose_cases("ratios"))
def test_single_frame_pairs(vectors, record_case):
    np.testing.assert_array_equal(RATIO_BONES, vectors["out_ratio_pairs"])
    for case in range(len(vectors["out_ratios"])):
        reference, driver = _unit(vectors, "ref", case), _unit(vectors, "src", case)
        scale = figure_scale(reference, driver)
        aligned = align_to_pose(reference, driver)
        found = np.concatenate([aligned.body[0], aligned.hands[0].reshape(-1, 2), aligned.face[0]])
        expected = vectors["out_aligned_body18_hands42_face68"][case]
        # large figures: the tolerance is that of a coordinate of one
        error = difference(found, expected) / max(1.0, float(np.abs(expected).max()))
        record_case("pose ratios", error)
        assert relative_difference(scale.ratio, vectors["out_scale_ratio"][case]) <= RATIO, case
        assert [scale.shoulders_sure, scale.hips_sure] == vectors["out_shoulder_hip_ok"][case].tolist(), case
        assert relative_difference(bone_ratios(reference, driver), vectors["out_ratios"][case]) <= RATIO, case
        scaled = scale_to(reference, driver).body[0]
        assert difference(scaled, vectors["out_scaledref_candidate"][case]) <= NORMALISED * max(1.0, scale.ratio), case
        assert error <= NORMALISED, case


@pytest.mark.parametrize("vectors", pose_cases("pick"))
def test_choice_of_the_anchor(vectors, record_case):
    for case, (reference_name, driver_name) in enumerate(zip(vectors["in_ref"], vectors["in_drv"], strict=True)):
        reference = record_of(vectors.track(str(reference_name))).body[0]
        driver = record_of(vectors.track(str(driver_name))).body
        index = choose_anchor(reference, driver)
        scores = anchor_scores(reference, driver)
        error = abs(scores.angle[index] - vectors["out_angle_score_4dp"][case])
        record_case("pose pick", error)
        assert index == vectors["out_index"][case], case
        assert scores.symmetry[index] == vectors["out_sym_count"][case], case
        assert scores.upright[index] == vectors["out_upright"][case], case
        assert error <= _ANGLE_4_DECIMALS, case
