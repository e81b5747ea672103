"""Housekeeping on a real instance: what is done with goes, and what the present rests on stays."""

import os
import re
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

from libs.housekeeping.inspection import inspect
from libs.requests.lifecycle.archive import REQUEST_ASSETS, RequestArchive
from libs.storage.artifacts import ArtifactFiles
from libs.storage.chunks import StoredChunks
from orchestration.definitions import build_defs
from orchestration.housekeeping.archive import archive_requests, requests_to_archive
from orchestration.housekeeping.old_runs import superfluous_runs
from orchestration.jobs import ANIMATE
from orchestration.partitions import ANIMATION_REQUESTS, MODEL_VARIANTS, requests_of_variant
from orchestration.staleness import unfinished_assets
from tests.integration.orchestration.daemon import Daemon
from tests.integration.orchestration.small_requests import clip_of, submit_small, write_small_media

VALIDATED_ASSETS = ["animation_request", "request_media", "pose_options"]
DAY = 24 * 3600.0


def run_job(world: Any, name: str, *, dry_run: bool = False) -> dict[str, dict[str, Any]]:
    """Execute a job; gives the metadata of each op."""
    job = build_defs().resolve_job_def(name)
    config = {"ops": {node.name: {"config": {"dry_run": dry_run}} for node in job.nodes}}
    result = job.execute_in_process(instance=world.instance, run_config=config)
    assert result.success
    outputs = [event for event in result.all_node_events if event.event_type_value == "STEP_OUTPUT"]
    return {
        event.node_name: {name: value.value for name, value in event.step_output_data.metadata.items()}
        for event in outputs
    }


def validate(world: Any, request_id: str) -> str:
    """Materialize the first assets of a request; gives the run's id."""
    world.instance.add_dynamic_partitions(ANIMATION_REQUESTS.name or "", [request_id])
    result = (
        build_defs()
        .resolve_job_def(ANIMATE.name)
        .execute_in_process(
            partition_key=request_id,
            instance=world.instance,
            asset_selection=[dg.AssetKey(name) for name in VALIDATED_ASSETS],
        )
    )
    return str(result.run_id)


def registered(world: Any) -> list[str]:
    return sorted(world.instance.get_dynamic_partitions(ANIMATION_REQUESTS.name or ""))


def runs(world: Any) -> set[str]:
    return set(world.instance.get_run_ids())


def unfinished(world: Any) -> dict[str, set[str]]:
    """What Dagster finds missing or stale of the models and of the request ``pending``."""
    definitions = build_defs()
    graph = definitions.resolve_asset_graph()
    found = {}
    for partition, partitions_def in (("sandbox", MODEL_VARIANTS), ("pending", ANIMATION_REQUESTS)):
        keys = [key for key in graph.materializable_asset_keys if graph.get(key).partitions_def == partitions_def]
        missing = unfinished_assets(definitions, world.instance, keys, partition)
        found[partition] = {key.to_user_string() for key in missing}
    assert "model_verification" not in found["sandbox"]
    assert found["pending"] == {"pose_tracks", "pose_conditioning", "animation", "animation_review"}
    return found


def make_old(folder: Path, days: float = 30) -> None:
    """As if nothing in ``folder`` had been touched for that long."""
    then = time.time() - days * DAY
    for path in [folder, *folder.rglob("*")]:
        os.utime(path, (then, then))


