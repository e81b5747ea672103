"""Golden: from picture and clip to all conditioning pictures, in every mode."""

from pathlib import Path

import numpy as np
import pytest
from golden_folders import golden_cases
from pose_vectors import (
    KEYPOINT_PIXELS,
    NETWORK_NOISE,
    NORMALISED,
    WHOLE_FRACTION,
    Vectors,
    difference,
    differing_fraction,
    files_of,
    read_picture,
    record_from,
)

from libs.pose.conditioning import PoseConditioning, prepare_conditioning
from libs.pose.fitting.align_pose import align_to_pose
from libs.pose.fitting.align_reference import align_to_reference
from libs.pose.fitting.framing import resize_crop, resize_crop_frames
from libs.pose.networks.estimator import OnnxPoseEstimator
from libs.pose.options import PoseOptions
from libs.pose.record import record_of
from libs.pose.track import PoseTrack


def _runs(root: Path):
    for name, index in files_of("whole")(root):
        for run in index.document["runs"]:
            yield f"{name}:{run['name']}", (index, run)


def _clips(root: Path):
    for name, index in files_of("whole")(root):
        if _intermediate(index).path.is_file():
            yield name, index


def _intermediate(index: Vectors) -> Vectors:
    return index.neighbour(f"{index.path.stem}_mid.npz")


def _estimator(index: Vectors) -> OnnxPoseEstimator:
    return OnnxPoseEstimator(
        index.network(index.document.get("detector", "det_puppet.onnx")),
        index.network(index.document.get("pose", "pose_puppet.onnx")),
    )


def _clip(index: Vectors, interval: int = 1) -> list[Path]:
    return sorted((index.path.parent / index.document["clip_dir"]).glob("*.png"))[::interval]


@pytest.mark.parametrize("case", golden_cases("pose whole", _runs))
def test_whole_run(case, record_case, tmp_path):
    index, run = case
    outputs = index.neighbour(f"{index.path.stem}.npz")
    picture = index.picture(index.document["reference"])
    estimator = _estimator(index)
    frames = (read_picture(path) for path in _clip(index, run["frame_interval"]))
    driver = estimator.estimate(resize_crop_frames(frames, *picture.shape[:2]))
    options = PoseOptions(
        mode=run["alignmode"],
        align=run["do_align"],
        face="none" if run["without_face"] else "faded" if run["face_change"] else "full",
        head="faded" if run["head_change"] else "full",
        anchor=run["anchor_idx"],
    )
    prepared = prepare_conditioning(picture, estimator.estimate([picture]), driver, options, (run["th"], run["tw"]))
    prepared.save(tmp_path)
    conditioning = PoseConditioning.load(tmp_path)  # what the engine gets has been stored in between
    found = {
        "pose_tensor": conditioning.draw(0, len(conditioning)).transpose(0, 3, 1, 2),
        "image_input": conditioning.image,
        "pose_input": conditioning.reference_pose,
        "mask_input": np.repeat(conditioning.mask[..., None], 3, axis=-1),
    }
    fractions = {name: differing_fraction(value, outputs[f"{run['name']}_{name}"]) for name, value in found.items()}
    record_case("pose whole", max(fractions.values()))
    assert max(fractions.values()) <= WHOLE_FRACTION, fractions


@pytest.mark.parametrize("index", golden_cases("pose whole, intermediate", _clips))
def test_keypoints_of_whole_clip(index, record_case):
    expected = _intermediate(index)
    picture = index.picture(index.document["reference"])
    frames = [resize_crop(read_picture(path), *picture.shape[:2]) for path in _clip(index)]
    np.testing.assert_array_equal(frames[0], expected["frames_resized_0"])
    estimator = _estimator(index)
    parts = [estimator.keypoints([picture]), estimator.keypoints(frames)]
    boxes, points = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    error = difference(points[..., :2], expected["kp2ds"][..., :2])
    record_case("pose whole, intermediate", error)
    assert difference(boxes, expected["bbox"]) <= NETWORK_NOISE
    assert error <= KEYPOINT_PIXELS
    tracks = (PoseTrack.from_wholebody(part, picture.shape[1], picture.shape[0]) for part in (points[:1], points[1:]))
    _check_alignment(expected, *tracks)


def _check_alignment(expected: Vectors, reference: PoseTrack, driver: PoseTrack) -> None:
    """The aligned poses that the file keeps, as ``align<mode>_i<interval>_*``, anchor 0."""
    for prefix in sorted({name.split("bodies_candidate")[0] for name in expected.arrays if "bodies_cand" in name}):
        mode, interval = prefix.rstrip("_").split("_i")
        frames = driver[:: int(interval)]
        if mode == "alignref":
            found = align_to_reference(reference, frames)
        else:
            found = align_to_pose(record_of(reference), record_of(frames))
        record = record_from(expected.arrays, prefix)
        assert difference(found.body, record.body) <= NORMALISED, prefix
        assert difference(found.face, record.face) <= NORMALISED, prefix
        np.testing.assert_array_equal(found.body_present, record.body_present, err_msg=prefix)
        for score in ("body_score", "hands_score", "face_score"):
            assert difference(getattr(found, score), getattr(record, score)) <= NETWORK_NOISE, (prefix, score)
        moved = np.abs(found.hands - record.hands) > NORMALISED
        assert moved.mean() <= WHOLE_FRACTION, "a changed last bit may move a truncated hand point by a pixel, rarely"
