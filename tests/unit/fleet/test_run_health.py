"""What the run launcher and the sensor conclude from the answers of workers, and from their silence."""

import json
from collections.abc import Collection, Iterator
from types import SimpleNamespace

import dagster as dg
import pytest
from celery.exceptions import WorkerLostError
from dagster._core.launcher import WorkerStatus
from dagster._core.test_utils import create_run_for_test

from libs.errors import SettingsError
from libs.settings import Settings
from orchestration.fleet.launching.lost_launches import MISSING_SECONDS, fail_lost_launches, lost_launches
from orchestration.fleet.local.fleet_plan import free_port
from orchestration.fleet.run_launcher import FleetRunLauncher

Status = dg.DagsterRunStatus


class Answers:
    """In place of the workers: who holds what, what waits, and what Celery knows."""

    def __init__(self) -> None:
        self.held: dict[str, str] = {}
        self.queued: set[str] = set()
        self.states: dict[str, str] = {}
        self.results: dict[str, Exception] = {}
        self.error: Exception | None = None

    def holders(self, run_ids: Collection[str]) -> dict[str, str]:
        if self.error:
            raise self.error
        return {run_id: worker for run_id, worker in self.held.items() if run_id in run_ids}

    def waiting(self, queues: Collection[str]) -> set[str]:
        return self.queued

    def AsyncResult(self, task_id: str) -> SimpleNamespace:  # noqa: N802 - Celery's name
        return SimpleNamespace(state=self.states.get(task_id, "STARTED"), result=self.results.get(task_id))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def now() -> list[float]:
    return [1000.0]


@pytest.fixture
def answers() -> Answers:
    return Answers()


@pytest.fixture
def launcher(
    instance: dg.DagsterInstance, answers: Answers, now: list[float], monkeypatch: pytest.MonkeyPatch
) -> FleetRunLauncher:
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")
    launcher = FleetRunLauncher(clock=lambda: now[0])
    launcher.register_instance(instance)
    monkeypatch.setattr(launcher, "active_runs", answers)
    monkeypatch.setattr(launcher.celery, "AsyncResult", answers.AsyncResult)
    return launcher


def test_a_run_that_a_worker_holds_is_healthy(instance, launcher, answers) -> None:
    run = create_run_for_test(instance, status=Status.STARTED)
    answers.held[run.run_id] = "gpu-0@host"
    health = launcher.check_run_worker_health(run)
    assert (health.status, health.run_worker_id) == (WorkerStatus.RUNNING, "gpu-0@host")


def test_only_lasting_silence_fails_a_run(instance, launcher, answers, now) -> None:
    run = create_run_for_test(instance, status=Status.STARTED)
    assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
    now[0] += 19
    assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
    answers.held[run.run_id] = "gpu-0@host"  # it was only slow to answer
    assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
    answers.held.clear()
    now[0] += 100
    assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING, "the silence begins anew"
    now[0] += 20
    assert launcher.check_run_worker_health(run).status == WorkerStatus.NOT_FOUND


@pytest.mark.parametrize(
    ("state", "error", "said"),
    [
        ("FAILURE", WorkerLostError("signal 9"), "process died"),
        ("REVOKED", None, "process died"),
        # The database was away for so long that the worker could not say how the run ended.
        ("FAILURE", ConnectionError("no route\nand more"), "could not report it (ConnectionError: no route)"),
    ],
)
def test_a_task_that_failed_fails_its_run_at_once(instance, launcher, answers, state, error, said) -> None:
    run = create_run_for_test(instance, status=Status.STARTED)
    answers.states[run.run_id], answers.results[run.run_id] = state, error
    health = launcher.check_run_worker_health(run)
    assert health.status == WorkerStatus.FAILED
    assert said in health.msg


def test_a_task_that_ended_without_ending_its_run_is_silence(instance, launcher, answers, now) -> None:
    """dagster-celery reports SUCCESS, and Dagster leaves such a run STARTED for ever."""
    run = create_run_for_test(instance, status=Status.STARTED)
    answers.states[run.run_id] = "SUCCESS"
    assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
    now[0] += 20
    assert launcher.check_run_worker_health(run).status == WorkerStatus.NOT_FOUND


