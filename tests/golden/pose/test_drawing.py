"""Golden: drawings, canvases before reduction, and the warped reference."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from golden_folders import golden_cases
from pose_vectors import DRAWING_FRACTION, RATIO, differing_fraction, files_of, pose_cases, record_from

from libs.pose.draw import DrawingStyle, draw_body, draw_face, draw_hands, draw_pose
from libs.pose.fitting.warp import warp_reference

_WARP_LEVELS = {4: (3, 2e-4), 5: (7, 0.11)}
"""OpenCV's major version: levels and part of the values a warp may differ by (docs/specification.md#tolerances)."""


def _drawings(root: Path):
    for name, index in files_of("draw_list")(root):
        for case in index.document["cases"]:
            if (index.path.parent / case["png"]).is_file():
                yield f"{Path(name).parent}/{case['png']}", (index, case)


def _canvases(root: Path):
    for name, index in files_of("draw_list")(root):
        for case in index.document["canvas"]:
            if (index.path.parent / case["png_all"]).is_file():
                yield f"{Path(name).parent}/{case['png_all']}", (index, case)


@pytest.mark.parametrize("case", golden_cases("pose draw", _drawings))
def test_drawing(case, record_case):
    index, options = case
    poses = index.neighbour(index.document["poses"])
    record = record_from(poses.arrays, f"{options['pose']}_")
    face = "none" if options["without_face"] else "faded" if options["face_change"] else "full"
    style = DrawingStyle(face=face, head="faded" if options["head_change"] else "full")
    drawing = draw_pose(record, 0, options["H"], options["W"], style)
    expected = index.picture(options["png"])
    fraction = differing_fraction(drawing, expected)
    record_case("pose draw", fraction)
    assert drawing.dtype == np.uint8
    assert fraction <= DRAWING_FRACTION
    if ((record.hands >= 0) & (record.hands < 1)).all():
        assert fraction == 0, "only hands that leave the picture may differ at all"


@pytest.mark.parametrize("case", golden_cases("pose canvas", _canvases))
def test_canvas(case, record_case):
    index, options = case
    record = record_from(index.neighbour(index.document["poses"]).arrays, f"{options['pose']}_")
    canvas = np.zeros((options["canvas_h"], options["canvas_w"], 3), np.uint8)
    style = DrawingStyle()
    steps = (
        ("png_body", lambda: draw_body(canvas, record, 0, style)),
        ("png_body_hand", lambda: draw_hands(canvas, record, 0)),
        ("png_all", lambda: draw_face(canvas, record, 0, style)),
    )
    for name, step in steps:
        step()
        if (index.path.parent / options[name]).is_file():
            fraction = differing_fraction(canvas, index.picture(options[name]))
            record_case("pose canvas", fraction)
            assert fraction == 0, name


@pytest.mark.parametrize("vectors", pose_cases("warp"))
def test_warp(vectors, record_case):
    # upstream calls the driver's pose "ref" and the reference picture's "tgt"
    target, reference = record_from(vectors.arrays, "in_ref_"), record_from(vectors.arrays, "in_tgt_")
    warped = warp_reference(vectors["in_img"], reference, target, centre=bool(vectors["in_align_center"]))
    levels, fraction = _WARP_LEVELS[min(5, int(cv2.__version__.split(".")[0]))]
    pairs = ((warped.image, vectors["out_image"]), (warped.pose, vectors["out_pose"]))
    largest = max(int(np.abs(found.astype(int) - expected).max()) for found, expected in pairs)
    record_case("pose warp", largest)
    assert abs(warped.scale / float(vectors["out_scale_ratio"]) - 1) <= RATIO
    np.testing.assert_array_equal(warped.mask, vectors["out_mask"])
    assert largest <= levels
    assert max(differing_fraction(*pair) for pair in pairs) <= fraction
