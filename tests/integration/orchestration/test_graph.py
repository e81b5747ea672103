"""The whole graph, from a request in the inbox to a reviewed clip, on the sandbox models."""

import json
import shutil
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

from libs.media.video.probe import probe_video
from libs.media.video.reader import read_frames
from libs.requests.lifecycle.archive import REQUEST_ASSETS
from libs.settings import REPOSITORY_ROOT
from orchestration.definitions import build_defs
from orchestration.jobs import ANIMATE
from orchestration.policies import MAKES_TAG
from orchestration.staleness import unfinished_assets
from tests.integration.orchestration.small_requests import LARGER_WITH_SOUND, submit_small, write_small_media

RATE = Fraction(30000, 1001)
FRAMES = 11


@pytest.fixture(scope="session")
def puppet_media(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_media(tmp_path_factory.mktemp("media"), FRAMES, frame_rate=RATE)


@pytest.fixture
def submitted(world: Any, puppet_media: Path) -> Callable[..., str]:
    """Put a request and the puppet's media into the inbox."""

    def submit(request_id: str = "puppet", **fields: Any) -> str:
        return submit_to(world, puppet_media, request_id, **fields)

    return submit


def submit_to(world: Any, media: Path, request_id: str = "puppet", **fields: Any) -> str:
    """Put a small request and its media into the inbox of ``world``."""
    return submit_small(world, media, request_id, **{**LARGER_WITH_SOUND, "steps": 2, **fields})


def checks_of(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    """Those that make a clip wrong; warnings about its quality are tested in ``test_quality_checks``."""
    error = dg.AssetCheckSeverity.ERROR
    return {check.check_name: check.passed for check in result.get_asset_check_evaluations() if check.severity == error}


def failures_of(result: dg.ExecuteInProcessResult) -> dict[str, dg.DagsterEvent]:
    return {event.step_key or "": event for event in result.all_events if event.event_type_value == "STEP_FAILURE"}


def failure_message(result: dg.ExecuteInProcessResult, step: str) -> str:
    data = failures_of(result)[step].step_failure_data
    assert data.user_failure_data is not None, data.error
    return str(data.user_failure_data.description)


@pytest.mark.slow
def test_a_request_becomes_a_clip(world: Any, submitted: Callable[..., str]) -> None:
    result = world.animate(submitted())

    assert result.success
    assert all(checks_of(result).values()), result.get_asset_check_evaluations()
    assert len(checks_of(result)) == 6
    tags = world.instance.get_run_by_id(result.run_id).tags
    for asset in ("pose_networks", "animation_model"):
        (record,) = world.instance.fetch_observations(dg.AssetKey(asset), limit=1).records
        assert record.asset_observation.metadata["model"].value == "sandbox", "not only a digest is shown"
    assert tags[MAKES_TAG] == world.requests.find("puppet").content, "a run started by hand says what it makes"
    clip = probe_video(world.artifact("animation", "puppet").path("clip.mp4"))
    assert (clip.width, clip.height, clip.frame_count, clip.frame_rate) == (64, 96, FRAMES, RATE)
    assert clip.has_audio
    for asset in REQUEST_ASSETS:
        manifest = world.store.manifest(asset, "puppet")
        assert manifest is not None
        for file in manifest.files:
            assert world.objects.head(file.key).size == file.size
    assert not list(world.objects.list("chunks/")), "chunk scratch is removed when the clip is stored"
    scratch = world.data_dir / "one_to_all_animation_runtime" / "scratch"
    assert not list(scratch.iterdir()), "scratch folders are removed when their files are stored"


@pytest.mark.slow
def test_runtime_files_lie_where_settings_say_and_third_party_stays_as_it_is(
    world: Any, submitted: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def snapshot() -> dict[str, tuple[int, int]]:
        third_party = REPOSITORY_ROOT / "third_party"
        return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in third_party.rglob("*")}

    before = snapshot()
    shutil.rmtree(world.data_dir / "one_to_all_animation_runtime")
    monkeypatch.setenv("ONE_TO_ALL_RUNTIME_DIR", str(tmp_path / "runtime"))
    world.animate(submitted(), review=False)
    assert snapshot() == before
    assert (tmp_path / "runtime" / "scratch").is_dir()
    assert not (world.data_dir / "one_to_all_animation_runtime").exists()


@pytest.mark.slow
def test_the_same_request_gives_the_same_frames(world: Any, submitted: Callable[..., str]) -> None:
    for request_id in ("one", "two"):
        world.animate(submitted(request_id, keep_audio=request_id == "one"), review=False)
    one, two = (
        np.stack(list(read_frames(world.artifact("animation", name).path("clip.mp4")))) for name in ("one", "two")
    )
    np.testing.assert_array_equal(one, two)
    assert not probe_video(world.artifact("animation", "two").path("clip.mp4")).has_audio


@pytest.mark.slow
def test_staleness_follows_exactly_what_changed(world: Any, submitted: Callable[..., str]) -> None:
    request_id = submitted()
    world.animate(request_id)
    definitions = build_defs()
    job = definitions.resolve_job_def(ANIMATE.name)
    keys = job.asset_layer.executable_asset_keys

    def unfinished() -> set[str]:
        found = unfinished_assets(definitions, world.instance, keys, request_id)
        return {key.to_user_string() for key in found}

    assert unfinished() == set()
    submitted(prompt="a red puppet")
    request_assets = ["animation_request", "request_media", "pose_options"]
    job.execute_in_process(
        partition_key=request_id,
        instance=world.instance,
        asset_selection=[dg.AssetKey(name) for name in request_assets],
    )
    event = world.instance.get_latest_materialization_event(dg.AssetKey("animation_request"))
    assert event.asset_materialization.metadata["length of the prompt"].text.endswith(" of 512 tokens used")
    assert unfinished() == {"animation", "animation_review"}
    world.animate(request_id)
    assert unfinished() == set()

    verified = world.prepare_models()
    assert all(checks_of(verified).values())
    assert len(checks_of(verified)) == 3  # one per part; that of third_party only warns
    assert unfinished() == set(), "identical bytes verified again change nothing"
    configuration = world.models_dir / "One-to-All-sandbox" / "configuration.json"
    content = configuration.read_text()
    configuration.unlink()
    configuration.write_text(content + "\n")
    world.accept_model_files()
    world.verify_models()
    assert unfinished() == {"animation", "animation_review"}

    submitted(face="none", prompt="a red puppet")
    job.execute_in_process(
        partition_key=request_id,
        instance=world.instance,
        asset_selection=[dg.AssetKey(name) for name in request_assets],
    )
    assert unfinished() == {"pose_conditioning", "animation", "animation_review"}


@pytest.mark.slow
def test_a_broken_shard_stops_the_animation_before_it_starts(world: Any, submitted: Callable[..., str]) -> None:
    shard = next((world.models_dir / "One-to-All-sandbox").glob("model-00001-*.safetensors"))
    content = shard.read_bytes()
    shard.unlink()
    shard.write_bytes(content[: len(content) // 2])

    result = world.animate(submitted(), raise_on_error=False)

    assert not result.success
    assert checks_of(result) == {"model_files_complete": False}
    assert world.store.manifest("animation", "puppet") is None
    assert world.store.manifest("pose_tracks", "puppet") is None


@pytest.mark.slow
def test_a_variant_that_was_never_verified_is_refused(unverified_world: Any, puppet_media: Path) -> None:
    world = unverified_world
    result = world.animate(submit_to(world, puppet_media), raise_on_error=False)
    (check,) = result.get_asset_check_evaluations()
    assert not check.passed
    assert "run the job prepare_models for partition 'sandbox'" in str(check.description)
    assert world.store.manifest("animation", "puppet") is None


@pytest.mark.parametrize(
    ("fields", "files", "expected"),
    [
        ({"reference": "nobody.png"}, {}, "reference: there is no file 'nobody.png'"),
        ({"driver": "gone.mp4"}, {}, "driver: there is no file 'gone.mp4'"),
        ({"driver": "broken.mp4"}, {"broken.mp4": b"not a video"}, "broken.mp4|driver.mp4"),
        ({"reference": "broken.png"}, {"broken.png": b"\x89PNG\r\n\x1a\n"}, "reference: 'broken.png'"),
        ({"steps": 0}, {}, "steps: "),
        ({"speed": 2}, {}, "speed: unknown field"),
        ({"id": "other"}, {}, "id: is 'other'"),
    ],
)
def test_bad_input_is_explained_and_stores_nothing(
    world: Any, submitted: Callable[..., str], fields: dict[str, Any], files: dict[str, bytes], expected: str
) -> None:
    submitted("bad", **{key: value for key, value in fields.items() if key != "id"})
    if "id" in fields:
        world.put("bad.json", json.dumps({"id": "other", "reference": "puppet.png", "driver": "dance.mp4"}).encode())
    for name, content in files.items():
        world.put(name, content)

    result = world.animate("bad", raise_on_error=False)

    assert not result.success
    message = failure_message(result, "validate_request")
    assert any(part in message for part in expected.split("|")), message
    data = failures_of(result)["validate_request"].step_failure_data
    assert data.user_failure_data is not None
    assert not [event for event in result.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]
    assert all(world.store.manifest(asset, "bad") is None for asset in REQUEST_ASSETS)
    scratch = world.data_dir / "one_to_all_animation_runtime" / "scratch"
    assert not scratch.exists() or not list(scratch.iterdir())


def test_a_wrong_setting_ends_the_run_at_once(empty_world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """A warm worker reads the settings anew for each run."""
    job = build_defs().resolve_job_def(ANIMATE.name)
    monkeypatch.setenv("ONE_TO_ALL_DEVICE", "gpu")
    empty_world.instance.add_dynamic_partitions("animation_requests", ["any"])
    result = job.execute_in_process(partition_key="any", instance=empty_world.instance, raise_on_error=False)
    assert "must be auto, cpu, cuda or cuda:N" in failure_message(result, "validate_request")
    assert not [event for event in result.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]


MEDIA = REPOSITORY_ROOT.parent / "shared" / "media"


@pytest.mark.slow
@pytest.mark.skipif(not MEDIA.is_dir(), reason="the folder of real test media is not beside this checkout")
@pytest.mark.parametrize(
    ("reference", "driver", "frames", "rate", "size"),
    [
        ("img_768.png", "vid_3s.mp4", 90, Fraction(30), {"height": 64, "width": 64}),
        ("maodie_768.jpg", "douyinvid5_v2_3s.mp4", 72, Fraction(24), None),
    ],
)
def test_real_media_go_through_the_whole_graph(
    world: Any, reference: str, driver: str, frames: int, rate: Fraction, size: dict[str, int] | None
) -> None:
    """The sandbox's networks find no joints in real pictures: no GPU time is spent, unless the request accepts that."""
    for name in (reference, driver):
        world.put(name, MEDIA / name)
    request = {"id": "real", "reference": reference, "driver": driver, "model": "sandbox", "steps": 1, "size": size}
    world.put("real.json", json.dumps(request).encode())
    stopped = world.animate("real", raise_on_error=False)
    assert not stopped.success
    assert world.store.manifest("animation", "real") is None
    world.put("real.json", json.dumps({**request, "accept_poor_poses": True}).encode())
    result = world.animate("real", review=False)
    clip = probe_video(world.artifact("animation", "real").path("clip.mp4"))
    assert (clip.frame_count, clip.frame_rate, clip.has_audio) == (frames, rate, False)
    assert min(clip.width, clip.height) == (64 if size else 128)
    assert clip.width % 16 == clip.height % 16 == 0
    assert all(checks_of(result).values())
