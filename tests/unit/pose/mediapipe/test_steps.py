"""The arithmetic between the networks, on numbers worked out by hand."""

import math
from pathlib import Path

import numpy as np
import pytest

from libs.errors import ModelFilesError
from libs.pose.mediapipe.body import Body, refined
from libs.pose.mediapipe.detection import anchor_centres, suppress_overlaps
from libs.pose.mediapipe.estimator import held_where_lost
from libs.pose.mediapipe.holistic import Person
from libs.pose.mediapipe.networks import Networks
from libs.pose.mediapipe.regions import Region
from libs.pose.mediapipe.resampling import resample
from libs.pose.mediapipe.steadying import SteadyCircle
from libs.pose.mediapipe.tracking import Agreement, Part
from libs.pose.mediapipe.wholebody import scores_of, wholebody_of


def test_anchors_lie_in_the_middles_of_cells_row_by_row() -> None:
    anchors = anchor_centres(224, {8: 2, 16: 2, 32: 6})
    assert anchors.shape == (2254, 2)
    assert np.allclose(anchors[:4] * 224, [[4, 4], [4, 4], [12, 4], [12, 4]])
    assert np.allclose(anchors[56] * 224, [4, 12])
    assert np.allclose(anchors[-1] * 224, [208, 208])


def test_boxes_of_one_object_become_their_weighted_mean_and_keep_the_best_score() -> None:
    boxes = np.array([[0, 0, 10, 10], [100, 100, 110, 110], [2, 0, 12, 10]], float)
    points = boxes[:, None, :2]
    scores, kept, marks = suppress_overlaps(np.array([0.6, 0.7, 0.9]), boxes, points)
    assert scores.tolist() == [0.9, 0.7]
    assert np.allclose(kept[0], [1.2, 0, 11.2, 10])
    assert np.allclose(marks[0], [[1.2, 0]])
    assert np.allclose(kept[1], boxes[1])


def test_a_region_around_a_circle_is_upright_when_its_point_lies_above_and_turns_with_it() -> None:
    upright = Region.around(np.array([50.0, 60.0]), np.array([50.0, 40.0])).enlarged(1.25)
    assert (upright.x, upright.y, upright.width, upright.height) == (50, 60, 50, 50)
    assert upright.rotation == pytest.approx(0)
    assert np.allclose(upright.corners(), [[25, 85], [25, 35], [75, 35], [75, 85]])
    lying = Region.around(np.array([50.0, 60.0]), np.array([70.0, 60.0]))
    assert lying.rotation == pytest.approx(math.pi / 2)
    assert np.allclose(lying.to_picture(np.array([[0.5, 0.0]])), [[70, 60]]), "its upper edge is the picture's right"
    assert np.allclose(lying.axes_coordinates(np.array([[70.0, 60.0]])), [[0, -20]])


def test_a_shift_follows_the_regions_own_axis() -> None:
    moved = Region(10, 20, 8, 4, math.pi / 2).enlarged(2, shift_y=-0.5)
    assert (moved.x, moved.y) == (pytest.approx(12), pytest.approx(20))
    assert moved.width == moved.height == 16


def test_resampling_takes_pixels_as_they_are_where_region_and_input_agree() -> None:
    picture = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    seen = resample(picture, Region(4, 4, 8, 8, 0), 8)
    assert np.allclose(seen * 255, picture, atol=1e-4)
    outside = resample(picture, Region(-20, 4, 8, 8, 0), 8, (-1, 1), black_outside=True)
    assert (outside == -1).all()
    assert np.allclose(resample(picture, Region(-20, 4, 8, 8, 0), 8) * 255, picture[:, :1], atol=1e-4)


def test_a_landmark_moves_to_the_centre_of_heat_and_stays_where_it_is_cold() -> None:
    heat = np.full((64, 64, 3), -20.0, np.float32)
    heat[10, 21, 0] = heat[10, 22, 0] = 5
    heat[10, 21, 1] = -1  # less than one half
    heat[0, 0, 2] = 5
    points = np.array([[20.5, 10.5], [20.5, 10.5], [-3.0, 10.5]]) / 64
    moved = refined(points, heat) * 64
    assert np.allclose(moved[0], [21.5, 10], atol=1e-3)
    assert np.allclose(moved[1:], points[1:] * 64), "cold, or outside the map"


def test_the_region_of_the_frame_before_is_used_as_long_as_it_agrees() -> None:
    rule = Agreement(rotation=math.radians(40), translation=0.2, scale=0.4, margin=-0.1)
    suggested = Region(100, 100, 50, 50, math.radians(170))
    inside = np.array([[100.0, 100.0], [110.0, 90.0]])
    near = Region(105, 100, 60, 60, math.radians(-170))  # 20 degrees further, across the turn
    assert rule.region_to_search(suggested, near, inside) is near
    for other, points in (
        (Region(115, 100, 60, 60, math.radians(-170)), inside),
        (Region(105, 100, 80, 80, math.radians(-170)), inside),
        (Region(105, 100, 60, 60, math.radians(100)), inside),
        (near, np.array([[100.0, 100.0], [126.0, 100.0]])),
    ):
        assert rule.region_to_search(suggested, other, points) is suggested


