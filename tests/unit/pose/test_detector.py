import numpy as np
import pytest

from libs.errors import ModelFilesError
from libs.pose.networks.detector import detections_of, select_person


def _rows(*rows):
    return np.array(rows, dtype=np.float32)


def test_boxes_are_scaled_to_the_frame_and_truncated():
    found = detections_of(_rows((64, 64, 320, 640, 0.9, 0)), width=321, height=480)
    np.testing.assert_array_equal(found[0, :4], [32, 48, 160, 480])


def test_rows_that_are_no_numbers_are_dropped():
    rows = _rows((np.nan, 0, 9, 9, 0.9, 0), (0, 0, np.inf, 9, 0.9, 0), (0, 0, 1e30, 9, 0.9, 0), (9, 9, 99, 99, 0.5, 0))
    found = detections_of(rows, 640, 640)
    np.testing.assert_array_equal(found[:, :4], [[9, 9, 99, 99]])
    assert not len(detections_of(_rows((0, 0, 9, 9, np.nan, 0)), 640, 640))


def test_score_must_exceed_the_threshold():
    assert not len(detections_of(_rows((0, 0, 99, 99, 0.05, 0)), 640, 640))
    assert len(detections_of(_rows((0, 0, 99, 99, 0.051, 0)), 640, 640))


@pytest.mark.parametrize("shape", [(300, 7), (8400, 85), (85, 8400), (300,)])
def test_other_layouts_are_refused(shape):
    with pytest.raises(ModelFilesError, match="expected"):
        detections_of(np.zeros(shape, np.float32), 640, 480)


def test_without_a_person_the_whole_frame_is_used():
    animal = detections_of(_rows((0, 0, 200, 200, 0.9, 16)), 640, 640)
    np.testing.assert_array_equal(select_person(animal, 640, 480), [0, 0, 640, 480, -1])


def test_the_largest_person_is_chosen_at_any_score():
    persons = detections_of(_rows((0, 0, 100, 200, 0.9, 0), (300, 0, 600, 600, 0.3, 0)), 640, 640)
    np.testing.assert_allclose(select_person(persons, 640, 640), [300, 0, 600, 600, 0.3], rtol=1e-6)