def test_an_outage_of_redis_does_not_count_as_a_lost_worker(instance, launcher, answers, now) -> None:
    run = create_run_for_test(instance, status=Status.STARTED)
    launcher.check_run_worker_health(run)
    answers.error = ConnectionRefusedError("Redis is away")
    now[0] += 1000
    assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING
    answers.error = None
    assert launcher.check_run_worker_health(run).status == WorkerStatus.RUNNING, "workers need a moment to come back"


def test_a_real_outage_of_redis(instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{free_port()}/0")  # nothing listens there
    launcher = FleetRunLauncher()
    launcher.register_instance(instance)
    run = create_run_for_test(instance, status=Status.STARTED)
    health = launcher.check_run_worker_health(run)
    assert health.status == WorkerStatus.RUNNING
    assert "Redis cannot be reached" in (health.msg or "")
    assert "Redis cannot be reached" in (launcher.get_run_worker_debug_info(run) or "")


def test_cancel_reports_canceling_first_and_only_once(instance, launcher) -> None:
    run = create_run_for_test(instance, status=Status.STARTED)
    assert launcher.terminate(run.run_id)
    assert launcher.terminate(run.run_id)
    assert instance.get_run_by_id(run.run_id).status == Status.CANCELING
    assert [log.dagster_event_type for log in instance.all_logs(run.run_id)] == [dg.DagsterEventType.PIPELINE_CANCELING]


@pytest.mark.parametrize("status", [Status.SUCCESS, Status.FAILURE, Status.CANCELED])
def test_there_is_nothing_to_cancel_in_a_finished_run(instance, launcher, status: Status) -> None:
    run = create_run_for_test(instance, status=status)
    assert not launcher.terminate(run.run_id)
    assert instance.get_run_by_id(run.run_id).status == status


def test_only_a_launch_that_stays_missing_is_failed(instance, launcher, answers) -> None:
    held, waiting, lost, started = (
        create_run_for_test(instance, status=status)
        for status in (Status.STARTING, Status.STARTING, Status.STARTING, Status.STARTED)
    )
    answers.held[held.run_id] = "gpu-0@host"
    answers.queued.add(waiting.run_id)
    missing, failed = fail_lost_launches(instance, launcher, {}, now=100)
    assert (missing, failed) == ({lost.run_id: 100}, [])
    missing, failed = fail_lost_launches(instance, launcher, missing, now=99 + MISSING_SECONDS)
    assert (missing, failed) == ({lost.run_id: 100}, [])
    missing, failed = fail_lost_launches(instance, launcher, missing, now=100 + MISSING_SECONDS)
    assert (missing, failed) == ({}, [lost.run_id])
    statuses = [instance.get_run_by_id(run.run_id).status for run in (held, waiting, lost, started)]
    assert statuses == [Status.STARTING, Status.STARTING, Status.FAILURE, Status.STARTED]


def test_a_launch_that_turns_up_again_is_forgotten(instance, launcher, answers) -> None:
    run = create_run_for_test(instance, status=Status.STARTING)
    missing, _ = fail_lost_launches(instance, launcher, {}, now=100)
    answers.queued.add(run.run_id)
    missing, _ = fail_lost_launches(instance, launcher, missing, now=200)
    assert missing == {}


@pytest.mark.parametrize("cursor", ["", "what a person typed", "[]", '{"run": "yesterday"}', '{"run": 100.5}'])
def test_a_damaged_cursor_does_not_stop_a_pass(instance, launcher, cursor: str, monkeypatch) -> None:
    run = create_run_for_test(instance, status=Status.STARTING)
    monkeypatch.setattr(instance, "_run_launcher", launcher)
    monkeypatch.setattr(launcher, "announce_code", lambda: None)  # nothing listens here
    context = dg.build_sensor_context(instance, cursor=cursor)
    assert lost_launches(context).skip_message == "No launch was lost."
    assert list(json.loads(context.cursor)) == [run.run_id]


def test_without_an_address_the_error_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.setitem(Settings.model_config, "env_file", None)
    with pytest.raises(SettingsError, match="REDIS_URL is not set"):
        FleetRunLauncher()
