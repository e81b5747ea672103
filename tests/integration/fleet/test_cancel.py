"""Cancel in the UI: the step ends, the run is CANCELED, the worker process and its model stay."""

import time

import dagster as dg
import pytest

CANCELED, SUCCESS = dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.SUCCESS


@pytest.mark.parametrize("asset", ["clip", "stubborn_clip"])
def test_cancel_ends_the_run_and_the_worker_stays_warm(fleet, asset: str) -> None:
    """A retry policy (``stubborn_clip``) must not answer the interrupt with another attempt."""
    with fleet.only_worker("gpu-1"):
        run_id = fleet.launch(f"slow-canceled-{asset}", asset=asset)
        pid = fleet.started(run_id)["pid"]
        asked = time.monotonic()
        fleet.cancel(run_id)
        assert fleet.finish(run_id) == CANCELED
        print(f"{asset}: canceled after {time.monotonic() - asked:.1f} s")

        after = fleet.launch(f"after-{asset}")
        assert fleet.finish(after) == SUCCESS
    assert fleet.started(after)["pid"] == pid
    assert fleet.started(after)["event"] == "warm"
    assert fleet.run(run_id).status == CANCELED
    assert not fleet.done(f"slow-canceled-{asset}")
    assert len(fleet.runs_of(f"slow-canceled-{asset}")) == 1, "a canceled run was retried"


def test_cancel_of_a_run_that_waits_in_redis(fleet) -> None:
    with fleet.only_worker():
        run_id = fleet.launch("never-taken")
        fleet.wait_until("the run is sent", lambda: "Sent the run to the queue gpu" in fleet.messages(run_id))
        assert fleet.run(run_id).status == dg.DagsterRunStatus.STARTING
        fleet.cancel(run_id)
        assert fleet.finish(run_id) == CANCELED
    # Its message is still there; a worker takes it, and must not execute it.
    after = fleet.launch("after-never-taken")
    assert fleet.finish(after) == SUCCESS
    assert fleet.executions("never-taken") == []
    assert fleet.run(run_id).status == CANCELED


def test_cancel_at_any_moment_of_the_start(fleet) -> None:
    """Queued, on its way, and while the worker's first event turns the status CANCELED into STARTED."""
    ids = []
    for number, delay in enumerate([None, 0.0, 0.1, 0.2, 0.4]):
        run_id = fleet.launch(f"slow-at-once-{number}")
        if delay is not None:
            fleet.wait_until("it is sent", lambda run_id=run_id: fleet.run(run_id).status != dg.DagsterRunStatus.QUEUED)
            time.sleep(delay)
        print(f"canceled while {fleet.run(run_id).status.value}")
        fleet.cancel(run_id)
        ids.append(run_id)
    for run_id in ids:
        assert fleet.finish(run_id) == CANCELED
    fleet.wait_until("no worker is busy with any of them", lambda: not any(fleet.active_tasks().values()))
    for run_id in ids:
        assert fleet.finish(run_id) == CANCELED
    assert not [line for line in fleet.executions() if line["run"] in ids and line["event"] == "done"]
