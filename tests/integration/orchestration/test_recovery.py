"""Between store and catalogue nothing is lost: a database that is away, restored, or empty."""

import datetime
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy.exc
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteInstigatorOrigin, RemoteRepositoryOrigin
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    SensorInstigatorData,
)
from dagster._core.test_utils import create_test_daemon_workspace_context
from dagster._core.workspace.load_target import ModuleTarget
from dagster._scheduler.scheduler import launch_scheduled_runs

from libs.errors import InputError
from libs.requests.lifecycle.archive import REQUEST_ASSETS, RequestArchive
from libs.requests.lifecycle.cancellations import Cancellations
from libs.requests.lifecycle.states import RequestStates
from libs.settings import REPOSITORY_ROOT
from libs.stages.model_verification import stored_verification
from orchestration.definitions import build_defs
from orchestration.jobs import ANIMATE
from orchestration.models.models_in_use import observe_models_of
from orchestration.partitions import ANIMATION_REQUESTS, remember_variant_of_request
from orchestration.policies import BATCH_TAG, MODEL_ASSETS, WHEEL_ASSETS
from orchestration.recovery.batches import batch_of, require_not_stopped, stop_batch
from orchestration.recovery.restore import mend, restore
from orchestration.recovery.sensor import finish_interrupted, unrecorded_clips
from orchestration.requests.canceled_runs import canceled_requests
from orchestration.staleness import unfinished_assets
from orchestration.storage.observed import observed_versions
from orchestration.storage.resources import ProgressResource, SettingsResource, StorageResource
from orchestration.storage.storage_check import check_storage
from tests.integration.orchestration.conftest import instance_in
from tests.integration.orchestration.daemon import Daemon
from tests.integration.orchestration.small_requests import submit_small, write_small_media
from tests.postgres_server import find_postgres, postgres_server

QUEUED = {"run_coordinator": {"module": "dagster.core.run_coordinator", "class": "QueuedRunCoordinator"}}
NO_DATABASE = sqlalchemy.exc.OperationalError("INSERT", {}, Exception("server closed the connection unexpectedly"))


@pytest.fixture
def media(tmp_path: Path) -> Path:
    return write_small_media(tmp_path / "media", 5, audio=False)


@pytest.fixture
def daemon(empty_world: Any) -> Daemon:
    return Daemon(empty_world)


@pytest.fixture
def queued_instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """Another, empty database, whose runs wait in a queue."""
    with instance_in(tmp_path / "other", **QUEUED) as instance:
        yield instance


def tags_of(instance: dg.DagsterInstance, asset: str, partition: str) -> dict[str, str]:
    """Data version and code version of the latest materialization."""
    event = instance.fetch_materializations(
        dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[partition]), limit=1
    ).records[0]
    assert event.asset_materialization is not None
    tags = event.asset_materialization.tags or {}
    return {name: tags[f"dagster/{name}"] for name in ("data_version", "code_version")}


