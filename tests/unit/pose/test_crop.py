import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.errors import PoseError
from libs.pose.networks import crop
from libs.pose.networks.crop import crop_geometry, crop_image, pose_network_input

COORDINATE = st.integers(-300, 900)


@given(x=COORDINATE, y=COORDINATE, w=st.integers(0, 600), h=st.integers(0, 600), score=st.sampled_from([-1.0, 0.4]))
@settings(max_examples=60, deadline=None)
def test_any_box_gives_a_crop_of_the_right_shape(x, y, w, h, score):
    geometry = crop_geometry(np.array([x, y, x + w, y + h, score]), 320, 240)
    size = geometry.lower_right - geometry.upper_left
    assert abs(size[0] * 4 / 3 - size[1]) <= 2
    first, last = geometry.overlap(320, 240)
    assert (first >= 0).all() and (last <= (320, 240)).all() and (first <= last).all()
    seen = crop_image(np.full((240, 320, 3), 200, np.uint8), geometry)
    assert seen.shape == (256, 192, 3) and seen.min() >= 0 and seen.max() <= 200


@pytest.mark.parametrize("box", [(50, 50, 59, 200, 0.9), (50, 50, 200, 59, 0.9), (50, 50, 200, 200, 0.0)])
def test_useless_boxes_mean_the_whole_frame(box):
    geometry = crop_geometry(np.array(box, dtype=float), 320, 240)
    np.testing.assert_array_equal(geometry.centre, [160, 120])


@pytest.mark.parametrize(
    ("box", "size"), [((50, 50, 150, 250, 0.9), (187.5, 250)), ((50, 50, 250, 150, 0.9), (250, 1000 / 3))]
)
def test_tall_and_wide_boxes_have_a_quarter_more_around_them(box, size):
    geometry = crop_geometry(np.array(box, dtype=float), 320, 240)
    np.testing.assert_allclose(geometry.size, size)
    np.testing.assert_array_equal(geometry.centre, [(box[0] + box[2]) / 2, (box[1] + box[3]) / 2])


def test_absurd_box_is_an_error_before_memory_is_taken():
    geometry = crop_geometry(np.array([-1e6, 0, 1e6, 1e6, 0.9]), 320, 240)
    with pytest.raises(PoseError, match="detector's file"):
        crop_image(np.zeros((240, 320, 3), np.uint8), geometry)


@given(x=COORDINATE, y=COORDINATE, w=st.integers(160, 900), h=st.integers(220, 900))
@settings(max_examples=30, deadline=None)
def test_a_crop_that_is_looked_up_is_the_one_that_is_copied(x, y, w, h):
    picture = np.random.default_rng(x % 7).integers(0, 256, (240, 320, 3), dtype=np.uint8)
    geometry = crop_geometry(np.array([x, y, x + w, y + h, 0.9]), 320, 240)
    copied = crop_image(picture, geometry)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(crop, "LARGEST_COPY_PIXELS", 0)
        np.testing.assert_allclose(crop_image(picture, geometry), copied, atol=0.05)


@pytest.mark.parametrize("shape", [(6048, 8064), (8900, 8900), (4900, 16_000)])
def test_whole_pictures_of_the_largest_sizes_are_seen(shape):
    picture = np.broadcast_to(np.uint8(200), (*shape, 3))
    seen = crop_image(picture, crop_geometry(np.array([0, 0, 0, 0, -1.0]), shape[1], shape[0]))
    assert seen[128, 96].tolist() == [200, 200, 200]
    assert seen[0, 0].tolist() == [0, 0, 0]


def test_channels_reach_the_network_as_blue_green_red():
    frame = np.zeros((240, 320, 3), np.uint8)
    frame[..., 0] = 255  # red
    tensor = pose_network_input(frame, crop_geometry(np.array([0, 0, 0, 0, -1.0]), 320, 240))
    middle = tensor[:, 128, 96]
    np.testing.assert_allclose(middle, [-0.485 / 0.229, -0.456 / 0.224, (1 - 0.406) / 0.225], rtol=1e-5)
