from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import cv2
import numpy as np
import pytest

from libs.pose.draw import DrawingStyle, canvas_size, draw_line, draw_pose
from libs.pose.record import record_of

FULL = DrawingStyle()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1e12, 1e7])
@pytest.mark.parametrize("part", ["body", "hands", "face"])
def test_points_that_cannot_be_drawn_are_left_out(figure, part, value):
    record = record_of(figure())
    points = getattr(record, part).copy()
    points.reshape(-1, 2)[3] = value
    drawing = draw_pose(replace(record, **{part: points}), 0, 96, 64, FULL)
    assert drawing.any()


@pytest.mark.parametrize("score", [np.nan, np.inf, -1.0, 0.0, 50.0])
def test_absurd_scores(figure, score):
    record = record_of(figure())
    scores = {name: np.full_like(getattr(record, name), score) for name in ("body_score", "hands_score", "face_score")}
    assert draw_pose(replace(record, **scores), 0, 96, 64, FULL).dtype == np.uint8


def test_drawings_do_not_depend_on_what_was_drawn_before(figure):
    record = record_of(figure(frames=2, sway=0.3))
    fresh = [draw_pose(record, frame, 128, 96, FULL) for frame in (0, 1)]
    assert not np.array_equal(*fresh)
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(lambda index: draw_pose(record, index % 2, 128, 96, FULL), range(12)))
    for index, drawing in enumerate(again):
        np.testing.assert_array_equal(drawing, fresh[index % 2])


def test_fading_changes_face_and_head_and_nothing_below_the_neck(figure):
    record = record_of(figure())
    drawings = {
        (face, head): draw_pose(record, 0, 320, 240, DrawingStyle(face, head)).astype(int)
        for face in ("full", "faded", "none")
        for head in ("full", "faded")
    }
    assert drawings["full", "full"].sum() > drawings["full", "faded"].sum()
    assert drawings["full", "full"].sum() > drawings["faded", "full"].sum()
    assert not np.array_equal(drawings["faded", "full"], drawings["none", "full"])
    below_neck = slice(160, None)
    for drawing in drawings.values():
        np.testing.assert_array_equal(drawing[below_neck], drawings["full", "full"][below_neck])


def test_a_head_left_out_is_a_head_that_was_not_found(figure):
    record = record_of(figure())
    absent = record.body_present.copy()
    absent[:, [0, 14, 15, 16, 17]] = False
    unseen = draw_pose(replace(record, body_present=absent), 0, 240, 160, DrawingStyle(face="none"))
    left_out = draw_pose(record, 0, 240, 160, DrawingStyle(face="none", head="none"))
    np.testing.assert_array_equal(left_out, unseen)
    assert not np.array_equal(left_out, draw_pose(record, 0, 240, 160, DrawingStyle(face="none")))


def test_absent_joints_and_their_limbs_are_not_drawn(figure):
    record = record_of(figure())
    nothing = replace(record, body_present=np.zeros_like(record.body_present), hands_score=record.hands_score * 0)
    assert not draw_pose(nothing, 0, 96, 64, DrawingStyle(face="none")).any()


@pytest.mark.parametrize(("height", "width"), [(2160, 4000), (535, 640), (16, 16), (300, 100)])
def test_canvas_has_a_short_side_of_2160(height, width):
    assert min(canvas_size(height, width)) in (2159, 2160)


def test_lines_that_leave_the_canvas_are_hardly_bent():
    """Against the same lines on a canvas that holds them whole; the golden drawings check them exactly."""
    random = np.random.default_rng(0)
    margin, side, colour = 450, 200, [10, 200, 90]
    own, opencv, total = 0, 0, 0
    for _ in range(500):
        ends, thickness = random.integers(-400, 600, (2, 2)), int(random.integers(2, 14))
        large = np.zeros((side + 2 * margin, side + 2 * margin, 3), np.uint8)
        cv2.line(large, *(ends + margin).tolist(), colour, thickness=thickness)
        expected = large[margin:-margin, margin:-margin]
        canvas, plain = np.zeros_like(expected), np.zeros_like(expected)
        draw_line(canvas, *ends.tolist(), colour, thickness)
        cv2.line(plain, *ends.tolist(), colour, thickness=thickness)
        own += (canvas != expected).any(axis=-1).sum()
        opencv += (plain != expected).any(axis=-1).sum()
        total += expected.any(axis=-1).sum()
    assert own < 0.02 * total
    assert own < opencv / 3
