"""Cancel in the UI: the step ends, the run is CANCELED, the worker process and its model stay."""

import time

import dagster as dg
import pytest

CANCELED, SUCCESS = dg.DagsterRunStatus.CANCELED, dg.DagsterRunStatus.SUCCESS


@pytest.mark.parametrize("asset", ["clip", "stubborn_clip"])
def test_cancel_ends_the_run_within_ten_seconds_and_the_worker_stays_warm(fleet, asset: str) -> None:
    """A retry policy (``stubborn_clip``) must not answer the interrupt with another attempt."""
    with fleet.only_worker("gpu-1"):
        run_id = fleet.launch(f"slow-canceled-{asset}", asset=asset)
        pid = fleet.started(run_id)["pid"]
        asked = time.monotonic()
        fleet.cancel(run_id)
        assert fleet.finish(run_id, 10) == CANCELED
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
        assert fleet.finish(run_id, 10) == CANCELED
    # Its message is still there; a worker takes it, and must not execute it.
    after = fleet.launch("after-never-taken")
    assert fleet.finish(after) == SUCCESS
    assert fleet.executions("never-taken") == []
    assert fleet.run(run_id).status == CANCELED


def test_cancel_while_the_run_starts(fleet) -> None:
    """Between the launch and the first event of the run its status passes through STARTING to STARTED."""
    ids = [fleet.launch(f"slow-at-once-{number}") for number in range(3)]
    for run_id in ids:
        # Each at another moment: queued, sent, started.
        fleet.cancel(run_id)
        time.sleep(0.7)
    for run_id in ids:
        assert fleet.finish(run_id, 12) == CANCELED
    time.sleep(2)
    assert [fleet.run(run_id).status for run_id in ids] == [CANCELED] * 3
    # No worker is left busy with any of them.
    held = fleet.active_tasks()
    assert not any(held.values()), held
