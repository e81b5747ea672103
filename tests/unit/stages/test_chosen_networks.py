"""Which networks look for people: what the request says, what is on the disk, and whose key-points are taken."""

import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import pytest

from libs.errors import ModelFilesError, PoseError
from libs.model_repo.hubs.wheel import MEDIAPIPE
from libs.model_repo.layout import layout_of
from libs.pose.estimator import BetterEstimator
from libs.pose.keypoints import WHOLEBODY_COUNT
from libs.pose.track import PoseTrack
from libs.settings import Settings
from libs.stages.poses.chosen_networks import choose_networks


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(models_dir=tmp_path / "models", data_dir=tmp_path / "data")


def put_networks(settings: Settings, variant: str) -> None:
    layout = layout_of(variant, settings)
    for path in (layout.detector, layout.pose_estimator):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"network")


def put_mediapipe(settings: Settings) -> None:
    folder = MEDIAPIPE.folder(settings.models_dir)
    folder.mkdir(parents=True)
    for member in MEDIAPIPE.members:
        with (folder / member.name).open("wb") as file:
            file.truncate(member.size)


def chosen(settings: Settings, choice: str | None, variant: str = "14b") -> tuple[str, str | None]:
    networks = choose_networks(choice, layout_of(variant, settings), settings, "own")
    return networks.name, networks.version


def test_a_request_without_a_choice_uses_the_variants_networks_and_their_version(settings: Settings) -> None:
    assert chosen(settings, None) == ("vitpose", "own")
    assert chosen(settings, None, "sandbox-fp8") == ("sandbox", "own")
    assert chosen(settings, "vitpose") == ("vitpose", "own")
    assert chosen(settings, "sandbox", "sandbox") == ("sandbox", "own")


def test_auto_takes_vitpose_where_it_is_and_else_mediapipe_with_a_note(settings: Settings) -> None:
    with pytest.raises(ModelFilesError, match=r"download 14b --part pose_models`, or `one-to-all models download medi"):
        choose_networks("auto", layout_of("14b", settings), settings, "own")
    put_mediapipe(settings)
    networks = choose_networks("auto", layout_of("14b", settings), settings, "own")
    assert networks.name == "mediapipe"
    assert networks.note is not None and "ViTPose's networks are not here" in networks.note
    assert networks.version is not None and MEDIAPIPE.sha256 in networks.version
    put_networks(settings, "14b")
    assert chosen(settings, "auto") == ("vitpose", "own")


def test_auto_with_the_sandbox_looks_with_both_where_both_are(settings: Settings) -> None:
    alone = choose_networks("auto", layout_of("sandbox", settings), settings, "own")
    assert (alone.name, alone.version) == ("sandbox", "own")
    assert alone.note is not None and "one-to-all models download mediapipe" in alone.note
    put_mediapipe(settings)
    name, version = chosen(settings, "auto", "sandbox")
    assert name == "sandbox or mediapipe"
    assert version is not None and version.startswith("own or mediapipe ")


def test_networks_that_are_named_and_not_here_are_an_error_with_the_way_out(settings: Settings) -> None:
    for choice, variant, words in (
        ("mediapipe", "14b", "models download mediapipe"),
        ("vitpose", "sandbox", "models download 14b --part pose_models"),
        ("sandbox", "14b", "models download sandbox"),
    ):
        with pytest.raises(ModelFilesError, match=words):
            choose_networks(choice, layout_of(variant, settings), settings, None)
    put_networks(settings, "1.3b_1")
    assert chosen(settings, "vitpose", "sandbox") == ("vitpose", None), "the same for all variants"
    put_mediapipe(settings)
    shutil.rmtree(MEDIAPIPE.folder(settings.models_dir))
    with pytest.raises(ModelFilesError, match="is missing"):
        choose_networks("mediapipe", layout_of("14b", settings), settings, None)


class Fixed:
    """Finds a body of one score in each frame, or nobody."""

    def __init__(self, score: float | None, stop_after: int | None = None) -> None:
        self.score, self.stop_after, self.seen = score, stop_after, 0

    def estimate(
        self,
        frames: Iterable[np.ndarray],
        subject: str = "video",
        progress: Callable[[int], None] | None = None,
        *,
        lost_start_allowed: bool = False,
    ) -> PoseTrack:
        for frame in frames:
            self.seen += 1
            if self.seen == self.stop_after:
                raise PoseError("stopped early")
            size = frame.shape[1], frame.shape[0]
        if self.score is None:
            raise PoseError("nobody")
        points = np.full((self.seen, WHOLEBODY_COUNT, 3), 1.0, np.float32)
        points[..., 2] = self.score
        return PoseTrack.from_wholebody(points, *size)

    def keypoints(self, frames: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros((len(frames), 5)), np.full((len(frames), WHOLEBODY_COUNT, 3), self.score or 0.0, np.float32)


FRAMES = [np.zeros((8, 8, 3), np.uint8)] * 6


@pytest.mark.parametrize(
    ("first", "second", "name"), [(0.4, 0.8, "second"), (0.8, 0.4, "first"), (None, 0.4, "second")]
)
def test_the_better_track_is_used_and_both_scores_are_reported(
    first: float | None, second: float | None, name: str
) -> None:
    better = BetterEstimator(("first", Fixed(first)), ("second", Fixed(second)))
    track = better.estimate(iter(FRAMES), "driver")
    assert len(track) == 6
    assert float(track.body[0, 0, 2]) == pytest.approx(max(first or 0, second or 0))
    assert better.found["driver"].startswith(name)
    _, points = better.keypoints(FRAMES)
    assert float(points.max()) == pytest.approx(max(first or 0, second or 0))


def test_networks_that_stop_early_do_not_block_and_no_person_for_both_is_an_error() -> None:
    track = BetterEstimator(("first", Fixed(0.5)), ("second", Fixed(0.9, stop_after=2))).estimate(FRAMES)
    assert float(track.body[0, 0, 2]) == pytest.approx(0.5)
    late = Fixed(0.5)
    track = BetterEstimator(("first", Fixed(0.9, stop_after=2)), ("second", late)).estimate(FRAMES)
    assert late.seen == 6, "the second sees every frame although the first stopped"
    with pytest.raises(PoseError, match="nobody"):
        BetterEstimator(("first", Fixed(None)), ("second", Fixed(None))).estimate(FRAMES)
