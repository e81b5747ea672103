"""Workers told to stop: their run is made again and spends no retry; a drained worker finishes its run and ends."""

import os
import signal
import threading
import time

import dagster as dg
import pytest
from redis import Redis

from orchestration.fleet import drain, worker_list
from orchestration.fleet.launching.code_version import KEY
from orchestration.fleet.working.draining import DRAINED_STATUS
from tests.waiting import HANG_SECONDS

FAILURE, SUCCESS = dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS


def test_three_stops_of_one_request_end_in_a_clip(fleet) -> None:
    """Two retries are allowed, for crashes: none of them is spent."""
    clip = "held-stopped"
    fleet.launch(clip)
    for number in range(3):
        run = fleet.wait_until("it is made again", lambda number=number: fleet.runs_of(clip)[number:])[0]
        worker = fleet.worker_of(fleet.started(run.run_id)["pid"])
        os.kill(fleet.fleet.processes[worker].pid, signal.SIGTERM)
        assert fleet.finish(run.run_id) == FAILURE
        assert "without spending a retry" in fleet.messages(run.run_id)
    (fleet.folder / f"go-{clip}").touch()
    last = fleet.wait_until("it is made again", lambda: fleet.runs_of(clip)[3:])[0]
    assert fleet.finish(last.run_id) == SUCCESS
    fleet.wait_for_workers()


def test_a_drained_worker_finishes_its_run_takes_no_other_and_ends(
    fleet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(fleet.fleet.home))
    fleet.wait_until("all workers that pool gpu has slots for, and a CPU worker", lambda: worker_list.main([]) == 0)
    with fleet.only_worker("gpu-0"):
        run_id = fleet.launch("held-drained")
        fleet.started(run_id)
    result: list[int] = []
    draining = threading.Thread(target=lambda: result.append(drain.main(["gpu-0"])))
    draining.start()
    fleet.wait_until("the list says so", lambda: "is drained" in listed(capsys))
    elsewhere = fleet.launch("beside-a-drained-worker")
    assert fleet.finish(elsewhere) == SUCCESS
    assert fleet.worker_of(fleet.started(elsewhere)["pid"]) != "gpu-0"
    assert fleet.run(run_id).status == dg.DagsterRunStatus.STARTED, "it is left alone"
    (fleet.folder / "go-held-drained").touch()
    assert fleet.finish(run_id) == SUCCESS
    draining.join(HANG_SECONDS)
    assert result == [0]
    process = fleet.fleet.processes["gpu-0"]
    fleet.wait_until("it has ended", lambda: not process.is_running())
    assert len(fleet.runs_of("held-drained")) == 1
    try:

        def one_is_missing() -> bool:
            assert worker_list.main([]) == 1
            return "2 of 3 GPU workers answer" in capsys.readouterr().err

        fleet.wait_until("one is missing, and the others answer", one_is_missing)
        assert not process.is_running(), "it is not started again"
    finally:
        process.kill_group()
        process.start()
        fleet.wait_for_workers()
    assert process.running is not None
    assert DRAINED_STATUS != 0


def listed(capsys: pytest.CaptureFixture[str]) -> str:
    worker_list.main(["--gpu-workers", "0"])
    return capsys.readouterr().out


def test_a_worker_with_other_code_than_the_code_location_takes_no_runs(fleet) -> None:
    """The code location says its version every ten seconds: that ends what this test says in between."""
    with fleet.only_worker("gpu-0"), Redis.from_url(fleet.fleet.redis_url) as redis:
        clips = (f"other-code-{number}" for number in range(10))

        def refused() -> str | None:
            """A run that is given back; another one is launched if the code location spoke before the worker asked."""
            clip = next(clips)
            run_id = fleet.launch(clip)
            while not fleet.run(run_id).is_finished:
                redis.set(KEY, "other")
                if "cannot make the run (this worker runs code" in fleet.messages(run_id):
                    assert fleet.run(run_id).status == dg.DagsterRunStatus.STARTING
                    return clip
                time.sleep(0.02)
            return None

        clip = fleet.wait_until("a run is given back", refused)
        (run,) = fleet.runs_of(clip)
        assert fleet.finish(run.run_id) == SUCCESS
    assert len(fleet.runs_of(clip)) == 1
