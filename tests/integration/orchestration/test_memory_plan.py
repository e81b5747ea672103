"""A memory plan in a run: taken from the setting, shown and recorded. That clips are the same: unit tests."""

import json
from pathlib import Path
from typing import Any

import pytest

from libs.one_to_all.engine_cache import ENGINES
from tests.integration.orchestration.small_requests import metadata_of, submit_small, write_small_media


@pytest.mark.slow
def test_a_run_follows_the_plan_that_the_setting_names(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ONE_TO_ALL_MEMORY", "tiles")
    submit_small(world, write_small_media(tmp_path / "media", 5), "tiled")
    try:
        assert world.animate("tiled", review=False).success
    finally:
        ENGINES.clear()

    name = "sandbox: transformer offloaded, text encoder on the host, VAE in tiles"
    shown = metadata_of(world, "animation", "tiled")["memory plan"]
    assert shown["plan"] == name
    assert shown["bytes by phase"]["sampling"]["blocks on their way"] > 0
    record = json.loads(world.artifact("animation", "tiled").path("provenance.json").read_text())
    assert record["run"]["memory_plan"] == name
    assert record["clip"]["device"]["dtype"] == "torch.float32, VAE in tiles"
