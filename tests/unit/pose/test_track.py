from dataclasses import replace

import numpy as np
import pytest

from libs.errors import PoseError
from libs.pose.track import PoseTrack

ARRAYS = ("body", "left_hand", "right_hand", "face", "boxes")


def test_saved_track_is_the_same_and_so_are_its_bytes(figure, tmp_path):
    track = figure(frames=3, sway=0.1)
    track.save(tmp_path / "one.npz")
    track.save(tmp_path / "deeper" / "two.npz")
    loaded = PoseTrack.load(tmp_path / "one.npz")
    assert (loaded.width, loaded.height, len(loaded)) == (240, 320, 3)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(loaded, name), getattr(track, name))
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "deeper" / "two.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deeper", "one.npz"]


@pytest.mark.parametrize("damage", ["missing", "cut", "wrong bytes", "text", "pickle", "other format", "no body"])
def test_unusable_file_is_named(figure, tmp_path, damage):
    path = tmp_path / "track.npz"
    figure().save(path)
    if damage == "missing":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:300])
    elif damage == "wrong bytes":
        whole = bytearray(path.read_bytes())
        start = whole.index(b"body.npy") + 60
        whole[start : start + 40] = bytes(range(40))
        path.write_bytes(whole)
    elif damage == "text":
        path.write_text("not an archive")
    elif damage == "pickle":
        np.savez(path, format=np.array("pose-track-1"), body=np.array([object()]))
    elif damage == "other format":
        np.savez(path, format=np.array("something else"))
    else:
        np.savez(path, format=np.array("pose-track-1"), size=np.array([4, 4]))
    with pytest.raises(PoseError, match=r"track\.npz"):
        PoseTrack.load(path)


def test_slices_and_single_frames(figure):
    track = figure(frames=5, sway=0.1)
    assert len(track[1:4]) == 3
    np.testing.assert_array_equal(track[-1].body, track.body[4:])
    assert len(track[2]) == 1
    with pytest.raises(IndexError):
        track[5]


def test_wrong_shapes_are_refused(figure):
    track = figure()
    with pytest.raises(ValueError, match="face"):
        PoseTrack(4, 4, track.body, track.left_hand, track.right_hand, track.face[:, 1:], track.boxes)
    with pytest.raises(ValueError, match="body"):
        PoseTrack(4, 4, track.body.astype(np.float64), track.left_hand, track.right_hand, track.face, track.boxes)


def _points(frames):
    points = np.random.default_rng(1).uniform(10, 90, (frames, 133, 3)).astype(np.float32)
    points[..., 2] = 0.8
    return points


@pytest.mark.parametrize(("width", "height"), [(0, 320), (240, 0), (-1, 320)])
def test_a_frame_without_pixels_is_refused(figure, width, height):
    with pytest.raises(ValueError, match=f"frame size {width} x {height} must be positive"):
        replace(figure(), width=width, height=height)


def test_body_of_a_lost_frame_is_that_of_the_frame_before():
    points = _points(4)
    points[1:3, :23, 0] = -5
    track = PoseTrack.from_wholebody(points, 100, 100)
    np.testing.assert_array_equal(track.body[1], track.body[0])
    np.testing.assert_array_equal(track.body[2], track.body[0])
    assert not np.array_equal(track.body[3], track.body[0])
    assert not np.array_equal(track.left_hand[1], track.left_hand[0])


def test_one_visible_joint_is_enough_not_to_be_lost():
    points = _points(2)
    points[1, 1:23, 0] = -5
    track = PoseTrack.from_wholebody(points, 100, 100)
    assert track.body[1, 0, 0] > 0 and track.body[1, 2, 0] < 0


def test_lost_first_frame_is_an_error():
    points = _points(2)
    points[0, :23, 1] = -5
    with pytest.raises(PoseError, match=r"first frame \(frame 0\).*start the clip"):
        PoseTrack.from_wholebody(points, 100, 100)


def test_joints_between_two_points_are_their_mean():
    points = _points(1)
    track = PoseTrack.from_wholebody(points, 200, 100)
    np.testing.assert_allclose(track.body[0, 1, 0] * 200, points[0, 5:7, 0].mean(), rtol=1e-6)
    np.testing.assert_allclose(track.body[0, 18, 1] * 100, points[0, 17:19, 1].mean(), rtol=1e-6)
    np.testing.assert_allclose(track.body[0, 19, 2], points[0, 20:22, 2].mean(), rtol=1e-6)