@pytest.mark.slow
def test_a_clip_whose_event_was_lost_is_recorded_and_gets_its_review(
    world: Any, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = submit_small(world, media, "dance")
    storage = world.instance.event_log_storage
    store_event = storage.store_event

    def away_when_the_clip_is_stored(event: Any) -> None:
        key = event.dagster_event and event.dagster_event.asset_key
        if key == dg.AssetKey("animation") and event.dagster_event.is_step_materialization:
            raise NO_DATABASE
        store_event(event)

    with monkeypatch.context() as patch:
        patch.setattr(storage, "store_event", away_when_the_clip_is_stored)
        assert not world.animate(name, raise_on_error=False, review=False).success
    assert world.store.manifest("animation", name) is not None
    assert [marker.request_id for marker in world.requests.pending_markers()] == [name]
    assert list(world.objects.list("chunks/")), "the next run would have to begin from nothing"

    recovery = finish_interrupted(world.instance, world.store)
    assert [(entry.asset, entry.partition) for entry in recovery.adopted] == [("animation", name)]
    (review,) = recovery.reviews
    assert review.asset_selection == [dg.AssetKey("animation_review")]
    assert list(world.requests.pending_markers()) == []
    assert finish_interrupted(world.instance, world.store).finished == []

    keys = [key for key in ANIMATION_KEYS if key != dg.AssetKey("animation_review")]
    assert unfinished_assets(build_defs(), world.instance, keys, name) == []
    recorded = tags_of(world.instance, "animation", name)
    assert world.animate(name, review=False).success
    assert tags_of(world.instance, "animation", name) == recorded


@pytest.mark.slow
@pytest.mark.skipif(find_postgres() is None, reason="PostgreSQL is not installed")
def test_the_sensor_records_a_clip_whose_event_postgresql_did_not_take(world: Any, media: Path, tmp_path: Path) -> None:
    """The server cuts the connection at the one moment that counts; nothing but the sensor runs afterwards."""
    key = dg.AssetKey("animation")
    with postgres_server() as server:
        storage = {"postgres": {"postgres_url": server.url()}}
        with instance_in(tmp_path / "postgres", storage=storage) as world.instance:
            server.refuse_materialization("animation", "dance")
            name = submit_small(world, media, "dance")
            assert not world.animate(name, raise_on_error=False, review=False).success
            assert world.store.manifest("animation", name) is not None
            assert world.instance.get_materialized_partitions(key) == set()
            server.take_all_events()
            resources = {"storage": StorageResource(settings=SettingsResource())}
            with dg.build_sensor_context(instance=world.instance, resources=resources) as context:
                found = unrecorded_clips(context)
            assert [request.asset_selection for request in found.run_requests] == [[dg.AssetKey("animation_review")]]
            (record,) = world.instance.fetch_materializations(key, limit=5).records
            assert "its event was lost" in str(record.asset_materialization.metadata["adopted"].value)
            assert record.run_id == "", "no run wrote it"
    assert list(world.requests.pending_markers()) == []


ANIMATION_KEYS = sorted(build_defs().resolve_job_def(ANIMATE.name).asset_layer.executable_asset_keys)


def accept(daemon: Daemon, media: Path, *names: str, **fields: Any) -> None:
    for path in media.iterdir():  # once: media that are newer than a document may still be on their way
        daemon.world.put(path.name, path)
    nothing_more = media.parent / "no-media"
    nothing_more.mkdir(exist_ok=True)
    for name in names:
        submit_small(daemon.world, nothing_more, name, **fields)
    daemon.scan_inbox()
    daemon.scan_inbox()


def store_clip(daemon: Daemon, name: str) -> None:
    """The clip is stored and recorded nowhere: all that a bucket from a backup knows."""
    daemon.succeed(name)


def test_restoring_into_an_empty_database_loses_no_request_and_makes_no_clip_twice(
    daemon: Daemon, media: Path, queued_instance: dg.DagsterInstance
) -> None:
    world = daemon.world
    accept(daemon, media, "made", "pending", "gone", "archived")
    for name in ("made", "archived"):
        store_clip(daemon, name)
    RequestArchive(world.store).record("archived")
    gone = world.requests.find("gone")
    world.requests.clear_pending("gone", gone.content)  # its clip was stored after the backup of the bucket was begun

    planned = restore(queued_instance, world.store, apply=False)
    assert queued_instance.get_dynamic_partitions(str(ANIMATION_REQUESTS.name)) == []
    assert world.requests.is_pending(gone) is False
    done = restore(queued_instance, world.store, apply=True)
    assert planned == done
    assert set(queued_instance.get_dynamic_partitions(str(ANIMATION_REQUESTS.name))) == {"made", "pending", "gone"}
    assert [(entry.asset, entry.partition) for entry in done.adopted] == [("animation", "made")]
    assert (done.reopened, done.without_review, done.damaged) == (["gone"], ["made"], [])
    assert queued_instance.get_materialized_partitions(dg.AssetKey("animation")) == {"made"}

    again = restore(queued_instance, world.store, apply=True)
    assert (again.registered, again.adopted, again.reopened) == ([], [], [])
    daemon.world.instance = queued_instance  # what this database's daemon does next
    assert finish_interrupted(queued_instance, world.store).reviews[0].partition_key == "made"
    assert sorted(daemon.night()) == ["gone", "pending"]


def test_queued_runs_of_clips_that_are_stored_are_dropped(
    daemon: Daemon, media: Path, queued_instance: dg.DagsterInstance
) -> None:
    world = daemon.world
    accept(daemon, media, "made", "pending")
    store_clip(daemon, "made")
    ours, world.instance = world.instance, queued_instance  # the dump is older: both runs wait in its queue
    waiting = [
        daemon.start_run(ours.get_run_by_id(run.run_id).tags, status=status)
        for run in daemon.runs
        for status in (dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTED)
    ]
    done = restore(queued_instance, world.store, apply=True)
    assert {name for _, name in done.dropped} == {"made"}
    status = {queued_instance.get_run_by_id(run.run_id).status for run in waiting[:2]}
    assert status == {dg.DagsterRunStatus.CANCELED}
    assert [queued_instance.get_run_by_id(run.run_id).status for run in waiting[2:]] == [
        dg.DagsterRunStatus.NOT_STARTED,
        dg.DagsterRunStatus.STARTED,
    ]


def test_a_damaged_request_is_named_and_hinders_no_other(
    daemon: Daemon, media: Path, queued_instance: dg.DagsterInstance
) -> None:
    accept(daemon, media, "a", "b")
    store_clip(daemon, "b")
    queued_instance.add_run(daemon.run_of("b"))
    daemon.world.objects.put_bytes("animation/b/manifest.json", b"{")
    daemon.world.objects.put_bytes("requests/accepted/a.json", b"{")
    done = restore(queued_instance, daemon.world.store, apply=True)
    assert [reason.partition(":")[0] for reason in done.damaged] == ["a", "b"]
    assert (done.dropped, done.adopted) == ([], [])


def test_check_storage_records_what_the_catalogue_lacks(daemon: Daemon, media: Path) -> None:
    accept(daemon, media, "made", "busy")
    daemon.succeed("made")
    daemon.succeed("busy")
    daemon.start_run(daemon.run_of("busy").tags)
    mended = mend(daemon.world.instance, daemon.world.store)
    assert [(entry.asset, entry.partition) for entry in mended.adopted] == [("animation", "made")]
    assert mended.without_review == ["made"]
    assert mend(daemon.world.instance, daemon.world.store).adopted == []


def test_check_storage_says_which_sensor_makes_missing_reviews_and_that_it_is_off(daemon: Daemon, media: Path) -> None:
    instance = daemon.world.instance
    accept(daemon, media, "made")
    daemon.succeed("made")
    settings = SettingsResource()
    resources = {"storage": StorageResource(settings=settings), "progress": ProgressResource()}

    def said() -> str:
        run = check_storage.execute_in_process(instance=instance, resources=resources)
        return "\n".join(entry.user_message for entry in instance.all_logs(run.run_id))

    assert "1 clips lack a review: the sensor unrecorded_clips launches them" in said()
    repository = RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("one_to_all"), "__repository__")
    origin = RemoteInstigatorOrigin(repository, "unrecorded_clips")
    state = InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.STOPPED, SensorInstigatorData())
    instance.add_instigator_state(state)
    assert "the sensor unrecorded_clips is off: switch it on" in said()


