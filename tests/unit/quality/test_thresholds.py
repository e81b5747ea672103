"""Real video files, one good and others bad in one respect: the measures over the file, and which checks warn."""

import json
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from libs.media.video.reader import read_frames
from libs.media.video.writer import VideoWriter
from libs.pose.conditioning import PoseConditioning, prepare_conditioning
from libs.pose.networks.estimator import OnnxPoseEstimator
from libs.pose.options import PoseOptions
from libs.sandbox.media import FRAME_RATE, write_puppet_clip
from libs.stages.review.quality import ClipQuality, measure_quality
from libs.stages.review.review_progress import ReviewProgress
from orchestration.animations.quality_checks import THRESHOLDS, judge

FRAMES, BORDER = 24, 12
Clip = np.ndarray


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    """A dance; played back as it is, it is the best clip anybody can make of it."""
    path = tmp_path_factory.mktemp("driver") / "dance.mp4"
    write_puppet_clip(path, frame_count=FRAMES, audio=False)
    return np.stack(list(read_frames(path)))


@pytest.fixture(scope="module")
def conditioning(driver: Clip, estimator: OnnxPoseEstimator) -> PoseConditioning:
    track = estimator.estimate(iter(driver))
    return prepare_conditioning(driver[0], track[0], track, PoseOptions(align=False), driver[0].shape[:2])


def brighter(clip: Clip, levels: np.ndarray) -> Clip:
    """Each frame by its own number of levels."""
    return np.clip(clip.astype(np.float32) + levels[:, None, None, None], 0, 255).astype(np.uint8)


def in_another_order(clip: Clip) -> Clip:
    return clip[::-1].copy()


def flickering(clip: Clip) -> Clip:
    return brighter(clip, np.where(np.arange(FRAMES) % 2, 6.0, 0.0))


def growing_darker(clip: Clip) -> Clip:
    """The room, not the joints' coloured markers: the sandbox's networks know joints by their colour."""
    room = clip.min(axis=-1, keepdims=True) > 130
    return np.where(room, brighter(clip, np.linspace(0, -40, FRAMES)), clip)


def jumping_at_the_border(clip: Clip) -> Clip:
    """Brighter at the beginning of the second chunk, and then slowly as before."""
    levels = np.zeros(FRAMES)
    levels[BORDER:] = np.linspace(12, 0, FRAMES - BORDER)
    return brighter(clip, levels)


def blurred(clip: Clip) -> Clip:
    return np.stack([cv2.GaussianBlur(frame, (0, 0), 1.2) for frame in clip])


def faceless(clip: Clip) -> Clip:
    """A plate before the head."""
    covered = clip.copy()
    height, width = clip.shape[1:3]
    covered[:, height // 12 : height * 3 // 10, width * 3 // 10 : width * 3 // 4] = 120
    return covered


def as_it_is(clip: Clip) -> Clip:
    return clip


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (as_it_is, set()),
        (in_another_order, {"poses_are_those_asked_for"}),
        (flickering, {"clip_does_not_flicker"}),
        (growing_darker, {"colours_do_not_drift"}),
        (jumping_at_the_border, {"chunks_join_without_a_seam"}),
        (blurred, {"clip_is_as_sharp_as_the_reference"}),
        (faceless, {"faces_are_where_the_driver_has_one", "poses_are_those_asked_for"}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_exactly_the_check_warns_that_should(
    driver: Clip,
    conditioning: PoseConditioning,
    estimator: OnnxPoseEstimator,
    tmp_path: Path,
    spoil: Callable[[Clip], Clip],
    expected: set[str],
) -> None:
    height, width = driver.shape[1:3]
    with VideoWriter(tmp_path / "clip.mp4", width, height, FRAME_RATE) as writer:
        for frame in spoil(driver):
            writer.write(frame)
    (tmp_path / "summary.json").write_text(json.dumps({"chunk_starts": [0, BORDER], "chunk_overlap": 0}))
    progress = ReviewProgress(lambda *_: None, len(driver))
    quality = measure_quality(
        tmp_path / "clip.mp4", tmp_path / "summary.json", conditioning, estimator.keypoints, progress
    )
    numbers = quality.numbers()
    warned = {name for name, threshold in THRESHOLDS.items() if not judge(threshold, numbers).passed}
    assert warned == expected, numbers
    quality.save(tmp_path)
    assert ClipQuality.load(tmp_path / "quality.json").numbers() == numbers
