"""Drawn puppets: their key-points lie where they are drawn, and a seed means the same pictures everywhere."""

from dataclasses import replace

import numpy as np
import pytest

from libs.media.video.reader import read_frames
from libs.pose.keypoints import BODY_FIRST_SOURCE, BODY_SECOND_SOURCE
from libs.sandbox.puppets.characters import KINDS, NAMED, random_character
from libs.sandbox.puppets.dances import STYLES, Dance
from libs.sandbox.puppets.media import REFERENCE, default_dance, sized, write_scene_clip, write_scene_picture
from libs.sandbox.puppets.rooms import ROOM_KINDS, Room, random_room
from libs.sandbox.puppets.scenes import LIGHTS, Scene, close_up, full_figure, inside
from libs.sandbox.puppets.skeleton import Pose
from libs.sandbox.training.data import drawable, make_clip

SIZE = (160, 128)


def scene_of(character, room=None, camera=None, **changes):
    height, width = SIZE
    return Scene(character, room or Room(), camera or full_figure(width, height), width, height, **changes)


@pytest.mark.parametrize("kind", KINDS)
def test_keypoints_lie_on_the_figure(kind):
    scene = scene_of(random_character(np.random.default_rng(3), kind))
    joints = scene.joints(Dance(4, "wave").pose(1.3))
    points = scene.keypoints(joints)
    drawn = np.abs(scene.render(joints).astype(int) - scene.render(None)).max(axis=-1) > 12
    body = np.rint(points[:17]).astype(int)
    assert drawn[body[:, 1], body[:, 0]].all()
    hands = np.rint(points[91:]).astype(int)
    assert drawn[hands[:, 1], hands[:, 0]].mean() > 0.9


def test_a_puppet_faces_the_viewer_and_its_parts_are_in_order():
    scene = scene_of(NAMED["mina"])
    points = scene.keypoints(scene.joints(Pose()))
    left, right = points[5:17:2], points[6:17:2]
    assert (left[:, 0] > right[:, 0]).all()  # its left is on the right of the picture
    nose, shoulders, hips, knees, ankles = (
        points[rows, 1].mean() for rows in ([0], [5, 6], [11, 12], [13, 14], [15, 16])
    )
    assert nose < shoulders < hips < knees < ankles
    eyes, mouth = points[1:3, 1].mean(), points[71:91, 1].mean()
    assert eyes < nose < mouth < shoulders
    assert inside(points, 128, 160).all()


def test_a_turned_body_is_seen_narrower_and_its_nose_moves_to_that_side():
    scene = scene_of(NAMED["leo"])
    ahead, turned = (scene.keypoints(scene.joints(Pose(yaw=yaw))) for yaw in (0.0, 50.0))
    width_ahead, width_turned = (points[5, 0] - points[6, 0] for points in (ahead, turned))
    assert width_turned == pytest.approx(width_ahead * np.cos(np.radians(50)), rel=0.02)
    assert turned[0, 0] - turned[1:3, 0].mean() > 1.0 > abs(ahead[0, 0] - ahead[1:3, 0].mean())


def test_an_arm_behind_the_back_is_covered_by_the_trunk():
    scene = scene_of(NAMED["leo"])
    pose = Pose()
    front, back = (
        replace(pose, left_arm=replace(pose.left_arm, upper=12.0, lower=70.0, lower_front=front))
        for front in (140.0, -140.0)
    )
    middle = np.rint(scene.keypoints(scene.joints(front))[9]).astype(int)
    before, behind = (scene.render(scene.joints(one)) for one in (front, back))
    assert np.abs(before[middle[1], middle[0]].astype(int) - behind[middle[1], middle[0]]).max() > 30


def test_equal_seeds_give_equal_clips_and_splits_differ():
    first, again, other = (make_clip(split, 5, SIZE, 2) for split in ("training", "training", "held_back"))
    assert (first.frames == again.frames).all() and (first.points == again.points).all()
    assert (first.frames != other.frames).mean() > 0.5


def test_no_named_character_is_drawn_in_training():
    generator = np.random.default_rng(1)
    invented = [random_character(generator) for _ in range(200)]
    assert not any(character in NAMED.values() for character in invented)


@pytest.mark.parametrize("number", range(12))
def test_stored_poses_say_where_the_joints_are_drawn(number):
    """Also where another character's dance was retargeted: ears alone may differ, which retargeting turns flat."""
    clip = make_clip("held_back", number, SIZE, 2)
    record = drawable(clip.points)
    drawn = (clip.keypoints[:, BODY_FIRST_SOURCE] + clip.keypoints[:, BODY_SECOND_SOURCE])[:, :14] / 2
    sure = (record.body_score[:, :14] > 0.5) & inside(drawn, 128, 160)
    distance = np.linalg.norm(record.body[:, :14] * (128, 160) - drawn, axis=-1)
    assert sure.sum() > 8
    assert np.quantile(distance[sure], 0.9) < 2.6
    assert not record.body_present[record.body_score <= 0].any()


def test_every_style_moves_and_stays_in_the_picture():
    scene = scene_of(NAMED["pip"])
    for style in STYLES:
        dance = Dance(2, style)
        track = np.array([scene.keypoints(scene.joints(dance.pose(second)))[:17] for second in np.arange(0, 4, 0.125)])
        assert np.ptp(track, axis=0).max() > 12, style
        assert inside(track, 128, 160).mean() > 0.97, style
        steps = np.linalg.norm(
            np.diff([scene.keypoints(scene.joints(dance.pose(i / 24)))[:17] for i in range(48)], axis=0), axis=-1
        )
        assert steps.max() < (16 if style == "robot" else 12), style  # robots move in jerks


def test_rooms_and_lights():
    character = NAMED["tabby"]
    pictures = {kind: scene_of(character, Room(kind, seed=3)).render(None) for kind in ROOM_KINDS}
    for one in ROOM_KINDS:
        assert sum((pictures[one] != pictures[other]).any() for other in ROOM_KINDS) == len(ROOM_KINDS) - 1
    colours = {light: scene_of(character, light=light).render(None).mean(axis=(0, 1)) for light in LIGHTS}
    assert colours["red"][0] > colours["red"][2] + 60 and colours["cold"][2] > colours["cold"][0] + 30
    assert colours["dark"].mean() < 0.7 * colours["neutral"].mean()


def test_a_close_up_cuts_the_legs_off():
    scene = scene_of(NAMED["mina"], random_room(np.random.default_rng(0)), close_up(128, 160, 1.6))
    visible = inside(scene.keypoints(scene.joints(Pose())), 128, 160)
    assert visible[:11].all() and not visible[15:23].any()


def test_a_clip_of_a_scene_lies_where_its_keypoints_are(tmp_path):
    scene = sized(REFERENCE, 96, 128)
    picture_points = write_scene_picture(tmp_path / "puppet.png", scene)
    keypoints = write_scene_clip(tmp_path / "dance.mp4", scene, frame_count=5, audio=False)
    frames = list(read_frames(tmp_path / "dance.mp4"))
    assert keypoints.shape == (5, 133, 2) and picture_points.shape == (133, 2)
    assert np.ptp(keypoints, axis=0).max() > 1
    drawn = scene.render(scene.joints(default_dance().pose(4 / 24)))
    assert np.abs(frames[4].astype(float) - drawn).mean() < 4
    assert inside(keypoints, 96, 128).all()
