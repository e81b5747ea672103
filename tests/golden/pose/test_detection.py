"""Golden: detector rows -> boxes -> the one person."""

import numpy as np
import pytest
from pose_vectors import difference, pose_cases

from libs.pose.networks.detector import detections_of, select_person


@pytest.mark.parametrize("vectors", pose_cases("bbox_select"))
def test_end_to_end_rows(vectors, record_case):
    for case, rows in enumerate(vectors["in_det"]):
        height, width = (int(side) for side in vectors["in_shape_hw"][case])
        found = detections_of(rows, width, height)
        expected = vectors["out_after_nms"][case][: vectors["out_n_after_nms"][case]]
        box = select_person(found, width, height)
        record_case("pose bbox_select", max(difference(found, expected), difference(box, vectors["out_bbox"][case])))
        np.testing.assert_array_equal(found, expected, err_msg=f"case {case}")
        np.testing.assert_array_equal(box, vectors["out_bbox"][case], err_msg=f"case {case}")


@pytest.mark.parametrize("vectors", pose_cases("det84"))
def test_raw_columns(vectors, record_case):
    """The function-level results, which are right; upstream's forward path through this layout is not copied."""
    for case, columns in enumerate(vectors["in_det"][:, 0]):
        height, width = (int(side) for side in vectors["in_shape_hw"][case])
        found = detections_of(columns, width, height)
        expected = vectors["out_after_nms"][case][: vectors["out_n_after_nms"][case]]
        record_case("pose det84", difference(found, expected))
        np.testing.assert_array_equal(found, expected, err_msg=f"case {case}")
