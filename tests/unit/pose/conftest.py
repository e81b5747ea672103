"""A standing figure with known joints, as a track; and the small synthetic networks."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from libs.pose.track import PoseTrack

_BODY = np.array(
    [
        (0.50, 0.18), (0.50, 0.28), (0.42, 0.28), (0.40, 0.40), (0.39, 0.51), (0.58, 0.28), (0.60, 0.40), (0.61, 0.51),
        (0.45, 0.54), (0.45, 0.70), (0.45, 0.86), (0.55, 0.54), (0.55, 0.70), (0.55, 0.86), (0.48, 0.16), (0.52, 0.16),
        (0.46, 0.17), (0.54, 0.17), (0.56, 0.90), (0.44, 0.90),
    ]
)  # fmt: skip
_NETWORKS = Path(__file__).resolve().parents[2] / "golden" / "data" / "pose" / "onnx"


@pytest.fixture
def networks() -> Path:
    """The folder of the synthetic networks."""
    return _NETWORKS


@pytest.fixture
def figure() -> Callable[..., PoseTrack]:
    """``figure(frames=1, scale=1, sway=0.0, ...)``: a track of a standing figure that sways from side to side."""

    def make(
        frames: int = 1,
        scale: float = 1.0,
        sway: float = 0.0,
        width: int = 240,
        height: int = 320,
        score: float = 0.95,
        detected: bool = True,
    ) -> PoseTrack:
        shift = sway * np.sin(np.arange(frames))[:, None, None] * np.array([1.0, 0.0])
        body = (_BODY - _BODY[1]) * scale + _BODY[1] + shift  # [T, 20, 2]
        circle = np.stack([np.cos(np.arange(68)), np.sin(np.arange(68))], axis=-1)
        hand = np.concatenate([[[0.0, 0.0]], 0.03 * scale * (circle[:20] + np.array([0, 1.5]))])
        face = np.concatenate([[[0.0, 0.0]], 0.03 * scale * circle])

        def scored(points: np.ndarray) -> np.ndarray:
            return np.concatenate([points, np.full((*points.shape[:-1], 1), score)], axis=-1).astype(np.float32)

        return PoseTrack(
            width=width,
            height=height,
            body=scored(body),
            left_hand=scored(body[:, 7, None] + hand),
            right_hand=scored(body[:, 4, None] + hand),
            face=scored(body[:, 0, None] + face),
            boxes=np.tile(np.array([10, 10, 200, 300, 0.9 if detected else -1], np.float32), (frames, 1)),
        )

    return make


@pytest.fixture
def picture() -> np.ndarray:
    """[320, 240, 3] uint8: a picture with structure everywhere."""
    return np.random.default_rng(0).integers(0, 256, (320, 240, 3), dtype=np.uint8)
