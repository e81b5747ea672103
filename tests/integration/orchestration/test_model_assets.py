"""Model-file assets of real variants, with the real hub clients against a local hub; FP8 and stash on the sandbox."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from typer.testing import CliRunner

from libs.command_line.main import app
from libs.media.video.probe import probe_video
from libs.model_repo.layout import layout_of
from libs.model_repo.variants import DWPOSE_SOURCE, POSE_NETWORKS_SOURCE, get_variant
from libs.model_repo.verification.lock import read_lock
from libs.sandbox.media import write_puppet_clip, write_puppet_picture
from libs.settings import get_settings, load_settings
from orchestration.definitions import build_defs
from orchestration.jobs import ANIMATE, PREPARE_MODELS
from orchestration.staleness import unfinished_assets
from orchestration.storage.observed import observed_versions
from tests.integration.model_repo.local_hub import LocalHub

VARIANT = "1.3b_1"
SHARD = "model-00001-of-00001.safetensors"


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LocalHub]:
    for name in ("HF_HUB_OFFLINE", "HF_TOKEN", "HF_ENDPOINT", "MODELSCOPE_API_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    variant = get_variant(VARIANT)
    assert variant.checkpoint is not None
    assert variant.wan is not None
    with LocalHub() as server:
        index = {"weight_map": {"tensor": SHARD}}
        server.add(
            variant.checkpoint.repo_id,
            {
                "configuration.json": b'{"framework": "pytorch"}',
                "model.safetensors.index.json": json.dumps(index).encode(),
                SHARD: b"not a shard",
            },
        )
        server.add(variant.wan.repo_id, {f"{part}/config.json": b"{}" for part in ("vae", "text_encoder", "scheduler")})
        server.add(DWPOSE_SOURCE.repo_id, {"DWPose/dw.onnx": b"dwpose"})
        server.add(POSE_NETWORKS_SOURCE.repo_id, {"process_checkpoint/det/yolov10m.onnx": b"detector"})
        monkeypatch.setenv("MODEL_HUB_ENDPOINT", server.url)
        yield server


def materialize(world: Any, partition: str, *assets: str, **config: dict[str, Any]) -> dg.ExecuteInProcessResult:
    job = build_defs().resolve_job_def(PREPARE_MODELS.name)
    return job.execute_in_process(
        partition_key=partition,
        instance=world.instance,
        asset_selection=[dg.AssetKey(asset) for asset in assets],
        run_config={"ops": {asset: {"config": settings} for asset, settings in config.items()}},
        raise_on_error=False,
    )


def failure_of(result: dg.ExecuteInProcessResult) -> str:
    (event,) = [event for event in result.all_events if event.is_step_failure]
    assert event.step_failure_data.user_failure_data is not None, event.step_failure_data.error
    return str(event.step_failure_data.user_failure_data.description)


@pytest.mark.slow
@pytest.mark.parametrize("source", ["modelscope", "huggingface"])
def test_a_checkpoint_is_fetched_locked_and_judged(unverified_world: Any, hub: LocalHub, source: str) -> None:
    world = unverified_world
    fetched = materialize(world, VARIANT, "one_to_all_checkpoint", one_to_all_checkpoint={"hub": source})
    assert fetched.success
    lock = read_lock(layout_of(VARIANT, load_settings()))
    assert lock is not None
    assert {entry.hub for entry in lock.files.values()} == {source}
    inventory = json.loads(world.artifact("one_to_all_checkpoint", VARIANT).path("inventory.json").read_text())
    assert inventory[SHARD]["sha256"] == lock.files[SHARD].sha256

    source_repository = get_variant(VARIANT).checkpoint
    assert source_repository is not None
    repository = hub.repositories[source_repository.repo_id]
    observed = f"{source_repository.repo_id}@{repository.revision}"
    assert observed_versions(world.instance, "checkpoint_repository") == {VARIANT: observed}
    assert not unfinished_assets(build_defs(), world.instance, [dg.AssetKey("one_to_all_checkpoint")], VARIANT), (
        "what a step observes of its own inputs is not newer than its output"
    )

    judged = materialize(world, VARIANT, "model_verification")
    checks = {check.check_name: check for check in judged.get_asset_check_evaluations()}
    assert not checks["checkpoint_complete"].passed
    assert SHARD in str(checks["checkpoint_complete"].description)
    assert "one-to-all models download 1.3b_1" in str(checks["wan_resources_complete"].description)


@pytest.mark.slow
def test_a_revision_fetched_by_hand_is_observed_by_the_next_verification(unverified_world: Any, hub: LocalHub) -> None:
    world = unverified_world
    assert materialize(world, VARIANT, "one_to_all_checkpoint").success
    checkpoint = get_variant(VARIANT).checkpoint
    assert checkpoint is not None
    before = hub.repositories[checkpoint.repo_id].revision
    hub.add(checkpoint.repo_id, {SHARD: b"other bytes"})
    get_settings.cache_clear()
    fetched = CliRunner().invoke(app, ["models", "download", VARIANT, "--part", "checkpoint", "--update"])
    assert fetched.exit_code == 0, fetched.output

    materialize(world, VARIANT, "model_verification")

    after = hub.repositories[checkpoint.repo_id].revision
    assert after != before
    assert observed_versions(world.instance, "checkpoint_repository") == {VARIANT: f"{checkpoint.repo_id}@{after}"}
    keys = [dg.AssetKey("one_to_all_checkpoint")]
    assert unfinished_assets(build_defs(), world.instance, keys, VARIANT) == keys
    assert materialize(world, VARIANT, "one_to_all_checkpoint").success
    assert unfinished_assets(build_defs(), world.instance, keys, VARIANT) == []


@pytest.mark.slow
def test_other_bytes_for_the_same_revision_are_an_error_not_an_update(unverified_world: Any, hub: LocalHub) -> None:
    world = unverified_world
    configuration = {"hub": "huggingface"}
    assert materialize(world, VARIANT, "one_to_all_checkpoint", one_to_all_checkpoint=configuration).success
    shard = layout_of(VARIANT, load_settings()).root / SHARD
    shard.unlink()
    repository = get_variant(VARIANT).checkpoint
    assert repository is not None
    revision = hub.repositories[repository.repo_id].revision
    hub.add(repository.repo_id, {SHARD: b"other bytes"})
    hub.repositories[repository.repo_id].revision = revision

    result = materialize(world, VARIANT, "one_to_all_checkpoint", one_to_all_checkpoint=configuration)

    assert not result.success
    assert not shard.exists()
    assert not [event for event in result.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]


def test_a_hub_that_does_not_exist_is_a_clear_error(unverified_world: Any, hub: LocalHub) -> None:
    result = materialize(unverified_world, VARIANT, "one_to_all_checkpoint", one_to_all_checkpoint={"hub": "github"})
    assert "MODEL_HUB" in failure_of(result)


@pytest.mark.slow
def test_a_broken_shard_turns_the_verification_red(world: Any) -> None:
    shard = next((world.models_dir / "One-to-All-sandbox").glob("model-00001-*.safetensors"))
    beginning = shard.read_bytes()[:1000]
    shard.unlink()
    shard.write_bytes(beginning)
    result = materialize(world, "sandbox", "model_verification")
    checks = {check.check_name: check for check in result.get_asset_check_evaluations()}
    assert not checks["checkpoint_complete"].passed
    assert checks["pose_models_complete"].passed
    assert "one-to-all models" in str(checks["checkpoint_complete"].description)


@pytest.mark.slow
def test_a_replaced_checkpoint_of_an_fp8_variant_makes_its_clips_stale(world: Any, tmp_path: Path) -> None:
    assert world.prepare_models("sandbox-fp8").success
    write_puppet_picture(tmp_path / "puppet.png")
    write_puppet_clip(tmp_path / "dance.mp4", frame_count=5)
    for name in ("puppet.png", "dance.mp4"):
        world.put(name, tmp_path / name)
    clips = {"sandbox": "plain", "sandbox-fp8": "small"}
    for variant, name in clips.items():
        request = {"id": name, "reference": "puppet.png", "driver": "dance.mp4", "model": variant, "steps": 1}
        request["size"] = {"height": 64, "width": 48}
        world.put(f"{name}.json", json.dumps(request).encode())
        assert world.animate(name).success
        assert probe_video(world.artifact("animation", name).path("clip.mp4")).frame_count == 5
    keys = build_defs().resolve_job_def(ANIMATE.name).asset_layer.executable_asset_keys

    def stale() -> dict[str, set[str]]:
        """What Dagster itself calls stale, of each clip."""
        found = {name: unfinished_assets(build_defs(), world.instance, keys, name) for name in clips.values()}
        return {name: {key.to_user_string() for key in of_clip} for name, of_clip in found.items()}

    assert stale() == {"plain": set(), "small": set()}
    for variant, name in clips.items():
        configuration = layout_of(variant, load_settings()).root / "configuration.json"
        original = configuration.read_bytes()
        for content, expected in ((original + b"\n", {"animation", "animation_review"}), (original, set())):
            configuration.unlink()  # a hard link, in places
            configuration.write_bytes(content)
            world.accept_model_files(variant)
            world.verify_models(variant)
            assert stale() == {"plain": set(), "small": set()} | {name: expected}


@pytest.fixture
def old_stash(world: Any) -> Path:
    """An older installation's pretrained files of the 14B model, with its base transformer."""
    sandbox = world.models_dir / "One-to-All-sandbox" / "pretrained_models"
    stash = Path(world.models_dir / "One-to-All-Animation" / "pretrained_models")
    shutil.copytree(sandbox, stash)
    wan = stash / "Wan2.1-T2V-14B-Diffusers"
    (stash / "Wan2.1-T2V-sandbox-Diffusers").rename(wan)
    (wan / "transformer").mkdir()
    (wan / "transformer" / "weights.safetensors").write_bytes(b"x" * 1000)
    return stash