@pytest.mark.slow
def test_finished_requests_and_their_runs_go_and_everything_else_stays(
    world: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (prepared,) = runs(world)
    media = write_small_media(tmp_path / "media", 5)
    for name in ("done", "pending"):
        submit_small(world, media, name)
    made = world.animate("done").run_id
    replaced, newest = validate(world, "pending"), validate(world, "pending")
    clip = clip_of(world, "done")

    assert run_job(world, "housekeeping")["archive_finished_requests"]["requests archived"] == 0
    assert registered(world) == ["done", "pending"]
    before, known_before = runs(world), unfinished(world)
    assert before >= {prepared, made, replaced, newest}

    monkeypatch.setenv("ARCHIVE_AFTER_DAYS", "0")
    monkeypatch.setenv("PRUNE_RUNS_AFTER_DAYS", "0")
    looked = run_job(world, "housekeeping", dry_run=True)
    assert looked["archive_finished_requests"]["names"] == "done"
    assert registered(world) == ["done", "pending"]
    assert runs(world) > before

    told = run_job(world, "housekeeping")
    assert told["archive_finished_requests"] == {"requests archived": 1, "names": "done"}
    assert registered(world) == requests_of_variant(world.instance, "sandbox") == ["pending"]
    left = runs(world)
    assert {prepared, newest} <= left
    assert not {made, replaced} & left
    databases = {path.stem for path in (world.data_dir.parent / "dagster").rglob("*.db")}
    assert left <= databases
    assert not (before - left) & databases, "nor do their files stay"
    assert len(left) == 3, "the runs of earlier housekeeping are gone as well; only the one that cleaned up is new"

    assert unfinished(world) == known_before, "of what is still registered, Dagster knows as much as before"

    np.testing.assert_array_equal(clip_of(world, "done"), clip)
    (record,) = RequestArchive(world.store).records("done")
    assert record.accepted is not None
    assert record.accepted.request.driver == "dance.mp4"
    assert record.artifacts["animation"] == world.store.manifest("animation", "done")
    assert set(record.artifacts) == set(REQUEST_ASSETS)
    assert record.artifacts["animation"].attributes["run_id"] == made

    submit_small(world, media, "done", prompt="once more")
    assert world.animate("done").success
    run_job(world, "housekeeping")
    assert registered(world) == ["pending"]
    records = RequestArchive(world.store).records("done")
    assert [entry.accepted.revision for entry in records if entry.accepted] == [1, 2]


@pytest.mark.slow
def test_a_request_that_a_run_is_busy_with_is_not_archived(world: Any, tmp_path: Path) -> None:
    submit_small(world, write_small_media(tmp_path / "media", 5), "again")
    world.animate("again")
    archive = RequestArchive(world.store)
    quarter, later = timedelta(days=90), datetime.now(UTC) + timedelta(days=91)
    assert requests_to_archive(world.instance, archive, quarter) == []
    assert requests_to_archive(world.instance, archive, quarter, later) == ["again"]
    job = build_defs().resolve_job_def(ANIMATE.name)
    tags = {"dagster/partition": "again"}
    run = world.instance.create_run_for_job(job, tags=tags, status=dg.DagsterRunStatus.NOT_STARTED)
    assert requests_to_archive(world.instance, archive, quarter, later) == []
    assert archive_requests(world.instance, archive, ["again"]) == [], "started between the listing and the archiving"

    world.instance.delete_run(run.run_id)
    submit_small(world, tmp_path / "media", "again", prompt="new")
    Daemon(world).scan_inbox()
    assert archive_requests(world.instance, archive, ["again"]) == [], "submitted again between the two"
    assert registered(world) == ["again"]


def test_the_run_that_verified_the_models_outlives_a_later_failed_one(world: Any) -> None:
    (prepared,) = runs(world)
    failed = world.animate("nobody-asked-for-this", raise_on_error=False)
    assert not failed.success
    month = timedelta(days=30)
    assert superfluous_runs(world.instance, month) == []
    later = datetime.now(UTC) + timedelta(days=31)
    assert superfluous_runs(world.instance, month, later) == [failed.run_id]
    assert prepared in runs(world)


def test_the_cache_shrinks_and_scratch_of_killed_runs_goes(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ARTIFACT_CACHE_MAX_GB", "0")
    verified = world.store.fetch("model_verification", "sandbox")
    assert verified.folder.is_dir()
    scratch = world.data_dir / "one_to_all_animation_runtime" / "scratch"
    for name in ("animation-killed", "animation-running", "animation-old-but-busy"):
        (scratch / name).mkdir(parents=True)
        (scratch / name / "clip.mp4").write_bytes(b"frames")
    make_old(scratch / "animation-killed")
    make_old(scratch / "animation-old-but-busy")
    (scratch / "animation-old-but-busy" / "clip.mp4").write_bytes(b"more frames")

    run_job(world, "prune_this_machine", dry_run=True)
    assert len(list(scratch.iterdir())) == 3

    told = run_job(world, "prune_this_machine")["prune_local_files"]
    assert told["bytes after"] == told["bytes before"] > 0, "what was used lately stays, whatever its size"
    assert (told["scratch folders removed"], told["names"]) == (1, "animation-killed")

    make_old(world.data_dir / "artifact_cache")
    told = run_job(world, "prune_this_machine")["prune_local_files"]
    assert told["bytes after"] == 0 < told["bytes before"]
    assert not verified.folder.exists()
    assert world.store.fetch("model_verification", "sandbox").manifest == verified.manifest


def test_old_chunks_are_removed_by_a_job(world: Any) -> None:
    frames = np.zeros((1, 2, 2, 3), np.uint8)
    for request_id in ("given-up", "going-on"):
        StoredChunks(world.objects, f"chunks/{request_id}/0123/81-5-81").save(0, frames)
    make_old(world.objects.root / "chunks" / "given-up", days=8)

    told = run_job(world, "remove_old_chunks", dry_run=True)["remove_chunks_nobody_needs"]
    assert told["names"] == "chunks/given-up/0123"
    assert len(list(world.objects.list("chunks/"))) == 4

    told = run_job(world, "remove_old_chunks")["remove_chunks_nobody_needs"]
    assert told["clips whose chunks were removed"] == 1
    assert {info.key.split("/")[1] for info in world.objects.list("chunks/")} == {"going-on"}


def test_contents_replaced_long_ago_are_removed_by_a_job(world: Any, tmp_path: Path) -> None:
    """Three contents of one asset: the newest, one that Dagster still shows, and one that nothing needs."""
    shown = world.store.fetch("model_verification", "sandbox").manifest
    for content in (b"unneeded", b"newest"):
        (tmp_path / "files").mkdir(exist_ok=True)
        (tmp_path / "files" / "report.json").write_bytes(content)
        newest = world.store.publish("model_verification", "sandbox", ArtifactFiles(tmp_path / "files"))
    for path in (world.objects.root / "model_verification").rglob("*.json"):
        if path.parent.name == "manifests" or path.name == "manifest.json":
            path.write_bytes(re.sub(rb'"created": "20', b'"created": "19', path.read_bytes()))
    make_old(world.objects.root, days=91)

    def prune(**config: Any) -> dict[str, Any]:
        job = build_defs().resolve_job_def("prune_artifacts")
        run_config = {"ops": {"prune_superseded_artifacts": {"config": config}}}
        result = job.execute_in_process(instance=world.instance, run_config=run_config)
        (output,) = (event for event in result.all_node_events if event.event_type_value == "STEP_OUTPUT")
        return {name: value.value for name, value in output.step_output_data.metadata.items()}

    history = {manifest.digest for manifest in world.store.history("model_verification", "sandbox")}
    assert len(history) == 3
    looked = prune()
    assert looked["older contents and orphans removed (dry run: nothing was)"] == 1, looked
    assert {manifest.digest for manifest in world.store.history("model_verification", "sandbox")} == history
    assert prune(dry_run=False)["older contents and orphans removed"] == 1
    left = {manifest.digest for manifest in world.store.history("model_verification", "sandbox")}
    assert left == {newest.digest, shown.digest}
    assert inspect(world.objects, full=True).problems == ()


def test_the_archive_knows_all_assets_of_a_request() -> None:
    graph = build_defs().resolve_asset_graph()
    keys = graph.materializable_asset_keys
    made_for_requests = {key.to_user_string() for key in keys if graph.get(key).partitions_def == ANIMATION_REQUESTS}
    assert set(REQUEST_ASSETS) == made_for_requests


def test_the_schedules_wait_until_a_person_switches_them_on() -> None:
    schedules = {schedule.name: schedule for schedule in build_defs().schedules or []}
    for name, job in (
        ("housekeeping_daily", "housekeeping"),
        ("remove_old_chunks_daily", "remove_old_chunks"),
        ("prune_artifacts_weekly", "prune_artifacts"),
    ):
        schedule = schedules[name]
        assert isinstance(schedule, dg.ScheduleDefinition)
        assert schedule.default_status == dg.DefaultScheduleStatus.STOPPED
        assert schedule.job_name == job
