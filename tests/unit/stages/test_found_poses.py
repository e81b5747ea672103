"""Poses in which nothing was found: what is measured of real pictures, and what people are told."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from libs.errors import PoseError
from libs.media.pictures.image import read_image
from libs.media.video.reader import read_frames
from libs.pose.fitting.framing import resize_crop_frames
from libs.pose.networks.estimator import OnnxPoseEstimator
from libs.requests.documents.animation_request import AnimationRequest
from libs.sandbox.dance import Dance
from libs.sandbox.pose_graphs import detection_network, pose_network
from libs.sandbox.puppet import DRIVER, REFERENCE, Framing, draw_puppet, full_figure
from libs.sandbox.skeleton import Pose
from libs.stages.animation_files import DRIVER_TRACK, REFERENCE_TRACK
from libs.stages.poses.found_poses import (
    SANDBOX_KNOWS,
    FoundPoses,
    require_found_poses,
    sandbox_explained,
    sandbox_note,
)

WIDTH, HEIGHT = 144, 192
WHOLE = full_figure(REFERENCE, WIDTH, HEIGHT)
REQUEST = AnimationRequest(id="a", reference="a.png", driver="a.mp4")


@pytest.fixture(scope="module")
def estimator(tmp_path_factory: pytest.TempPathFactory) -> OnnxPoseEstimator:
    folder = tmp_path_factory.mktemp("networks")
    (folder / "detector.onnx").write_bytes(detection_network())
    (folder / "pose.onnx").write_bytes(pose_network())
    return OnnxPoseEstimator(folder / "detector.onnx", folder / "pose.onnx")


def puppet(framing: Framing = WHOLE) -> np.ndarray:
    return draw_puppet(REFERENCE, Pose(), WIDTH, HEIGHT, framing)


def close_up(zoom: float) -> np.ndarray:
    return puppet(Framing(WHOLE.height * zoom, (WHOLE.hips[0], WHOLE.hips[1] + 0.5 * (zoom - 1) * WHOLE.height)))


def legs_only() -> np.ndarray:
    return puppet(Framing(WHOLE.height, (WHOLE.hips[0], WHOLE.hips[1] - 0.55 * WHOLE.height)))


def from_behind() -> np.ndarray:
    """Nothing of the face is seen."""
    picture = puppet()
    picture[HEIGHT // 12 : HEIGHT * 3 // 10, WIDTH * 3 // 10 : WIDTH * 3 // 4] = 120
    return picture


def dance(frames: int) -> list[np.ndarray]:
    return [draw_puppet(DRIVER, Dance(0).pose(index / 24), WIDTH, HEIGHT) for index in range(frames)]


def leaving(frames: int) -> list[np.ndarray]:
    """The dancer moves out of the picture to the right, and is gone after half of the clip."""
    empty = dance(1)[0][:, :1].repeat(WIDTH, axis=1)
    step = 2 * WIDTH // frames
    return [
        np.roll(picture, index * step, axis=1) if index * 2 < frames else empty
        for index, picture in enumerate(dance(frames))
    ]


def coloured_scene() -> np.ndarray:
    """As a photograph is to these networks: something colourful, which the detector takes for somebody, no joints."""
    picture = np.full((HEIGHT, WIDTH, 3), 150, np.uint8)
    picture[60:130, 50:90] = (230, 30, 30)
    return picture


def found(
    estimator: OnnxPoseEstimator, folder: Path, reference: np.ndarray, driver: Iterable[np.ndarray]
) -> FoundPoses:
    estimator.estimate([reference]).save(folder / REFERENCE_TRACK)
    estimator.estimate(driver).save(folder / DRIVER_TRACK)
    return FoundPoses.load(folder)


@pytest.mark.parametrize(
    "reference",
    [puppet(), close_up(2), close_up(3), legs_only(), from_behind()],
    ids=["whole", "x2", "x3", "legs", "back"],
)
def test_puppets_pass_however_they_are_framed(
    estimator: OnnxPoseEstimator, tmp_path: Path, reference: np.ndarray
) -> None:
    measured = found(estimator, tmp_path, reference, dance(4))
    assert measured.good, measured.describe()
    require_found_poses(REQUEST.resolve("sandbox"), lambda: tmp_path)


def test_a_dancer_who_leaves_is_a_warning_and_no_error(estimator: OnnxPoseEstimator, tmp_path: Path) -> None:
    measured = found(estimator, tmp_path, puppet(), leaving(12))
    assert measured.enough
    assert not measured.good
    assert "too few in frame" in measured.describe()


def test_the_error_names_the_file_without_a_person(estimator: OnnxPoseEstimator, tmp_path: Path) -> None:
    for name, reference, driver in (
        ("reference", coloured_scene(), dance(2)),
        ("driver", puppet(), [coloured_scene()] * 6),
    ):
        folder = tmp_path / name
        folder.mkdir()
        assert not found(estimator, folder, reference, driver).enough
        with pytest.raises(PoseError, match=f"in the {name} ") as raised:
            require_found_poses(REQUEST.resolve("14b"), lambda folder=folder: folder)
        other = "driver" if name == "reference" else "reference"
        assert f"in the {other} " not in str(raised.value)
        assert "accept_poor_poses: true" in str(raised.value)
        assert "mean score 0." in str(raised.value)
        assert SANDBOX_KNOWS not in str(raised.value), "14b's networks know more"
        with pytest.raises(PoseError, match="only its own figures"):
            require_found_poses(REQUEST.resolve("sandbox"), lambda folder=folder: folder)
    assert "0 of 6 frames show a figure" in str(raised.value)
    assert "frames 0 to 5" in str(raised.value)


def test_poor_poses_can_be_accepted_and_removed_tracks_are_no_reason_to_refuse() -> None:
    accepting = AnimationRequest(**{**REQUEST.model_dump(), "accept_poor_poses": True}).resolve("sandbox")
    require_found_poses(accepting, lambda: pytest.fail("nobody needs to look"))
    require_found_poses(REQUEST.resolve("sandbox"), lambda: None)


def test_who_tries_the_sandbox_is_told_what_it_knows() -> None:
    assert SANDBOX_KNOWS in (sandbox_note([REQUEST], "sandbox") or "")
    assert SANDBOX_KNOWS in (sandbox_note([REQUEST], "sandbox-fp8") or "")
    assert sandbox_note([REQUEST], "14b") is None
    with pytest.raises(PoseError, match="nobody; the sandbox's networks know only"), sandbox_explained("sandbox"):
        raise PoseError("nobody")
    with pytest.raises(PoseError, match=r"^nobody$"), sandbox_explained("1.3b_1"):
        raise PoseError("nobody")


@pytest.mark.slow
def test_real_photographs_and_films_are_not_enough_for_the_sandbox(
    estimator: OnnxPoseEstimator, tmp_path: Path
) -> None:
    media = Path(__file__).resolve().parents[4] / "shared" / "media"
    if not media.is_dir():
        pytest.skip("no real media beside the repository (../shared/media)")
    for picture, video in (("img_768.png", "douyinvid5_v2_3s.mp4"), ("maodie_768.jpg", "vid_3s.mp4")):
        reference = read_image(media / picture)
        frames = resize_crop_frames(read_frames(media / video, 8), *reference.shape[:2])
        measured = found(estimator, tmp_path, reference, frames)
        assert not measured.reference.enough
        assert not measured.driver.enough
        assert max(measured.driver.joints) <= 2
