"""A GPU that stays dead: its worker leaves the queue to the others, says why, and comes back when the GPU answers.

A fleet of its own with two workers, whose torch is a stand-in: it computes unless a file says that the card is dead.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from observed_fleet import ObservedFleet, running, toy_plan

from orchestration.fleet.worker_list import worker_states

FAILURE, SUCCESS = dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS
REASON = "CUDA unknown error"

TORCH = """
import os
from pathlib import Path
from types import SimpleNamespace

used = False

def answers():
    return not (Path(os.environ["FLEET_TEST_DIR"]) / ("dead-" + os.environ["CUDA_VISIBLE_DEVICES"])).exists()

def compute(count):
    global used
    if not answers():
        raise RuntimeError("CUDA unknown error\\n...")
    used = True
    return count

def ones(count, device):
    return SimpleNamespace(sum=lambda: SimpleNamespace(item=lambda: compute(count)))

backends = SimpleNamespace(cuda=SimpleNamespace(is_built=lambda: True))
cuda = SimpleNamespace(
    is_initialized=lambda: used,
    is_available=answers,
    device_count=lambda: 1,
    memory_reserved=lambda index: 1,
    synchronize=lambda index: compute(1),
)
"""


@pytest.fixture
def two_gpus(tmp_path: Path) -> Iterator[ObservedFleet]:
    (tmp_path / "stand_in").mkdir()
    (tmp_path / "stand_in" / "torch.py").write_text(TORCH)
    plan = toy_plan(tmp_path, gpu_workers=2, gpus=("0", "1"))
    settings = {"PYTHONPATH": str(tmp_path / "stand_in"), "ONE_TO_ALL_DEVICE": "auto"}
    plan = toy_plan(tmp_path, gpu_workers=2, gpus=("0", "1"), environment={**plan.environment, **settings})
    with running(plan) as fleet, fleet.instance() as instance:
        yield ObservedFleet(fleet, tmp_path / "notes", instance)


def trouble(fleet: ObservedFleet, worker: str) -> str | None:
    """Why a worker takes no runs, as the list of workers shows it."""

    def all_states() -> dict[str, Any] | None:
        states = dict(worker_states(fleet.fleet.redis_url, 1.0))
        return states if len(states) == 3 else None

    return fleet.wait_until("all workers answer", all_states)[fleet.node(worker)]["trouble"]


def test_a_dead_gpu_takes_no_clips_until_it_answers_again(two_gpus: ObservedFleet) -> None:
    fleet = two_gpus
    dead = fleet.folder / "dead-0"
    with fleet.only_worker("gpu-0"):
        before = fleet.launch("on-gpu-before")
        assert fleet.finish(before) == SUCCESS
        assert fleet.started(before)["device"] == "cuda", "what `auto` means is settled"
        assert trouble(fleet, "gpu-0") is None

        # It dies in a process that has used it: the run fails, and is retried. The worker reads the queue no more.
        dead.touch()
        first = fleet.launch("on-gpu-dying")
        assert fleet.finish(first) == FAILURE
        assert f"lost its GPU ({REASON})" in fleet.messages(first)
        second = fleet.wait_until("it is retried", lambda: fleet.runs_of("on-gpu-dying")[1:])[0].run_id
        fleet.wait_until("it is sent", lambda: "Sent the run" in fleet.messages(second))
        fleet.wait_until("the worker says why", lambda: REASON in (trouble(fleet, "gpu-0") or ""))
        time.sleep(2)
        assert fleet.run(second).status == dg.DagsterRunStatus.STARTING, "it waits in the queue"

        # Its new process does not try either, even if it is made to take a run: the run goes back to the queue.
        fleet.app.control.add_consumer("gpu", destination=[fleet.node("gpu-0")])
        fleet.wait_until("the run comes back", lambda: "waits in the queue gpu" in fleet.messages(second))
        assert fleet.run(second).status == dg.DagsterRunStatus.STARTING

    # The other worker reads again, and makes that clip and all others.
    assert fleet.finish(second) == SUCCESS
    others = [fleet.launch(f"on-gpu-{number}") for number in range(3)]
    assert [fleet.finish(run_id) for run_id in others] == [SUCCESS] * 3
    assert {fleet.worker_of(fleet.started(run_id)["pid"]) for run_id in [second, *others]} == {"gpu-1"}
    assert all(len(fleet.runs_of(f"on-gpu-{number}")) == 1 for number in range(3)), "none was tried in vain"
    log = fleet.fleet.processes["gpu-0"].log.read_text()
    assert f"The GPU of this worker does not work ({REASON}): it takes no runs until the GPU answers" in log

    dead.unlink()
    fleet.wait_until("the worker takes runs again", lambda: trouble(fleet, "gpu-0") is None)
    with fleet.only_worker("gpu-0"):
        after = fleet.launch("on-gpu-after")
        assert fleet.finish(after) == SUCCESS
    assert fleet.worker_of(fleet.started(after)["pid"]) == "gpu-0"