def test_a_circle_that_hardly_moves_is_steadied_and_one_that_moves_fast_is_followed() -> None:
    trembling, running = SteadyCircle(), SteadyCircle()
    start = np.array([[100.0, 100.0], [100.0, 0.0]])
    assert trembling.follow(start) is start
    running.follow(start)
    small = [trembling.follow(start + (-1) ** n * 0.5) for n in range(40)][-1]
    assert np.abs(small - start).max() < 0.2
    for n in range(1, 31):
        fast = running.follow(start + 20 * n)
    assert np.abs(fast - start - 600).max() < 20
    running.forget()
    assert running.follow(start) is start


def _person(visibility: float = 1.0, presence: float = 1.0, hands: bool = True) -> Person:
    points = np.stack([np.arange(33.0), np.arange(33.0) * 2], axis=1)
    body = Body(points, np.full(33, visibility), np.full(33, presence), 0.99, points[:2])
    hand = Part(np.full((21, 2), 7.0), 0.8)
    return Person(body, hand if hands else None, None, Part(np.stack([np.arange(468.0)] * 2, axis=1), 0.9))


def test_the_133_key_points_come_from_the_landmarks_of_their_names() -> None:
    points = wholebody_of(_person())
    assert points[:17, 0].tolist() == [0, 2, 5, 7, 8, 11, 12, 13, 14, 15, 16, 23, 24, 25, 26, 27, 28]
    assert points[[17, 19, 20, 22], 0].tolist() == [31, 29, 32, 30], "toes and heels"
    assert points[18, :2].tolist() == pytest.approx([30.6, 61.2]), "a small toe lies behind the big one"
    assert points[[23, 31, 39], 0].tolist() == [162, 152, 389], "the jaw from ear to ear"
    assert points[[53, 59, 62, 65], 0].tolist() == [4, 33, 133, 362], "tip of the nose, corners of the eyes"
    assert (points[91:112, :2] == 7).all() and (points[91:112, 2] == 0.8).all()
    assert np.isnan(points[112:, :2]).all() and (points[112:, 2] == 0).all()
    nobody = wholebody_of(Person(None))
    assert np.isnan(nobody[:, :2]).all() and (nobody[:, 2] == 0).all()


@pytest.mark.parametrize(
    ("presence", "visibility", "score"),
    [(1.0, 1.0, 1.0), (0.95, 0.3, 0.77), (0.45, 0.25, 0.52), (0.2, 0.15, 0.33), (0.05, 0.05, 0.16)],
)
def test_scores_have_the_meaning_of_vitposes(presence: float, visibility: float, score: float) -> None:
    body = _person(visibility, presence).body
    assert body is not None
    assert scores_of(body)[0] == pytest.approx(score, abs=0.006)


def test_a_lost_body_stays_where_it_was_last_seen_with_scores_of_zero() -> None:
    seen, lost = wholebody_of(_person()), wholebody_of(Person(None))
    later = seen + np.array([5, 0, 0])
    held = held_where_lost(np.stack([lost, seen, lost, lost, later, lost]))
    assert held is not None
    assert held[:, 0, 0].tolist() == [0, 0, 0, 0, 5, 5]
    assert (held[[0, 2, 3, 5], :23, 2] == 0).all()
    assert np.isnan(held[2, 91:, :2]).all(), "hands and face are not held"
    assert held_where_lost(np.stack([lost, lost])) is None


def test_a_network_that_is_missing_or_damaged_is_named_with_the_way_out(tmp_path: Path) -> None:
    with pytest.raises(ModelFilesError, match=r"pose_detection\.tflite: the network is missing; fetch it with"):
        Networks.open(tmp_path)
    pytest.importorskip("ai_edge_litert", reason="the runtime is not installed")
    (tmp_path / "pose_detection.tflite").write_bytes(b"no network" * 100)
    with pytest.raises(ModelFilesError, match=r"pose_detection\.tflite: is no network that can be run"):
        Networks.open(tmp_path)


def test_corners_are_rounded_as_opencv_3_4_does() -> None:
    """The values are those of OpenCV 3.4.18's ``boxPoints`` for regions of a dance."""
    with np.load(Path(__file__).parent / "corners.npz") as recorded:
        for numbers, corners in zip(recorded["regions"], recorded["corners"], strict=True):
            assert np.array_equal(Region(*map(float, numbers)).corners(), corners)


def test_a_hand_points_from_the_wrist_to_its_knuckles_first_joints() -> None:
    hand = np.zeros((21, 2))
    hand[[5, 9, 13]] = [[90, -100], [100, -100], [110, -100]]
    hand[[6, 10, 14]] = [[500, 0], [500, 0], [500, 0]]
    assert Region.of_hand(hand).rotation == pytest.approx(math.radians(45))