def test_lost_events_of_model_files_are_written_again_and_what_they_make_stale_is_known(
    world: Any, queued_instance: dg.DagsterInstance
) -> None:
    versions = stored_verification(world.store, "sandbox").versions
    for name in ("made-before", "not-made-yet"):
        remember_variant_of_request(queued_instance, name, "sandbox")
    for seen in observe_models_of("made-before", "sandbox", dict.fromkeys(versions, "0" * 64), ()):
        queued_instance.report_runless_asset_event(seen)

    adopted = mend(queued_instance, world.store).adopted
    assert [(entry.asset, entry.partition) for entry in adopted] == [(asset, "sandbox") for asset in MODEL_ASSETS]
    keys = [dg.AssetKey(asset) for asset in MODEL_ASSETS]
    assert unfinished_assets(build_defs(), queued_instance, keys, "sandbox") == []
    assert {asset: observed_versions(queued_instance, asset) for asset in versions} == {
        asset: {"made-before": version} for asset, version in versions.items()
    }
    assert mend(queued_instance, world.store).adopted == []


def test_every_stored_asset_is_one_that_can_be_recorded_again() -> None:
    graph = build_defs().resolve_asset_graph()
    made = {key.to_user_string() for key in graph.materializable_asset_keys}
    assert made == {*REQUEST_ASSETS, *MODEL_ASSETS, *WHEEL_ASSETS}


