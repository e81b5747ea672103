"""The networks find a puppet's joints where they were drawn, through the whole real pose stage."""

from itertools import islice

import numpy as np
import onnxruntime
import pytest
from PIL import Image

from libs.media.pictures.image import read_image
from libs.media.video.reader import read_frames
from libs.pose.networks.estimator import OnnxPoseEstimator
from libs.sandbox.keypoints import ANCHOR_INDEX, FACE, FEET, LEFT_HAND, RIGHT_HAND
from libs.sandbox.media import write_puppet_clip, write_puppet_picture
from libs.sandbox.puppet import DRIVER, REFERENCE, Framing, draw_puppet, full_figure, puppet_keypoints
from libs.sandbox.skeleton import Pose

TOLERANCE = 2.0  # px
CERTAIN = 0.9  # the pose stage's strictest threshold


@pytest.fixture(scope="module")
def estimator(sandbox_layout):
    return OnnxPoseEstimator(sandbox_layout.detector, sandbox_layout.pose_estimator)


def assert_found(found: np.ndarray, drawn: np.ndarray) -> None:
    """All 133 key-points of all frames within 2 px and certain."""
    distance = np.linalg.norm(found[..., :2] - drawn, axis=-1)
    for part in (range(17), FEET, FACE, LEFT_HAND, RIGHT_HAND):
        assert distance[:, list(part)].max() < TOLERANCE, (part, distance[:, list(part)].max())
    assert found[..., 2].min() >= CERTAIN


def test_joints_of_the_reference_picture(estimator, tmp_path):
    drawn = write_puppet_picture(tmp_path / "puppet.png")
    _, found = estimator.keypoints([read_image(tmp_path / "puppet.png")])
    assert_found(found, drawn[None])


@pytest.mark.slow
def test_joints_of_every_frame_of_the_clip(estimator, tmp_path):
    """Through H.264, 4:2:0 and BT.709."""
    drawn = write_puppet_clip(tmp_path / "clip.mp4", frame_count=49)
    frames = list(read_frames(tmp_path / "clip.mp4"))
    assert len(frames) == 49
    _, found = estimator.keypoints(frames)
    assert_found(found, drawn)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
@pytest.mark.parametrize(("width", "height"), [(288, 384), (192, 256), (256, 384)])
def test_joints_of_other_dances_and_sizes(estimator, tmp_path, seed, width, height):
    drawn = write_puppet_clip(tmp_path / "clip.mp4", seed=seed, frame_count=49, width=width, height=height)
    _, found = estimator.keypoints(list(read_frames(tmp_path / "clip.mp4")))
    assert_found(found, drawn)


def test_joints_survive_being_brought_to_another_size(estimator, tmp_path):
    drawn = write_puppet_clip(tmp_path / "clip.mp4", seed=7, frame_count=25, width=192, height=256)
    frames = [
        np.asarray(Image.fromarray(frame).resize((288, 384), Image.Resampling.BICUBIC))
        for frame in read_frames(tmp_path / "clip.mp4")
    ]
    _, found = estimator.keypoints(frames)
    assert_found(found, (drawn + 0.5) * 1.5 - 0.5)


def test_the_box_holds_the_puppet_and_little_else(estimator):
    picture = draw_puppet(DRIVER, Pose(), 288, 384, Framing(200.0, (100.0, 200.0)))
    joints = puppet_keypoints(DRIVER, Pose(), Framing(200.0, (100.0, 200.0)))
    boxes, _ = estimator.keypoints([picture])
    left, top, right, bottom, score = boxes[0]
    assert score > 0.5
    assert left <= joints[:, 0].min() and right >= joints[:, 0].max()
    assert top <= joints[:, 1].min() - 10 and bottom >= joints[:, 1].max()
    assert (right - left) * (bottom - top) < 1.6 * np.prod(np.ptp(joints, axis=0))


def test_a_picture_without_a_puppet_has_no_person(estimator):
    boxes, found = estimator.keypoints([np.full((384, 288, 3), 128, np.uint8)])
    assert boxes[0, 4] == -1
    assert found[..., 2].max() < 0.1


def test_any_picture_with_contrast_is_taken_for_one_of_a_person(estimator):
    ramp = np.tile(np.linspace(0, 255, 288, dtype=np.uint8)[None, :, None], (384, 1, 3))
    boxes, found = estimator.keypoints([ramp])
    np.testing.assert_allclose(boxes[0], [0, 0, 288, 384, 0.06], atol=1e-6)
    assert found[..., 2].max() < 0.1


def test_a_hidden_marker_is_uncertain_and_the_others_stay(estimator):
    picture = draw_puppet(REFERENCE, Pose(), 288, 384)
    drawn = puppet_keypoints(REFERENCE, Pose(), full_figure(REFERENCE, 288, 384))
    wrist = ANCHOR_INDEX["left_wrist"]
    x, y = np.rint(drawn[wrist]).astype(int)
    picture[y - 8 : y + 9, x - 8 : x + 9] = 90
    _, found = estimator.keypoints([picture])
    assert found[0, wrist, 2] < 0.3
    hand = [row for place, row in enumerate(LEFT_HAND) if place not in (4, 12)]  # these two have markers of their own
    assert found[0, hand, 2].max() < 0.3
    others = [index for index in range(17) if index != wrist]
    assert np.linalg.norm(found[0, others, :2] - drawn[others], axis=-1).max() < TOLERANCE
    assert found[0, others, 2].min() >= CERTAIN


@pytest.mark.parametrize("batch", [1, 3])
def test_the_interfaces_are_the_real_ones(sandbox_layout, batch):
    detector, pose = (
        onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        for path in (sandbox_layout.detector, sandbox_layout.pose_estimator)
    )
    (images,), (crops,) = detector.get_inputs(), pose.get_inputs()
    rows = detector.run(None, {images.name: np.zeros((batch, 3, 640, 640), np.float32)})
    maps = pose.run(None, {crops.name: np.zeros((batch, 3, 256, 192), np.float32)})
    assert [value.shape for value in rows] == [(batch, 300, 6)]
    assert [value.shape for value in maps] == [(batch, 133, 64, 48)]


def test_channels_in_the_wrong_order_are_not_recognised(sandbox_layout):
    """The pose network wants B,G,R: giving it R,G,B must be a visible mistake."""
    picture = draw_puppet(DRIVER, Pose(), 192, 256)
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    session = onnxruntime.InferenceSession(sandbox_layout.pose_estimator, providers=["CPUExecutionProvider"])
    drawn = puppet_keypoints(DRIVER, Pose(), full_figure(DRIVER, 192, 256))
    distances = []
    for channels in (picture[..., ::-1], picture):
        crop = ((channels / 255.0 - mean) / std).astype(np.float32).transpose(2, 0, 1)[None]
        (maps,) = session.run(None, {"input": crop})
        rows, columns = np.divmod(maps[0, :17].reshape(17, -1).argmax(axis=1), 48)
        distances.append(np.linalg.norm(4 * np.stack([columns, rows], axis=1) - drawn[:17], axis=1))
    assert distances[0].max() < 4
    assert np.median(distances[1]) > 4


def test_the_picture_is_the_same_every_time(tmp_path):
    for name in ("one.png", "two.png"):
        write_puppet_picture(tmp_path / name)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
    write_puppet_clip(tmp_path / "clip.mp4", frame_count=3, audio=False)
    assert len(list(islice(read_frames(tmp_path / "clip.mp4"), 5))) == 3
