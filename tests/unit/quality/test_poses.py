"""Pose agreement and face share, on poses moved by known amounts and on the sandbox's pose networks."""

from pathlib import Path

import numpy as np
import pytest

from libs.media.video.reader import read_frames
from libs.pose.conditioning import prepare_conditioning
from libs.pose.fitting.framing import framed_points, resize_crop
from libs.pose.keypoints import LEFT_HIP, LEFT_WRIST, NECK, RIGHT_HIP
from libs.pose.networks.estimator import OnnxPoseEstimator
from libs.pose.options import PoseOptions
from libs.quality.clip_poses import ClipPoses, asked_poses, found_poses
from libs.quality.face_share import measure_face_share
from libs.quality.pose_agreement import measure_pose_agreement
from libs.sandbox.media import write_puppet_clip

WIDTH, HEIGHT = 200, 300
TRUNK = 80.0


def poses(frames: int = 4) -> ClipPoses:
    """A figure whose trunk has 80 pixels; nobody moves."""
    generator = np.random.default_rng(0)
    body = np.concatenate([generator.uniform(40, 160, (18, 2)), np.full((18, 1), 0.9)], axis=1)
    body[NECK, :2] = 100, 90
    body[RIGHT_HIP, :2], body[LEFT_HIP, :2] = (90, 90 + TRUNK), (110, 90 + TRUNK)
    face = np.concatenate([generator.uniform(90, 110, (68, 2)), np.full((68, 1), 0.9)], axis=1)
    return ClipPoses(WIDTH, HEIGHT, np.tile(body, (frames, 1, 1)), np.tile(face, (frames, 1, 1)))


def moved(source: ClipPoses, joint: int | slice, pixels: float) -> ClipPoses:
    body = source.body.copy()
    body[:, joint, 0] += pixels
    return ClipPoses(source.width, source.height, body, source.face)


def test_the_same_poses_agree() -> None:
    agreement = measure_pose_agreement(poses(), poses())
    assert agreement is not None
    assert (agreement.correct_share, agreement.mean_distance, agreement.found_share) == (1, 0, 1)
    assert agreement.joints == 4 * 18
    assert agreement.trunk_pixels == pytest.approx(TRUNK)


def test_a_tenth_of_the_trunk_decides() -> None:
    near = measure_pose_agreement(poses(), moved(poses(), LEFT_WRIST, 0.09 * TRUNK))
    far = measure_pose_agreement(poses(), moved(poses(), LEFT_WRIST, 0.11 * TRUNK))
    assert near is not None and far is not None
    assert near.correct_share == 1
    assert far.correct_share == pytest.approx(17 / 18)
    assert far.mean_distance == pytest.approx(0.11 / 18)


def test_a_joint_that_is_not_found_is_not_correct() -> None:
    found = poses()
    found.body[:, LEFT_WRIST, 2] = 0.1
    agreement = measure_pose_agreement(poses(), found)
    assert agreement is not None
    assert agreement.correct_share == agreement.found_share == pytest.approx(17 / 18)
    assert agreement.mean_distance == 0


def test_what_was_not_asked_for_does_not_count() -> None:
    asked = poses()
    asked.body[:, LEFT_WRIST, 2] = 0  # not drawn
    asked.body[:, 0, 0] = -5  # outside
    agreement = measure_pose_agreement(asked, moved(poses(), LEFT_WRIST, 50))
    assert agreement is not None
    assert (agreement.joints, agreement.correct_share) == (4 * 16, 1)


def test_shoulders_are_the_unit_of_a_close_up_and_nothing_asked_is_not_measured() -> None:
    asked = poses()
    asked.body[:, [RIGHT_HIP, LEFT_HIP], 2] = 0
    agreement = measure_pose_agreement(asked, poses())
    assert agreement is not None
    assert agreement.trunk_pixels == pytest.approx(np.linalg.norm(asked.body[0, 2, :2] - asked.body[0, 5, :2]))
    asked.body[..., 2] = 0
    assert measure_pose_agreement(asked, poses()) is None


def test_different_lengths_are_an_error() -> None:
    with pytest.raises(ValueError, match="4 poses asked for and 3 frames"):
        measure_pose_agreement(poses(4), poses(3))
    with pytest.raises(ValueError, match="4 poses asked for and 3 frames"):
        measure_face_share(poses(4), poses(3))


def test_faces_count_where_the_driver_has_one() -> None:
    asked, found = poses(), poses()
    asked.face[0, :, 2] = 0.1  # the driver looks away
    found.face[0, :, 2] = 0.1
    found.face[3, :40, 2] = 0.1  # most of a face is missing
    share = measure_face_share(asked, found)
    assert share is not None
    assert (share.frames, share.share) == (3, pytest.approx(2 / 3))
    asked.face[..., 0] += WIDTH  # outside of the frame
    assert measure_face_share(asked, found) is None


def test_points_are_framed_like_pictures() -> None:
    """A marked pixel of a picture lies where the point says after cropping and scaling."""
    for size in ((48, 64), (160, 48), (96, 96)):
        picture = np.zeros((300, 200, 3), np.uint8)
        picture[138:143, 98:103] = 255
        brought = resize_crop(picture, *size)[..., 0].astype(float)
        y, x = (
            np.average(np.arange(side), weights=brought.sum(axis=axis)) for axis, side in ((1, size[0]), (0, size[1]))
        )
        expected = framed_points(np.array([101 / 200, 141 / 300]), (300, 200), size)
        np.testing.assert_allclose((x + 0.5, y + 0.5), expected, atol=0.6)


@pytest.mark.slow
def test_poses_asked_for_are_found_again_in_the_clip_that_shows_them(
    estimator: OnnxPoseEstimator, tmp_path: Path
) -> None:
    """The driver itself stands in for a perfect clip; the same frames one second off for a bad one."""
    write_puppet_clip(tmp_path / "dance.mp4", frame_count=40)
    frames = list(read_frames(tmp_path / "dance.mp4"))
    track = estimator.estimate(frames)
    options = PoseOptions(mode="ref", align=False)
    conditioning = prepare_conditioning(frames[0], track[0], track, options, frames[0].shape[:2])
    asked, found = asked_poses(conditioning), found_poses(iter(frames), estimator.keypoints)
    agreement, faces = measure_pose_agreement(asked, found), measure_face_share(asked, found)
    assert agreement is not None and faces is not None
    assert agreement.correct_share > 0.99
    assert agreement.mean_distance is not None and agreement.mean_distance < 0.01
    assert faces.share == 1
    late = measure_pose_agreement(asked, found_poses(frames[15:] + frames[:15], estimator.keypoints))
    assert late is not None
    assert late.correct_share < 0.8
    blank = found_poses([np.full_like(frame, 120) for frame in frames], estimator.keypoints)
    nobody, faceless = measure_pose_agreement(asked, blank), measure_face_share(asked, blank)
    assert nobody is not None and faceless is not None
    assert nobody.correct_share < 0.2
    assert faceless.share == 0
