"""A run that is ended from outside interrupts the main thread; one that goes on is left alone."""

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import dagster as dg
import pytest
from dagster._core.test_utils import create_run_for_test, instance_for_test
from dagster._utils.interrupts import capture_interrupts, check_captured_interrupt

from orchestration.fleet.working.run_watch import RunWatch
from tests.waiting import HANG_SECONDS, wait_until

Status = dg.DagsterRunStatus


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with instance_for_test() as instance:
        yield instance


def interrupted_within(watch: RunWatch, seconds: float = HANG_SECONDS) -> bool:
    with capture_interrupts(), watch:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not check_captured_interrupt():
            time.sleep(0.01)
        return check_captured_interrupt()


@pytest.mark.parametrize("status", [Status.CANCELING, Status.CANCELED, Status.FAILURE])
def test_a_run_ended_from_outside_is_interrupted(instance: dg.DagsterInstance, status: Status) -> None:
    run = create_run_for_test(instance, status=status)
    assert interrupted_within(RunWatch(instance, run.run_id, poll_seconds=0.02))


@pytest.mark.parametrize("status", [Status.STARTING, Status.STARTED, Status.SUCCESS])
def test_a_run_that_goes_on_is_not(instance: dg.DagsterInstance, status: Status) -> None:
    run = create_run_for_test(instance, status=status)
    assert not interrupted_within(RunWatch(instance, run.run_id, poll_seconds=0.02), 0.3)


def test_a_deleted_run_is_interrupted(instance: dg.DagsterInstance) -> None:
    assert interrupted_within(RunWatch(instance, "2c9c1f5e-0000-4000-8000-000000000000", poll_seconds=0.02))


def test_a_database_that_is_away_interrupts_nothing(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = create_run_for_test(instance, status=Status.CANCELING)
    real, failures = instance.get_run_by_id, iter([OSError("away")] * 3)

    def sometimes_away(run_id: str) -> dg.DagsterRun | None:
        if (failure := next(failures, None)) is not None:
            raise failure
        return real(run_id)

    monkeypatch.setattr(instance, "get_run_by_id", sometimes_away)
    assert interrupted_within(RunWatch(instance, run.run_id, poll_seconds=0.02))
    assert next(failures, None) is None


def test_a_step_that_does_not_give_way_is_given_up(instance: dg.DagsterInstance) -> None:
    run = create_run_for_test(instance, status=Status.CANCELING)
    given_up = threading.Event()
    before = signal.getsignal(signal.SIGINT)
    with (
        capture_interrupts(),
        RunWatch(instance, run.run_id, poll_seconds=0.02, patience_seconds=0.1, give_up=given_up.set),
    ):
        assert given_up.wait(HANG_SECONDS)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_step_that_gives_way_in_time_is_not(instance: dg.DagsterInstance) -> None:
    run = create_run_for_test(instance, status=Status.CANCELING)
    given_up = threading.Event()
    patience = 10.0  # within which a busy machine, too, notices the interrupt
    watch = RunWatch(instance, run.run_id, poll_seconds=0.02, patience_seconds=patience, give_up=given_up.set)
    assert interrupted_within(watch)
    name = f"watch-{run.run_id}"
    wait_until("it has ended", lambda: all(thread.name != name for thread in threading.enumerate()))
    assert not given_up.is_set()


HANGING = """
import sys, time
import dagster as dg
from dagster._utils.interrupts import capture_interrupts
from orchestration.fleet.working.run_watch import RunWatch

with dg.DagsterInstance.from_config(sys.argv[1]) as instance, capture_interrupts():
    with RunWatch(instance, sys.argv[2], poll_seconds=0.05, patience_seconds=0.2):
        time.sleep(1800)
        while True:
            time.sleep(1)
"""


@pytest.mark.parametrize(("status", "ends"), [(Status.CANCELING, Status.CANCELED), (Status.FAILURE, Status.FAILURE)])
def test_a_hanging_process_is_killed_and_a_run_that_was_to_be_canceled_is(
    instance: dg.DagsterInstance, status: Status, ends: Status
) -> None:
    run = create_run_for_test(instance, status=status)
    process = subprocess.run(
        [sys.executable, "-c", HANGING, instance.root_directory, run.run_id], timeout=HANG_SECONDS, check=False
    )
    assert process.returncode == -signal.SIGKILL
    ended = instance.get_run_by_id(run.run_id)
    assert ended is not None
    assert ended.status == ends
