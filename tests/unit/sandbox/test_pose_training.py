"""The trained pose networks' parts: targets, pictures and the exported files' interfaces."""

import numpy as np
import onnxruntime
import pytest
import torch

from libs.pose.networks.detector import detections_of, detector_input
from libs.pose.networks.heatmaps import decode_heatmaps
from libs.sandbox.training.pose import _grid_targets, judge_pose, pose_sample, target_heatmaps
from libs.sandbox.training.pose_networks import Detector, PoseNetwork, export
from libs.sandbox.training.pose_pictures import Picture, PicturePool, figure_box, foreign_picture, random_picture


@pytest.fixture(scope="module")
def pictures():
    generators = [np.random.default_rng([9, number]) for number in range(6)]
    return [(g, random_picture(g)) for g in generators]


def test_targets_decode_to_the_keypoints(pictures):
    """With the product's own decoding, to a quarter of a pixel of the crop."""
    checked = 0
    for g, picture in pictures:
        sample = pose_sample(g, picture)
        maps = target_heatmaps(sample)
        found = decode_heatmaps(maps[None], sample.geometry.centre[None], sample.geometry.size[None])[0]
        sure = sample.visible & (found[:, 2] > 0.5)
        inner = np.abs(sample.keypoints - sample.geometry.centre) < 0.4 * sample.geometry.size
        sure &= inner.all(axis=1)
        distance = np.linalg.norm(found[:, :2] - sample.keypoints, axis=-1) / (sample.geometry.size[1] / 256)
        assert (distance[sure] < 0.25).all()
        assert not maps[~sample.visible].any()
        checked += sure.sum()
    assert checked > 300


def test_an_empty_room_has_no_keypoints():
    picture = Picture(np.full((160, 128, 3), 90, np.uint8), ())
    assert not target_heatmaps(pose_sample(np.random.default_rng(0), picture)).any()
    middles, _ = _grid_targets(picture)
    assert not middles.any()


def test_pictures_of_no_puppet_are_learned_from_and_have_no_keypoints():
    g = np.random.default_rng(3)
    pictures = [foreign_picture(g) for _ in range(4)]
    for picture in pictures:
        assert not picture.figures
        assert picture.pixels.std() > 3
        sample = pose_sample(g, picture)
        assert not target_heatmaps(sample).any()
        assert sample.crop.shape == (3, 256, 192)
    taken = PicturePool(np.random.default_rng(0)).take(60)
    without = sum(not picture.figures for picture in taken)
    assert 3 <= without <= 20, "about a tenth are of no puppet, some more are empty rooms"


def test_grid_targets_give_the_boxes_back(pictures):
    for _, picture in pictures:
        height, width = picture.pixels.shape[:2]
        middles, edges = _grid_targets(picture)
        boxes = [box for box in (figure_box(one, width, height) for one in picture.figures) if box is not None]
        if len(boxes) != 1:
            continue
        row, column = np.unravel_index(middles.argmax(), middles.shape)
        x, y = (column + 0.5) / 32, (row + 0.5) / 32
        left, top, right, bottom = edges[:, row, column]
        found = np.array([x - left, y - top, x + right, y + bottom]) * (width, height, width, height)
        assert np.allclose(found, boxes[0], atol=1e-3)


def test_exported_networks_have_the_interfaces_of_vitpose_and_yolo(pictures, tmp_path):
    torch.manual_seed(0)
    networks = {"pose": PoseNetwork((8, 12, 16, 16)), "detector": Detector((8, 12, 16, 16))}
    for name, network in networks.items():
        export(network.eval(), tmp_path / f"{name}.onnx")
    pose, detector = (onnxruntime.InferenceSession(tmp_path / f"{name}.onnx") for name in ("pose", "detector"))

    samples = [pose_sample(g, picture) for g, picture in pictures[:3]]
    crops = np.stack([sample.crop for sample in samples])
    heatmaps = pose.run(["heatmaps"], {"input": crops})[0]
    assert heatmaps.shape == (3, 133, 64, 48)
    with torch.no_grad():
        assert np.allclose(heatmaps, networks["pose"](torch.from_numpy(crops)).numpy(), atol=2e-3)
    assert set(judge_pose(networks["pose"], samples)) >= {"pck_body", "pck_hands", "pck_face", "score_unseen"}

    image = pictures[0][1].pixels
    rows = detector.run(["output0"], {"images": detector_input(image)[None]})[0]
    assert rows.shape == (1, 300, 6)
    assert (np.diff(rows[0, :, 4]) <= 0).all()
    assert detections_of(rows[0], image.shape[1], image.shape[0]).shape[1] == 6
