"""Requests with the same media share pose tracks: the networks run once. Everything else is looked for anew."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

from libs.pose.networks.sessions import NetworkSession
from libs.pose.track import PoseTrack
from libs.sandbox.media import write_puppet_clip, write_puppet_picture
from orchestration.definitions import build_defs
from orchestration.jobs import ANIMATE
from orchestration.partitions import ANIMATION_REQUESTS
from tests.integration.orchestration.small_requests import metadata_of, submit_small, write_small_media

FRAMES = 6


@pytest.fixture
def network_frames(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Frames per run of any pose network, real runs counted as they happen."""
    frames: list[int] = []
    run = NetworkSession.run

    def counted(self: NetworkSession, batch: np.ndarray) -> np.ndarray:
        frames.append(len(batch))
        return run(self, batch)

    monkeypatch.setattr(NetworkSession, "run", counted)
    return frames


@pytest.fixture
def media(tmp_path: Path) -> Path:
    return write_small_media(tmp_path / "media", FRAMES)


@pytest.fixture
def track(world: Any, media: Path) -> Callable[..., dict[str, Any]]:
    """Submit a request and materialize it as far as its pose tracks; gives the metadata of these."""

    def run(request_id: str, **fields: Any) -> dict[str, Any]:
        submit_small(world, media, request_id, **fields)
        world.instance.add_dynamic_partitions(ANIMATION_REQUESTS.name or "", [request_id])
        wanted = ["animation_request", "request_media", "pose_options", "pose_tracks"]
        build_defs().resolve_job_def(ANIMATE.name).execute_in_process(
            partition_key=request_id, instance=world.instance, asset_selection=[dg.AssetKey(name) for name in wanted]
        )
        return metadata_of(world, "pose_tracks", request_id)

    return run


def reused(metadata: dict[str, Any]) -> tuple[bool, bool]:
    return metadata["reference reused"], metadata["driver reused"]


def test_a_second_request_with_the_same_media_does_not_run_the_networks(
    world: Any, track: Callable[..., dict[str, Any]], network_frames: list[int]
) -> None:
    assert reused(track("first")) == (False, False)
    assert sum(network_frames) == 2 * (1 + FRAMES), "detector and pose network, picture and video"
    network_frames.clear()

    assert reused(track("second", prompt="another prompt", seed=7, mode="pose")) == (True, True)

    assert network_frames == []
    first, second = (world.store.manifest("pose_tracks", name) for name in ("first", "second"))
    assert first.digest == second.digest, "and its tracks are the same, byte for byte"


def test_another_picture_of_the_same_size_shares_the_driver(
    world: Any, media: Path, track: Callable[..., dict[str, Any]], network_frames: list[int]
) -> None:
    track("first")
    (media / "other.png").write_bytes((media / "puppet.png").read_bytes() + b"\0")  # other bytes, same pixels
    network_frames.clear()
    assert reused(track("second", reference="other.png")) == (False, True)
    assert network_frames == [1, 1]


def test_another_driver_shares_the_reference(
    world: Any, media: Path, track: Callable[..., dict[str, Any]], network_frames: list[int]
) -> None:
    track("first")
    write_puppet_clip(media / "other.mp4", frame_count=FRAMES, seed=3)
    network_frames.clear()
    assert reused(track("second", driver="other.mp4")) == (True, False)
    assert sum(network_frames) == 2 * FRAMES


def test_another_size_of_the_reference_or_another_interval_shares_nothing_of_the_driver(
    world: Any, media: Path, track: Callable[..., dict[str, Any]], network_frames: list[int]
) -> None:
    track("first")
    write_puppet_picture(media / "wide.png", width=384, height=384)
    assert reused(track("wide", reference="wide.png")) == (False, False)
    network_frames.clear()
    assert reused(track("every-second", frame_interval=2)) == (True, False)
    assert sum(network_frames) == 2 * FRAMES // 2


def test_a_part_of_a_driver_shares_the_track_of_the_whole(
    world: Any, track: Callable[..., dict[str, Any]], network_frames: list[int]
) -> None:
    assert track("middle", start="2f", duration="3f")["frames"] == 3
    assert sum(network_frames) == 2 * (1 + FRAMES), "the whole driver was looked at"
    network_frames.clear()
    assert reused(track("whole")) == (True, True)
    assert reused(track("end", start="3f")) == (True, True)
    assert network_frames == []
    tracks = {
        name: PoseTrack.load(world.artifact("pose_tracks", name).path("driver.npz"))
        for name in ("whole", "middle", "end")
    }
    for name, part in (("middle", slice(2, 5)), ("end", slice(3, None))):
        assert np.array_equal(tracks[name].body, tracks["whole"][part].body)


def test_other_pose_networks_share_nothing(
    world: Any, track: Callable[..., dict[str, Any]], network_frames: list[int]
) -> None:
    import onnx

    track("first")
    detector = next((world.models_dir / "One-to-All-sandbox").rglob("yolov10m.onnx"))
    model = onnx.load(detector)
    model.doc_string = "the same network in another file"
    detector.unlink()
    onnx.save(model, detector)
    world.accept_model_files()
    world.verify_models()
    network_frames.clear()
    assert reused(track("second")) == (False, False)
    assert sum(network_frames) == 2 * (1 + FRAMES)


def test_a_damaged_track_is_made_again_and_replaced(
    world: Any, track: Callable[..., dict[str, Any]], network_frames: list[int]
) -> None:
    track("first")
    stored = [info.key for info in world.objects.list("shared_pose_tracks/") if info.key.endswith("track.npz")]
    assert len(stored) == 2
    for key in stored:
        path = world.objects.root / key
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    for cached in (world.data_dir / "artifact_cache").rglob("track.npz"):
        cached.unlink()
    for cached in (world.data_dir / "artifact_cache" / "files").rglob("*"):
        if cached.is_file():
            cached.unlink()

    assert reused(track("second")) == (False, False)
    assert reused(track("third")) == (True, True)
    assert world.store.manifest("pose_tracks", "first").digest == world.store.manifest("pose_tracks", "third").digest
