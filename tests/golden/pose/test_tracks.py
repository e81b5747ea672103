"""Golden: key-points -> tracks -> drawable records."""

import numpy as np
import pytest
from pose_vectors import NORMALISED, difference, pose_cases, record_difference, record_from

from libs.pose.record import record_of
from libs.pose.track import PoseTrack


@pytest.mark.parametrize("vectors", pose_cases("metas"))
def test_metas(vectors, record_case):
    track = PoseTrack.from_wholebody(vectors["in_kp2ds"], int(vectors["in_width"]), int(vectors["in_height"]))
    parts = ("body", "left_hand", "right_hand", "face")
    error = max(difference(getattr(track, part), vectors[f"out_keypoints_{part}"]) for part in parts)
    record_case("pose metas", error)
    assert error <= NORMALISED
    assert {track.width} == set(vectors["out_width"]) and {track.height} == set(vectors["out_height"])


@pytest.mark.parametrize("vectors", pose_cases("dwpose"))
def test_dwpose(vectors, record_case):
    record = record_of(vectors.track(str(vectors["in_metas"])))
    error = record_difference(record, record_from(vectors.arrays, "out_"))
    record_case("pose dwpose", error)
    assert error == 0
    numbered = np.where(record.body_present, np.arange(record.body.shape[1]), -1)
    np.testing.assert_array_equal(numbered, vectors["out_bodies_subset"][:, 0])
