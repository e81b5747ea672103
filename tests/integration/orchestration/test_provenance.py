"""Every clip says what made it, and ``one-to-all trace`` says what became of that."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from typer.testing import CliRunner

from libs.command_line.main import app
from libs.media.video.stream_digest import stream_digest
from libs.provenance.clip_tag import read_origin
from libs.provenance.environment import code_state
from libs.provenance.record import parse_provenance
from libs.requests.documents.animation_request import ResolvedRequest
from libs.settings import get_settings
from orchestration.definitions import build_defs
from orchestration.jobs import ANIMATE
from orchestration.staleness import unfinished_assets
from tests.integration.orchestration.conftest import world_in
from tests.integration.orchestration.small_requests import submit_small, write_small_media


@pytest.fixture(scope="module")
def animated_folder(prepared_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world with one clip; copied by tests, never changed."""
    folder = tmp_path_factory.mktemp("animated") / "world"
    shutil.copytree(prepared_folder, folder)
    with world_in(folder) as world:
        submit_small(world, write_small_media(folder.parent / "media", 6), "puppet")
        assert world.animate("puppet").success
    return folder


@pytest.fixture
def animated(animated_folder: Path, tmp_path: Path) -> Iterator[Any]:
    """A world with one clip, and the command line looking at it."""
    shutil.copytree(animated_folder, tmp_path / "world")
    with world_in(tmp_path / "world") as world:
        get_settings.cache_clear()
        yield world
    get_settings.cache_clear()


def trace(*arguments: str) -> dict[str, Any]:
    result = CliRunner().invoke(app, ["trace", *arguments, "--json"])
    assert result.exit_code == 0, result.output
    return dict(json.loads(result.stdout))


def states(found: dict[str, Any]) -> dict[str, str]:
    return {link["what"]: link["state"] for link in found["links"] if link["decides"]}


@pytest.mark.slow
def test_from_the_clip_to_what_made_it(animated: Any, tmp_path: Path) -> None:
    world = animated
    artifact = world.artifact("animation", "puppet")
    clip = tmp_path / "found somewhere.mp4"
    shutil.copy(artifact.path("clip.mp4"), clip)

    # The mp4 alone restores the request as it was stored.
    stored = world.artifact("animation_request", "puppet").path("request.json").read_text()
    assert read_origin(clip).resolved_request() == ResolvedRequest.model_validate_json(stored)
    sidecar = parse_provenance(artifact.path("provenance.json").read_text(), "sidecar")
    assert sidecar.clip == read_origin(clip)
    assert sidecar.run.start in {"cold", "warm"}
    assert sidecar.run.seconds.keys() == {"pose_tracks", "pose_conditioning", "loading", "sampling"}
    assert all(seconds > 0 for seconds in sidecar.run.seconds.values())
    assert sidecar.clip.model.locks.keys() == {"checkpoint", "pose_models", "wan_resources"}
    conditioning = world.store.manifest("pose_conditioning", "puppet")
    assert sidecar.clip.pose_conditioning == conditioning.digest
    assert sidecar.clip.engine["seed"] == sidecar.clip.resolved_request().seed
    assert sidecar.clip.device.kind == "cpu"
    assert sidecar.run.run_id == world.store.manifest("animation", "puppet").attributes["run_id"]
    here = code_state()
    assert (sidecar.run.code and sidecar.run.code.commit) == (here and here.commit)
    assert sidecar.run.stream_digest == stream_digest(clip)

    fresh = trace("puppet")
    assert fresh["current"], fresh["links"]
    assert set(states(fresh).values()) == {"current"}
    assert trace(str(clip)) == fresh
    shown = CliRunner().invoke(app, ["trace", "puppet", "--request", str(tmp_path / "again.json")])
    assert shown.exit_code == 0
    assert shown.stdout.rstrip().endswith("current")

    # The restored document asks for the same clip: nothing changes when it is submitted.
    world.put("puppet.json", tmp_path / "again.json")
    keys = build_defs().resolve_job_def(ANIMATE.name).asset_layer.executable_asset_keys
    materialize(world, "animation_request", "request_media", "pose_options")
    assert unfinished_assets(build_defs(), world.instance, keys, "puppet") == []

    # Made again: another run, the same clip, so nothing downstream is stale.
    before = world.store.manifest("animation", "puppet")
    materialize(world, "animation")
    after = world.store.manifest("animation", "puppet")
    assert after.digest != before.digest, "times differ"
    assert after.file("clip.mp4").sha256 == before.file("clip.mp4").sha256
    assert unfinished_assets(build_defs(), world.instance, keys, "puppet") == []
    assert trace(str(clip))["current"]


