"""Short clips of a dancing puppet as arrays, to be made bad in one respect, and networks that find its joints."""

from collections.abc import Callable

import numpy as np
import pytest

from libs.pose.networks.estimator import OnnxPoseEstimator
from libs.sandbox.dance import Dance
from libs.sandbox.pose_graphs import detection_network, pose_network
from libs.sandbox.puppet import REFERENCE, draw_puppet

WIDTH, HEIGHT = 144, 192


@pytest.fixture(scope="session")
def dance() -> Callable[..., np.ndarray]:
    """``dance(frames, rate=24)``: uint8 [n, 192, 144, 3]; rate 0 stands still, a low one moves fast."""

    def make(frames: int, rate: float = 24.0) -> np.ndarray:
        poses = [Dance(0).pose(index / rate if rate else 0.0) for index in range(frames)]
        return np.stack([draw_puppet(REFERENCE, pose, WIDTH, HEIGHT) for pose in poses])

    return make


@pytest.fixture
def brighter() -> Callable[[np.ndarray, float], np.ndarray]:
    """``brighter(frames, levels)``: uint8 again."""
    return lambda frames, levels: np.clip(frames.astype(np.float32) + levels, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def estimator(tmp_path_factory: pytest.TempPathFactory) -> OnnxPoseEstimator:
    """The sandbox's pose networks, which really find the puppet's joints."""
    folder = tmp_path_factory.mktemp("networks")
    (folder / "detector.onnx").write_bytes(detection_network())
    (folder / "pose.onnx").write_bytes(pose_network())
    return OnnxPoseEstimator(folder / "detector.onnx", folder / "pose.onnx")
