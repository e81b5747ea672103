import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from libs.sandbox.dance import Dance
from libs.sandbox.keypoints import ANCHOR_COUNT, ANCHOR_INDEX, FACE, LEFT_HAND, RIGHT_HAND, keypoint_map
from libs.sandbox.markers import MARKER_COLOURS, MATCH_DISTANCE, RGB_TO_YCBCR, marker_radii
from libs.sandbox.puppet import DRIVER, REFERENCE, full_figure, puppet_anchors
from libs.sandbox.skeleton import Pose, anchor_points


def random_anchors(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(ANCHOR_COUNT, 2)) * 50


def test_the_first_17_keypoints_are_the_first_17_anchors():
    anchors = random_anchors(0)
    np.testing.assert_allclose(keypoint_map()(anchors)[:17], anchors[:17])


def test_hand_points_pass_through_their_anchors():
    anchors = random_anchors(1)
    points = keypoint_map()(anchors)
    for side, rows in (("left", LEFT_HAND), ("right", RIGHT_HAND)):
        for place, name in ((0, "wrist"), (4, "thumb_tip"), (12, "middle_tip")):
            np.testing.assert_allclose(points[rows[place]], anchors[ANCHOR_INDEX[f"{side}_{name}"]], atol=1e-9)


@given(
    seed=st.integers(0, 1000),
    angle=st.floats(-np.pi, np.pi),
    scale=st.floats(0.1, 10),
    x=st.floats(-500, 500),
    y=st.floats(-500, 500),
)
def test_keypoints_move_turn_and_grow_with_the_anchors(seed, angle, scale, x, y):
    """True for affine combinations plus combinations of turned differences, and for nothing else that is linear."""
    anchors = random_anchors(seed)
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])

    def moved(points: np.ndarray) -> np.ndarray:
        return points @ turn.T + np.array([x, y])

    np.testing.assert_allclose(keypoint_map()(moved(anchors)), moved(keypoint_map()(anchors)), atol=1e-6)


def test_keypoints_depend_on_their_support_only():
    anchors = random_anchors(2)
    before = keypoint_map()(anchors)
    for anchor in range(ANCHOR_COUNT):
        changed = anchors.copy()
        changed[anchor] += 7.0
        moved = np.abs(keypoint_map()(changed) - before).max(axis=1) > 1e-9
        supported = (keypoint_map().support == anchor).any(axis=1)
        assert moved.sum() > 0
        assert not (moved & ~supported).any()


def test_an_open_mouth_moves_lips_and_chin_and_leaves_the_brows():
    closed, opened = (
        keypoint_map()(anchor_points(DRIVER.proportions, Pose(mouth=mouth)))[list(FACE)] for mouth in (0.0, 1.0)
    )
    shift = np.linalg.norm(opened - closed, axis=1)
    assert (shift[[8, 57, 66]] > 0.005).all()
    np.testing.assert_allclose(shift[17:48], 0, atol=1e-12)


def test_the_colours_of_markers_are_far_apart():
    colours = MARKER_COLOURS / 255.0 @ RGB_TO_YCBCR.T
    distances = np.linalg.norm(colours[:, None] - colours[None], axis=-1)
    np.fill_diagonal(distances, np.inf)
    assert distances.min() > 2 * MATCH_DISTANCE


def test_no_marker_has_a_colour_of_the_puppets():
    painted = [
        colour
        for puppet in (DRIVER, REFERENCE)
        for colour in (
            puppet.skin,
            puppet.hair,
            puppet.top,
            puppet.trousers,
            puppet.shoes,
            puppet.headphones,
            puppet.wall,
            puppet.floor,
        )
    ]
    colours = np.array(painted) / 255.0 @ RGB_TO_YCBCR.T
    markers = MARKER_COLOURS / 255.0 @ RGB_TO_YCBCR.T
    for shade in np.linspace(0.5, 1.15, 14):  # the light makes them darker and brighter
        assert np.linalg.norm(shade * colours[:, None] - markers[None], axis=-1).min() > MATCH_DISTANCE


def test_a_dance_keeps_its_markers_apart_and_in_the_picture():
    width, height = 288, 384
    framing = full_figure(DRIVER, width, height)
    radii = marker_radii(framing.height)
    together = radii[:, None] + radii[None]
    np.fill_diagonal(together, -np.inf)
    for seed in range(12):
        dance = Dance(seed)
        for seconds in np.arange(0, 8, 1 / 12):
            anchors = puppet_anchors(DRIVER, dance.pose(seconds), framing)
            distances = np.linalg.norm(anchors[:, None] - anchors[None], axis=-1)
            assert (distances > together).all(), (seed, seconds)
            assert (anchors > radii[:, None]).all(), (seed, seconds)
            assert (anchors < np.array([width, height]) - 1 - radii[:, None]).all(), (seed, seconds)


def test_a_dance_is_smooth_and_follows_from_its_seed():
    poses = [
        np.array([anchor_points(DRIVER.proportions, Dance(seed).pose(t)) for t in np.arange(48) / 24])
        for seed in (3, 3, 4)
    ]
    np.testing.assert_array_equal(poses[0], poses[1])
    assert np.abs(poses[0] - poses[2]).max() > 0.01
    assert np.abs(np.diff(poses[0], axis=0)).max() < 0.06
    assert np.abs(np.diff(poses[0], n=2, axis=0)).max() < 0.02
    assert np.ptp(poses[0], axis=0).max() > 0.1
