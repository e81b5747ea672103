import numba
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from libs.pose.fitting import bicubic, weighted_rows
from libs.pose.fitting.framing import resize_crop, resize_crop_frames

_SIDES = st.one_of(st.integers(1, 12), st.integers(13, 120))
_SIZES = st.tuples(_SIDES, _SIDES, _SIDES, _SIDES)


def _picture(content: str, height: int, width: int) -> np.ndarray:
    random = np.random.default_rng(height * 1000 + width)
    if content == "noise":
        return random.integers(0, 256, (height, width, 3), dtype=np.uint8)
    if content == "extremes":
        return random.choice(np.array([0, 255], dtype=np.uint8), (height, width, 3))
    picture = np.full((height, width, 3), 255 if content == "white" else 0, dtype=np.uint8)
    if content == "strokes":
        for y, x in random.integers(0, [height, width], (3, 2)):
            picture[y : y + 2, x // 2 : x + 1] = random.integers(0, 256, 3)
            picture[y // 2 : y + 1, x : x + 2] = random.integers(0, 256, 3)
    return picture


@given(_SIZES, st.sampled_from(["noise", "extremes", "white", "black", "strokes"]))
@example((1, 1, 120, 120), "noise")
@example((1, 300, 200, 1), "extremes")
@example((500, 2, 3, 700), "noise")
@example((64, 48, 64, 48), "strokes")
@example((84, 2, 2, 1), "noise")  # six bytes, in which both orders often agree
def test_resizes_as_pillow_does(sizes, content):
    source_height, source_width, height, width = sizes
    picture = _picture(content, source_height, source_width)
    order = bicubic.pass_order(source_height, source_width, height, width)
    assert order is not None, "the compiled sums are not used at all"
    expected = bicubic.resize_by_pillow(picture, height, width)
    np.testing.assert_array_equal(bicubic.resize(picture, height, width), expected)
    np.testing.assert_array_equal(bicubic.resize_drawing(picture, height, width), expected)


@pytest.mark.parametrize(
    ("source", "target"), [((1275, 720), (1360, 768)), ((1360, 765), (1024, 576)), ((240, 426), (1080, 1920))]
)
def test_sizes_of_real_clips(source, target):
    picture = _picture("extremes", *source)
    assert bicubic.pass_order(*source, *target) is not None
    np.testing.assert_array_equal(bicubic.resize(picture, *target), bicubic.resize_by_pillow(picture, *target))


@given(_SIZES)
def test_frames_are_resized_as_single_pictures(sizes):
    source_height, source_width, height, width = sizes
    frame = _picture("noise", source_height + 10, source_width + 10)
    target = height + 10, width + 10
    for found in resize_crop_frames(iter([frame, frame]), *target):
        np.testing.assert_array_equal(found, resize_crop(frame, *target))


def test_pillow_is_used_where_the_sums_are_not_its_own(monkeypatch):
    """As might be with a later Pillow."""
    monkeypatch.setattr(bicubic, "add_weighted_rows", lambda *a: weighted_rows.add_weighted_rows(*a) ^ 1)
    bicubic.pass_order.cache_clear()
    try:
        picture = _picture("noise", 30, 40)
        assert bicubic.pass_order(30, 40, 50, 60) is None
        expected = bicubic.resize_by_pillow(picture, 50, 60)
        np.testing.assert_array_equal(bicubic.resize(picture, 50, 60), expected)
        np.testing.assert_array_equal(bicubic.resize_drawing(picture, 50, 60), expected)
    finally:
        bicubic.pass_order.cache_clear()


def test_compiles_where_machine_code_cannot_be_kept():
    """numba finds no folder for a function without a file, as for one in folders that nobody may write to."""
    names: dict = {}
    exec("def double(number):\n    return number * 2\n", names)
    with pytest.raises(RuntimeError, match="cannot cache"):
        numba.njit(cache=True)(names["double"])
    assert weighted_rows.compiled(names["double"])(21) == 42
