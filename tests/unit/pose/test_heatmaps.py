import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.pose.networks.heatmaps import decode_heatmaps, locate_peaks

ROWS, COLUMNS = np.mgrid[0:64, 0:48]


def _gaussian(x, y, height=0.8, sigma=2.0):
    return (height * np.exp(-((COLUMNS - x) ** 2 + (ROWS - y) ** 2) / (2 * sigma**2))).astype(np.float32)


@given(x=st.floats(6, 41), y=st.floats(6, 57), height=st.floats(0.05, 1.2))
@settings(max_examples=40, deadline=None)
def test_peak_is_found_between_cells(x, y, height):
    cells, scores = locate_peaks(_gaussian(x, y, height)[None, None])
    np.testing.assert_allclose(cells[0, 0], [x, y], atol=0.02)
    assert 0.9 * height <= scores[0, 0] <= height * 1.0001


def test_maps_do_not_influence_each_other():
    maps = np.stack([_gaussian(5, 61, 1.0), _gaussian(40, 3, 0.1), np.zeros((64, 48), np.float32), _gaussian(20, 30)])
    together, _ = locate_peaks(maps[None])
    alone = np.concatenate([locate_peaks(one[None, None])[0][0] for one in maps])
    np.testing.assert_array_equal(together[0], alone)


def test_maps_without_response():
    maps = np.stack([np.zeros((64, 48)), np.full((64, 48), -0.02)]).astype(np.float32)
    points = decode_heatmaps(maps[None], np.array([[100.0, 120.0]]), np.array([[48.0, 64.0]]))
    np.testing.assert_allclose(points[0, :, :2], [[100 - 24 - 1, 120 - 32 - 1]] * 2)
    np.testing.assert_allclose(points[0, :, 2], [0, -0.02])


def test_cells_become_frame_pixels():
    points = decode_heatmaps(_gaussian(24, 32)[None, None], np.array([[100.0, 120.0]]), np.array([[96.0, 128.0]]))
    np.testing.assert_allclose(points[0, 0, :2], [100, 120], atol=1e-3)
