"""A LoRA replaced under its name puts exactly the clips out of date that were made with it."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import torch
from safetensors.torch import save_file

from libs.model_repo.layout import layout_of
from libs.settings import load_settings
from orchestration.models.lora_watch import lora_watch
from orchestration.models.models_in_use import ModelVersion
from orchestration.staleness import stale_clips
from orchestration.storage.observed import observed_versions
from tests.integration.orchestration.small_requests import submit_small, write_small_media
from tests.integration.orchestration.staleness import Watch, materialize, stale

REQUEST_ASSETS = ["animation_request", "request_media", "pose_options"]
CLIP_ASSETS = [*REQUEST_ASSETS, "pose_tracks", "pose_conditioning", "animation"]
OBSERVED = [("animation_model", "with")]


def write_lora(name: str, value: float) -> Path:
    path = layout_of("sandbox", load_settings()).lora(name)
    path.parent.mkdir(exist_ok=True)
    # the sandbox network is 128 wide
    save_file({"diffusion_model.blocks.1.cross_attn.o.diff": torch.full((128, 128), value)}, path)
    return path


@pytest.mark.slow
def test_a_replaced_lora_makes_exactly_its_own_clips_stale(world: Any, tmp_path: Path) -> None:
    media = write_small_media(tmp_path / "media", 3, audio=False)
    write_lora("look", 0.01)
    write_lora("other", 0.01)
    for request_id, fields in {"with": {"lora": "look"}, "without": {}}.items():
        materialize(world, submit_small(world, media, request_id, **fields), *CLIP_ASSETS)
    watch = Watch(world, lora_watch)
    assert watch.tick() == [], "every file is looked at for the first time"
    assert stale(world, "with", *CLIP_ASSETS) == set()

    def versions() -> dict[str, ModelVersion]:
        found = observed_versions(world.instance, "animation_model")
        return {request_id: ModelVersion.parse(text) for request_id, text in found.items()}

    made_with = versions()
    assert made_with["without"] == ModelVersion(made_with["with"].files)
    assert made_with["with"].loras[0].path == "One-to-All-sandbox/loras/look.safetensors"

    write_lora("other", 0.02)
    assert watch.tick() == []
    write_lora("look", 0.02)
    assert watch.tick() == OBSERVED
    assert watch.tick() == []
    assert stale(world, "with", *CLIP_ASSETS) == {"animation"}
    assert stale(world, "without", *CLIP_ASSETS) == set()
    assert stale_clips(world.instance, ["with", "without"]) == {"with": ["LoRA look changed"]}

    write_lora("look", 0.01)
    assert watch.tick() == OBSERVED
    assert stale(world, "with", *CLIP_ASSETS) == set(), "the old file is back"
    layout_of("sandbox", load_settings()).lora("look").unlink()
    assert watch.tick() == []
    assert stale(world, "with", *CLIP_ASSETS) == set(), "nothing else is there"

    # Replaced between the validation of a request and its clip, as a retried run may find it.
    write_lora("look", 0.03)
    materialize(world, "with", "animation")
    assert stale(world, "with", *CLIP_ASSETS) == set()
    assert watch.tick() == [], "the run observed what it took"

    # Other model files: each request keeps its LoRA, and both are stale.
    before = versions()
    configuration = layout_of("sandbox", load_settings()).root / "configuration.json"
    content = configuration.read_bytes()
    configuration.unlink()  # a hard link, in places
    configuration.write_bytes(content + b"\n")
    world.accept_model_files()
    world.verify_models()
    assert versions()["with"].loras == before["with"].loras
    assert versions()["without"].loras == ()
    assert versions()["with"].files == versions()["without"].files != before["with"].files
    assert stale(world, "with", *CLIP_ASSETS) == stale(world, "without", *CLIP_ASSETS) == {"animation"}


def test_a_watch_without_models_sees_nothing(empty_world: Any) -> None:
    assert Watch(empty_world, lora_watch).tick() == []


def test_the_watch_is_a_sensor_that_runs_by_itself() -> None:
    from orchestration.definitions import build_defs

    found = build_defs().get_repository_def().get_sensor_def("lora_watch")
    assert found.default_status == dg.DefaultSensorStatus.RUNNING