@pytest.mark.slow
def test_an_old_stash_is_migrated_only_when_told_to(world: Any, old_stash: Path) -> None:
    vae = layout_of("14b", load_settings()).wan / "vae" / "config.json"
    assert materialize(world, "14b", "migrated_pretrained_models").success
    assert not vae.exists()
    assert materialize(world, "14b", "migrated_pretrained_models", migrated_pretrained_models={"apply": True}).success
    assert vae.samefile(old_stash / "Wan2.1-T2V-14B-Diffusers" / "vae" / "config.json")
    assert not (vae.parents[1] / "transformer").exists()
    report = json.loads(world.artifact("migrated_pretrained_models", "14b").path("migration.json").read_text())
    assert report["applied"]
    assert "pretrained_models/Wan2.1-T2V-14B-Diffusers/vae/config.json" in report["files"]


def test_a_stash_is_not_deleted_before_a_complete_verification(world: Any, old_stash: Path) -> None:
    job = build_defs().resolve_job_def("delete_old_stash")
    configuration = {"ops": {"delete_stash_if_verified": {"config": {"variant": "14b", "apply": True}}}}
    result = job.execute_in_process(instance=world.instance, run_config=configuration, raise_on_error=False)
    assert "was never verified" in failure_of(result)
    materialize(world, "14b", "model_verification")
    result = job.execute_in_process(instance=world.instance, run_config=configuration, raise_on_error=False)
    assert "incomplete" in failure_of(result)
    assert (old_stash / "DWPose").is_dir()
