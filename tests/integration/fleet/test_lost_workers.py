"""Killed processes, a hung host, a restarted Redis: every request is finished in the end, by a worker that lives."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import psutil
from redis import Redis

from orchestration.crashes import RUN_ENDS
from orchestration.fleet.launching.active_runs import ActiveRunQuery
from orchestration.fleet.local.processes import Process

FAILURE, SUCCESS = dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS


def assert_retried(fleet, clip: str, lost_pid: int | None, end: str) -> None:
    """The first run of ``clip`` fails because of ``end``, and one other process finishes the second."""
    first = fleet.runs_of(clip)[0]
    assert fleet.finish(first.run_id) == FAILURE
    assert RUN_ENDS[end].message.partition("{")[0] in fleet.messages(first.run_id)
    second = fleet.wait_until(f"{clip} is retried", lambda: fleet.runs_of(clip)[1:])[0]
    assert fleet.finish(second.run_id) == SUCCESS
    assert second.tags["dagster/parent_run_id"] == first.run_id
    assert fleet.started(second.run_id)["pid"] != lost_pid
    assert len(fleet.runs_of(clip)) == 2


def test_a_killed_process_of_a_worker(fleet) -> None:
    """What the kernel does when memory runs out."""
    with fleet.gpu_slots(1):  # the retry can only run if the crash has freed the slot
        run_id = fleet.launch("slow-child")
        pid = fleet.started(run_id)["pid"]
        os.kill(pid, signal.SIGKILL)
        assert_retried(fleet, "slow-child", pid, "worker died")


def test_a_process_that_lost_its_gpu(fleet) -> None:
    """Whatever a worker makes fails from then on: its process ends with the run, which another one makes."""
    with fleet.only_worker("gpu-0"):
        run_id = fleet.launch("lost-gpu", asset="stubborn_clip")
        pid = fleet.started(run_id)["pid"]
        assert_retried(fleet, "lost-gpu", pid, "GPU lost")
    assert "The worker's process lost its GPU (CUDA error: an illegal memory access" in fleet.messages(run_id)
    assert len([line for line in fleet.executions("lost-gpu") if line["run"] == run_id]) == 1, "no attempt in vain"


def test_two_workers_of_one_name_are_two(fleet, tmp_path: Path) -> None:
    """On two hosts with one host name: each says what it holds, and neither answer hides the other."""
    command = [sys.executable, "-m", "orchestration.fleet.worker", "--queue", "twins", "--name", "gpu-0"]
    twin = Process("twin", command, fleet.fleet.environment, tmp_path / "twin.log")
    active_runs = ActiveRunQuery(fleet.fleet.app(), answer_seconds=1, valid_seconds=0)
    try:
        twin.start()
        with fleet.gpu_slots(2), fleet.only_worker("gpu-0"):
            queues = ("twins", "gpu")
            ids = [fleet.launch(f"held-of-{name}", tags={"dagster-celery/queue": name}) for name in queues]
            for run_id in ids:
                fleet.started(run_id)
            for _ in range(2):
                fleet.wait_until("both answer", lambda: active_runs.holders(ids).keys() == set(ids))
            for name in queues:
                (fleet.folder / f"go-held-of-{name}").touch()
            assert [fleet.finish(run_id) for run_id in ids] == [SUCCESS] * 2
    finally:
        twin.stop()


def test_a_killed_worker_a_hung_worker_and_a_lost_message(fleet) -> None:
    """Three losses at once; with one worker left and two slots, the retries need the slots that the losses free."""
    with fleet.only_worker():
        lost_run = fleet.launch("lost-message")
        fleet.wait_until("the run is sent", lambda: "Sent the run to the queue gpu" in fleet.messages(lost_run))
        # As if a worker had taken the message and died before it read it, or the daemon before it sent it.
        with Redis.from_url(fleet.fleet.redis_url) as redis:
            assert lost_run in redis.lpop("gpu").decode()
    with fleet.gpu_slots(3):
        with fleet.only_worker("gpu-0"):
            killed_run = fleet.launch("slow-killed-worker")
            killed_pid = fleet.started(killed_run)["pid"]
        with fleet.only_worker("gpu-1"):
            hung_run = fleet.launch("slow-hung-worker")
            hung_pid = fleet.started(hung_run)["pid"]
    with fleet.gpu_slots(2):
        os.kill(fleet.fleet.processes["gpu-0"].pid, signal.SIGKILL)
        with _stopped(fleet.fleet.processes["gpu-1"]):
            assert_retried(fleet, "slow-killed-worker", killed_pid, "worker silent")
            assert_retried(fleet, "slow-hung-worker", hung_pid, "worker silent")
            assert_retried(fleet, "lost-message", None, "message lost")
            assert not psutil.pid_exists(killed_pid), "a killed worker left its process behind"

    # The host is back: its copy of the run must end, without harm to the run's status.
    fleet.wait_for_workers()
    fleet.wait_until("the revived worker is idle", lambda: not any(fleet.active_tasks().values()))
    assert fleet.run(hung_run).status == FAILURE
    assert not [line for line in fleet.executions("slow-hung-worker") if line["pid"] == hung_pid][1:]
    with fleet.only_worker("gpu-1"):
        after = fleet.launch("after-hung")
        assert fleet.finish(after) == SUCCESS
    assert fleet.started(after)["pid"] == hung_pid
    assert fleet.started(after)["event"] == "warm"


@contextmanager
def _stopped(process: Process) -> Iterator[None]:
    """A host that hangs, and comes back whatever happens meanwhile: other tests use it."""
    process.signal_group(signal.SIGSTOP)
    try:
        yield
    finally:
        process.signal_group(signal.SIGCONT)


def test_redis_restarts_in_the_middle(fleet) -> None:
    """Runs in progress go on, those that wait in Redis are still there, one launched meanwhile is sent later."""
    active_runs = ActiveRunQuery(fleet.fleet.app(), answer_seconds=1, valid_seconds=0)
    clips = [f"held-restart-{number}" for number in range(6)]
    with fleet.gpu_slots(6):
        ids = [fleet.launch(clip) for clip in clips[:5]]
        for run_id in ids:
            fleet.wait_until("all are sent", lambda run_id=run_id: "Sent the run" in fleet.messages(run_id))
        fleet.wait_until("three are made", lambda: len(active_runs.holders(ids)) == 3)
        fleet.wait_until("two wait", lambda: len(active_runs.waiting(["gpu"])) == 2)
        fleet.fleet.processes["redis"].signal_group(signal.SIGKILL)
        ids.append(fleet.launch(clips[5]))
        for clip in clips:
            (fleet.folder / f"go-{clip}").touch()
        for run_id in ids:
            assert fleet.finish(run_id) == SUCCESS
    for clip in clips:
        assert len(fleet.runs_of(clip)) == 1, f"{clip} was retried"
        assert [line["event"] for line in fleet.executions(clip)].count("done") == 1
    # Afterwards the monitoring can ask again, and all workers take work again.
    fleet.wait_until("no run is held", lambda: active_runs.holders(ids) == {})
    fleet.wait_for_workers()
    pids = set()
    for name in fleet.fleet.gpu_worker_names:
        with fleet.only_worker(name):
            run_id = fleet.launch(f"after-restart-{name}")
            assert fleet.finish(run_id) == SUCCESS
            pids.add(fleet.started(run_id)["pid"])
    assert len(pids) == fleet.fleet.plan.gpu_workers