class TestNightlyBatch:
    """Launched by Dagster's own scheduler, from the code location as it is loaded for it."""

    NIGHT = datetime.datetime(2026, 11, 30, 1, 0, tzinfo=datetime.UTC)

    @pytest.fixture
    def pending(self, daemon: Daemon, media: Path, queued_instance: dg.DagsterInstance) -> list[str]:
        names = [f"dance-{number}" for number in range(6)]
        accept(daemon, media, *names, when="nightly")
        queued_instance.add_dynamic_partitions(str(ANIMATION_REQUESTS.name), names)
        return names

    @pytest.fixture
    def schedule(self, pending: list[str], queued_instance: dg.DagsterInstance) -> Iterator[Any]:
        """One iteration of the scheduler at a time of day."""
        target = ModuleTarget("orchestration.definitions", None, str(REPOSITORY_ROOT), "one_to_all")
        with create_test_daemon_workspace_context(target, queued_instance) as context:

            def iterate(moment: datetime.datetime, max_tick_retries: int) -> list[Any]:
                logger = logging.getLogger("scheduler")
                times: dict[Any, Any] = {}
                return list(
                    launch_scheduled_runs(
                        context, logger, moment, iteration_times=times, max_tick_retries=max_tick_retries
                    )
                )

            iterate(self.NIGHT - datetime.timedelta(hours=1), 0)
            yield iterate

    def launched(self, instance: dg.DagsterInstance) -> list[str]:
        return sorted(
            run.tags["dagster/partition"]
            for run in instance.get_runs(dg.RunsFilter(tags={BATCH_TAG: "nightly-2026-11-30"}))
        )

    @pytest.mark.slow
    def test_a_database_outage_while_it_is_launched_costs_no_request(
        self, pending: list[str], schedule: Any, queued_instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        add_run, calls = queued_instance.run_storage.add_run, []

        def away_after_three(run: dg.DagsterRun) -> dg.DagsterRun:
            calls.append(run)
            if len(calls) > 3:
                raise NO_DATABASE
            return add_run(run)

        retries = shipped_retries()
        with monkeypatch.context() as patch:
            patch.setattr(queued_instance.run_storage, "add_run", away_after_three)
            schedule(self.NIGHT + datetime.timedelta(minutes=1), retries)
        assert len(self.launched(queued_instance)) == 3
        schedule(self.NIGHT + datetime.timedelta(minutes=2), retries)
        assert self.launched(queued_instance) == pending

    @pytest.mark.slow
    def test_a_wrong_batch_is_stopped_by_one_action(
        self, pending: list[str], schedule: Any, queued_instance: dg.DagsterInstance, daemon: Daemon
    ) -> None:
        schedule(self.NIGHT + datetime.timedelta(minutes=1), 0)
        batch = batch_of(self.NIGHT)
        assert self.launched(queued_instance) == pending
        stopped = stop_batch(queued_instance, daemon.world.objects, batch)
        assert sorted(stopped.requests) == pending
        assert {run.status for run in queued_instance.get_runs()} == {dg.DagsterRunStatus.CANCELED}
        with pytest.raises(InputError, match="was stopped at"):  # how a run that is launched later begins
            require_not_stopped(daemon.world.objects, batch, "dance-5")
        assert Cancellations(daemon.world.objects).find("dance-5").by == f"the stop of {batch}"
        require_not_stopped(daemon.world.objects, "nightly-2026-12-01", "dance-4")
        require_not_stopped(daemon.world.objects, None, "dance-4")


def test_unlaunched_requests_of_a_stopped_batch_stay_canceled_until_retried(daemon: Daemon, media: Path) -> None:
    world = daemon.world
    accept(daemon, media, "a-begun", "by-hand", "retried", "again", "left", when="nightly")
    assert daemon.night(launched=1) == ["a-begun"]
    daemon.start_run({"dagster/partition": "by-hand"})
    batch = daemon.runs[0].tags[BATCH_TAG]
    stopped = stop_batch(world.instance, world.objects, batch)
    assert set(stopped.not_launched) == {"retried", "again", "left"}
    note = Cancellations(world.objects).find("left")
    assert note is not None
    assert note.by == f"the stop of {batch}"
    assert daemon.night() == [], "the same night does not go on"

    Cancellations(world.objects).forget("retried")  # as `one-to-all retry` does
    accept(daemon, media, "again", when="nightly")
    missing = RequestStates(world.store).of(stopped.not_launched)
    assert canceled_requests(world.instance, world.objects, missing) == {"left"}


def test_a_batch_that_never_was_cannot_be_stopped(daemon: Daemon) -> None:
    with pytest.raises(InputError, match="no batch 'nightly-2020-01-01': there is none yet"):
        stop_batch(daemon.world.instance, daemon.world.objects, "nightly-2020-01-01")


def shipped_retries() -> int:
    """How often a failed tick is repeated by the shipped instances, which agree."""
    import yaml

    found = {
        yaml.safe_load((REPOSITORY_ROOT / name).read_text())["scheduler"]["config"]["max_tick_retries"]
        for name in ("dagster.yaml", "infra/dagster.prod.yaml")
    }
    (retries,) = found
    return int(retries)
