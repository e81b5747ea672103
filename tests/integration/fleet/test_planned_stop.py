"""Workers told to stop: their run is made again and spends no retry; a drained worker finishes its run and ends."""

import os
import signal
import threading

import dagster as dg
import pytest
from redis import Redis

from orchestration.fleet import drain, worker_list
from orchestration.fleet.launching.code_version import KEY
from orchestration.fleet.working.draining import DRAINED_STATUS

FAILURE, SUCCESS = dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS


def test_three_stops_of_one_request_end_in_a_clip(fleet) -> None:
    """Two retries are allowed, for crashes: none of them is spent."""
    clip = "held-stopped"
    fleet.launch(clip)
    for number in range(3):
        run = fleet.wait_until("it is made again", lambda number=number: fleet.runs_of(clip)[number:], 60)[0]
        worker = fleet.worker_of(fleet.started(run.run_id)["pid"])
        os.kill(fleet.fleet.processes[worker].pid, signal.SIGTERM)
        assert fleet.finish(run.run_id) == FAILURE
        assert "without spending a retry" in fleet.messages(run.run_id)
    (fleet.folder / f"go-{clip}").touch()
    last = fleet.wait_until("it is made again", lambda: fleet.runs_of(clip)[3:], 60)[0]
    assert fleet.finish(last.run_id) == SUCCESS
    fleet.wait_for_workers()


def test_a_drained_worker_finishes_its_run_takes_no_other_and_ends(
    fleet, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(fleet.fleet.home))
    assert worker_list.main([]) == 0, "all workers that pool gpu has slots for, and a CPU worker"
    with fleet.only_worker("gpu-0"):
        run_id = fleet.launch("held-drained")
        fleet.started(run_id)
    result: list[int] = []
    draining = threading.Thread(target=lambda: result.append(drain.main(["gpu-0"])))
    draining.start()
    fleet.wait_until("the list says so", lambda: "is drained" in listed(capsys), 30)
    elsewhere = fleet.launch("beside-a-drained-worker")
    assert fleet.finish(elsewhere) == SUCCESS
    assert fleet.worker_of(fleet.started(elsewhere)["pid"]) != "gpu-0"
    assert fleet.run(run_id).status == dg.DagsterRunStatus.STARTED, "it is left alone"
    (fleet.folder / "go-held-drained").touch()
    assert fleet.finish(run_id) == SUCCESS
    draining.join(60)
    assert result == [0]
    process = fleet.fleet.processes["gpu-0"]
    fleet.wait_until("it has ended", lambda: not process.is_running(), 30)
    assert len(fleet.runs_of("held-drained")) == 1
    try:
        assert worker_list.main([]) == 1
        assert "2 of 3 GPU workers answer" in capsys.readouterr().err
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


def test_a_worker_with_other_code_than_the_code_location_takes_no_runs_until_it_is_the_same(fleet) -> None:
    """The code location says its version every ten seconds: that ends what this test says in between."""
    with fleet.only_worker("gpu-0"), Redis.from_url(fleet.fleet.redis_url) as redis:
        run_id = fleet.launch("other-code")

        def refused() -> bool:
            redis.set(KEY, "other")
            return "cannot make the run (this worker runs code" in fleet.messages(run_id)

        fleet.wait_until("the run is given back", refused, 60)
        assert fleet.run(run_id).status == dg.DagsterRunStatus.STARTING
        assert fleet.finish(run_id, 120) == SUCCESS
    assert len(fleet.runs_of("other-code")) == 1
