import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.errors import MediaError
from libs.pose.fitting.framing import resize_crop, resize_crop_drawing, resize_crop_frames, target_size


@given(height=st.integers(16, 5000), width=st.integers(16, 5000), limit=st.sampled_from([128, 384, 576, 768]))
def test_target_size_keeps_the_shape(height, width, limit):
    size = target_size(height, width, limit)
    assert size.height % 16 == 0 and size.width % 16 == 0
    assert 16 <= min(size.height, size.width) <= limit
    factor = min(1, limit / min(height, width))
    assert -1e-6 <= height * factor - size.height < 17
    assert -1e-6 <= width * factor - size.width < 17


@pytest.mark.parametrize(("height", "width"), [(15, 200), (200, 15), (1, 1)])
def test_sides_below_16_pixels(height, width):
    with pytest.raises(MediaError, match=f"{width} x {height}.*at least 16"):
        target_size(height, width)


def test_shape_that_leaves_nothing():
    with pytest.raises(MediaError, match="nothing is left"):
        resize_crop(np.zeros((1, 3, 3), np.uint8), 1000, 1)
    with pytest.raises(MediaError):
        resize_crop(np.zeros((4, 4, 3), np.uint8), 0, 16)


def test_centre_is_kept():
    image = np.zeros((100, 300, 3), np.uint8)
    image[:, 100:200] = 255
    assert (resize_crop(image, 32, 32) == 255).all()


def test_grey_pictures():
    assert resize_crop(np.zeros((40, 40), np.uint8), 16, 32).shape == (16, 32)


def test_frames_keep_their_order():
    frames = (np.full((20, 10, 3), value, np.uint8) for value in range(100))
    assert [frame[0, 0, 0] for frame in resize_crop_frames(frames, 16, 16)] == list(range(100))


@given(
    st.tuples(*[st.integers(8, 90)] * 4),
    st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1), st.integers(1, 30)), max_size=3),
)
def test_a_drawing_is_resized_as_any_picture(sides, squares):
    source_height, source_width, height, width = sides
    drawing = np.zeros((source_height, source_width, 3), dtype=np.uint8)
    random = np.random.default_rng(0)
    for y, x, side in squares:
        part = drawing[int(y * source_height) :, int(x * source_width) :][:side, :side]
        part[:] = random.integers(0, 256, part.shape)
    try:
        expected = resize_crop(drawing, height, width)
    except MediaError:
        return
    np.testing.assert_array_equal(resize_crop_drawing(drawing, height, width), expected)


@pytest.mark.parametrize(("height", "width"), [(20, 90), (90, 20), (13, 8), (300, 240)])
def test_a_drawing_is_resized_as_any_picture_in_either_order_of_passes(height, width):
    """Pillow resizes the height first where that is cheaper, which rounds other pixels."""
    drawing = np.zeros((160, 110, 3), dtype=np.uint8)
    drawing[3:40, 20:50] = np.random.default_rng(0).integers(0, 256, (37, 30, 3))
    expected = resize_crop(drawing, height, width)
    np.testing.assert_array_equal(resize_crop_drawing(drawing, height, width), expected)