@pytest.mark.slow
def test_the_mp4_alone_makes_the_same_clip_where_nothing_is_known_of_it(animated: Any, tmp_path: Path) -> None:
    """Only the models, the picture and the video are left: the request comes out of the clip."""
    world, clip = animated, tmp_path / "found somewhere.mp4"
    shutil.copy(world.artifact("animation", "puppet").path("clip.mp4"), clip)
    inbox = world.data_dir / "artifacts" / "inbox"
    media = {path.name: path.read_bytes() for path in (inbox / "puppet.png", inbox / "dance.mp4")}
    for folder in world.data_dir.iterdir():
        shutil.rmtree(folder)
    for name, content in media.items():
        world.put(name, content)
    world.verify_models()

    traced = trace(str(clip), "--request", str(tmp_path / "again.json"))
    assert not traced["current"]
    assert traced["run"] is None
    assert states(traced)["clip"] == states(traced)["request"] == states(traced)["poses"] == "missing"
    for part in ("reference", "driver"):
        recorded = traced["clip"][part]
        assert hashlib.sha256(media[recorded["path"]]).hexdigest() == recorded["sha256"]
        assert states(traced)[f"{part} {recorded['path']}"] == "current"

    world.put("puppet.json", tmp_path / "again.json")
    assert world.animate("puppet").success
    again = world.artifact("animation", "puppet").path("clip.mp4")
    assert stream_digest(again) == stream_digest(clip)
    assert again.read_bytes() == clip.read_bytes()
    assert trace(str(clip))["current"]


@pytest.mark.slow
def test_what_changed_is_named(animated: Any, tmp_path: Path) -> None:
    world = animated
    clip = tmp_path / "clip.mp4"
    shutil.copy(world.artifact("animation", "puppet").path("clip.mp4"), clip)

    inbox = world.data_dir / "artifacts" / "inbox"
    (inbox / "puppet.png").write_bytes(b"another picture")
    (inbox / "dance.mp4").unlink()
    found = trace("puppet")
    assert states(found)["reference puppet.png"] == "changed"
    assert states(found)["driver dance.mp4"] == "missing"

    configuration = world.models_dir / "One-to-All-sandbox" / "configuration.json"
    content = configuration.read_text()
    configuration.unlink()
    configuration.write_text(content + "\n")
    world.accept_model_files()
    models = {what: state for what, state in states(trace("puppet")).items() if what.startswith("model")}
    assert sorted(models.values()) == ["changed", "current", "current"]

    submit_small(world, write_small_media(tmp_path / "media", 6), "puppet", prompt="other", face="none")
    assert world.animate("puppet").success
    old = trace(str(clip))
    assert not old["current"]
    assert states(old)["clip"] == states(old)["request"] == states(old)["poses"] == "changed"
    (request,) = (link for link in old["links"] if link["what"] == "request")
    assert "face, prompt" in request["detail"]
    assert old["run"] is not None, "the older clip is kept with its record"
    assert trace("puppet")["current"]
    shown = CliRunner().invoke(app, ["trace", str(clip)])
    assert "out of date: clip, request, " in shown.stdout


def materialize(world: Any, *assets: str) -> None:
    job = build_defs().resolve_job_def(ANIMATE.name)
    keys = [dg.AssetKey(name) for name in assets]
    assert job.execute_in_process(partition_key="puppet", instance=world.instance, asset_selection=keys).success
