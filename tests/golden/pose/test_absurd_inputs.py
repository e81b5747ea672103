"""Golden: inputs on which upstream crashes or gives absurd values.

Where upstream gives sane values we give the same; everywhere else a typed error or a sensible result
(docs/specification.md#absurd-values), and drawing never fails.
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from golden_folders import golden_cases
from pose_vectors import NORMALISED, committed_network, files_of, record_difference, record_from

from libs.errors import InputError, PoseError
from libs.pose.conditioning import prepare_conditioning
from libs.pose.draw import DrawingStyle, draw_pose
from libs.pose.fitting.align_pose import align_to_pose
from libs.pose.fitting.align_reference import align_to_reference
from libs.pose.fitting.anchor import choose_anchor
from libs.pose.networks.estimator import OnnxPoseEstimator
from libs.pose.options import PoseOptions
from libs.pose.record import PoseRecord, record_of
from libs.pose.track import PoseTrack

_FARTHEST_SANE = 100.0


def _alignments(root: Path):
    for name, errors in files_of("errors")(root):
        for case, functions in errors.document["alignment"].items():
            for function in functions:
                yield f"{name}:{case}:{function}", (errors, case, function)


def _is_sane(record: PoseRecord) -> bool:
    """Within a hundred pictures, and not a figure shrunk to the corner; what is no number is left out when drawing."""
    coordinates = [np.nan_to_num(getattr(record, name)) for name in ("body", "hands", "face")]
    return all(np.abs(values).max() < _FARTHEST_SANE for values in coordinates) and bool(coordinates[0].any())


@pytest.mark.parametrize("case", golden_cases("pose errors", _alignments))
def test_alignment(case, record_case):
    errors, name, function = case
    inputs = errors.neighbour(f"{errors.path.stem}_inputs.npz")
    outputs = errors.neighbour(f"{errors.path.stem}_outputs.npz")
    width, height = int(inputs["width"]), int(inputs["height"])
    reference, driver = (PoseTrack.from_wholebody(inputs[f"{name}__{side}"], width, height) for side in ("ref", "drv"))
    anchor = None if function.endswith("_auto") else int(function.rsplit("_a", 1)[1])

    upstream_raises = errors.document["alignment"][name][function]["raises"]
    expected = None if upstream_raises else record_from(outputs.arrays, f"{name}__{function}__")
    try:
        if function.startswith("align_to_reference"):
            record = align_to_reference(reference, driver, anchor)
        else:
            record = align_to_pose(record_of(reference), record_of(driver), anchor)
    except PoseError as error:
        record_case("pose errors", None)
        assert expected is None or not _is_sane(expected), f"upstream gives a sane result, we: {error}"
        assert any(word in str(error) for word in ("choose", "use", "start")), "the message shows no way out"
        return
    if expected is not None and _is_sane(expected):
        largest = record_difference(record, expected)
        record_case("pose errors", largest)
        assert largest <= NORMALISED
    else:
        record_case("pose errors", None)
        assert all(np.isfinite(getattr(record, part)).all() for part in ("body", "hands", "face"))
        assert _is_sane(record)
    for frame in range(len(record)):
        drawing = draw_pose(record, frame, 96, 64, DrawingStyle())
        assert drawing.shape == (96, 64, 3)


def _misc(root: Path):
    for name, errors in files_of("errors")(root):
        for case in errors.document.get("misc", {}):
            yield f"{name}:{case}", case


@pytest.fixture
def figure():
    """A track of ``frames`` equal frames with all key-points spread over the picture."""

    def make(frames: int = 2) -> PoseTrack:
        one = np.random.default_rng(0).uniform(8, 40, (1, 133, 3)).astype(np.float32)
        one[..., 2] = 0.95
        return PoseTrack.from_wholebody(np.repeat(one, frames, axis=0), 48, 64)

    return make


def _drawn(record: PoseRecord, face: str = "full") -> None:
    assert draw_pose(record, 0, 64, 48, DrawingStyle(face=face)).shape == (64, 48, 3)


def _with_point(record: PoseRecord, part: str, value: float) -> PoseRecord:
    points = getattr(record, part).copy()
    points.reshape(-1, 2)[0] = value
    return replace(record, **{part: points})


def _prepare(track: PoseTrack, **options) -> None:
    picture = np.zeros((track.height, track.width, 3), np.uint8)
    boxes = np.tile(np.array([0, 0, 48, 64, 0.9], np.float32), (len(track), 1))
    found = replace(track, boxes=boxes)
    conditioning = prepare_conditioning(picture, found[0], found, PoseOptions(**options), (64, 48))
    assert conditioning.draw(0, len(track)).shape == (len(track), 64, 48, 3)


def _estimate_blank() -> None:
    estimator = OnnxPoseEstimator(committed_network("det_puppet.onnx"), committed_network("pose_puppet_noprior.onnx"))
    estimator.estimate([np.full((96, 64, 3), 127, np.uint8)], subject="reference")


# What upstream does in each case of the file's "misc" part, asked of our code. An entry that must end in a typed error
# names it; the others must end well.
_EQUIVALENTS = {
    "pick_empty_list": (PoseError, lambda f: choose_anchor(f().body[0, :, :2], f(1).body[:0, :, :2])),
    "align_ref_empty_list_auto": (PoseError, lambda f: align_to_reference(f()[0], f()[:0], None)),
    "align_ref_anchor_out_of_range": (PoseError, lambda f: align_to_reference(f()[0], f(), 99)),
    "align_pose_anchor_out_of_range": (PoseError, lambda f: align_to_pose(record_of(f()[0]), record_of(f()), 99)),
    "align_ref_second_call_same_metas": (None, lambda f: _align_twice(f()[0], f())),
    "draw_nan_body": (None, lambda f: _drawn(_with_point(record_of(f()), "body", np.nan))),
    "draw_huge_body": (None, lambda f: _drawn(_with_point(record_of(f()), "body", 1e30))),
    "draw_nan_hand": (None, lambda f: _drawn(_with_point(record_of(f()), "hands", np.nan))),
    "draw_far_outside": (None, lambda f: _drawn(_with_point(record_of(f()), "body", 50.0))),
    "draw_faces_none_without_face": (None, lambda f: _drawn(record_of(f()), face="none")),
    "whole_unknown_alignmode": (InputError, lambda f: PoseOptions(mode="elsewhere")),  # type: ignore[arg-type]
    "whole_pose_mode_anchor_none": (None, lambda f: _prepare(f(), mode="pose", anchor=None)),
    "whole_ref_anchor_none": (None, lambda f: _prepare(f(), mode="ref", anchor=None)),
    "whole_interval_larger_than_clip": (None, lambda f: _prepare(f(1))),
    "whole_blank_reference_noprior_model": (PoseError, lambda f: _estimate_blank()),
}
_NO_EQUIVALENT = {
    "draw_faces_none": "a record always has face points",
    "whole_transform_none": "the target size is a required argument",
    "whole_empty_dir": "reading clips is not part of this stage",
    "whole_interval_zero": "the frame interval is validated with the request",
}


def _align_twice(reference: PoseTrack, driver: PoseTrack) -> None:
    first, second = (align_to_reference(reference, driver) for _ in range(2))
    assert record_difference(first, second) == 0


@pytest.mark.parametrize("case", golden_cases("pose errors, other", _misc))
def test_other_cases(case, record_case, figure):
    if case not in _EQUIVALENTS:
        pytest.skip(_NO_EQUIVALENT.get(case, "no equivalent in this project"))
    record_case("pose errors, other", None)
    expected, call = _EQUIVALENTS[case]
    if expected is None:
        call(figure)
    else:
        with pytest.raises(expected):
            call(figure)
