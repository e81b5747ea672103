"""Every way of launching lands on the right queue, and the processes that serve it stay warm."""

import signal
import statistics
import time
from itertools import accumulate
from operator import itemgetter
from pathlib import Path

import dagster as dg

SUCCESS = dg.DagsterRunStatus.SUCCESS


def test_one_process_serves_six_runs_and_only_the_first_is_cold(fleet) -> None:
    launch_to_asset = []
    fleet.renew_process("gpu-0")
    with fleet.only_worker("gpu-0"):
        for number in range(6):
            run_id = fleet.launch(f"warm-{number}", seconds=0)
            assert fleet.finish(run_id) == SUCCESS
            launched = fleet.instance.get_run_stats(run_id).launch_time
            launch_to_asset.append(fleet.started(run_id)["time"] - launched)
    notes = [line for number in range(6) for line in fleet.executions(f"warm-{number}") if line["event"] != "done"]
    assert [line["event"] for line in notes] == ["cold"] + ["warm"] * 5
    assert len({line["pid"] for line in notes}) == 1
    assert fleet.worker_of(notes[0]["pid"]) == "gpu-0"
    print(
        f"launch to asset: cold {launch_to_asset[0]:.2f} s, warm median {statistics.median(launch_to_asset[1:]):.2f} s"
    )


def test_runs_go_to_the_queue_of_their_pool_and_a_request_error_is_not_retried(fleet) -> None:
    """Launched as in the UI; sensor, schedule and backfill: ``test_real_code_location``."""
    (fleet.folder / "refuse-impossible").touch()
    cpu_run = fleet.launch(None, asset="model_files")
    gpu_run = fleet.launch("by-ui")
    refused = fleet.launch("impossible")

    assert fleet.finish(gpu_run) == SUCCESS
    assert fleet.run(gpu_run).tags["dagster-celery/queue"] == "gpu"
    assert fleet.worker_of(fleet.started(gpu_run)["pid"]).startswith("gpu-")

    assert fleet.finish(cpu_run) == SUCCESS
    assert fleet.run(cpu_run).tags["dagster-celery/queue"] == "cpu"
    (note,) = [line for line in fleet.executions() if line["run"] == cpu_run]
    assert fleet.worker_of(note["pid"]) == "cpu"
    assert note["cuda"] == "", "CPU work must not see a GPU"

    assert fleet.finish(refused) == dg.DagsterRunStatus.FAILURE
    fleet.wait_until("Dagster has decided about a retry", lambda: "dagster/will_retry" in fleet.run(refused).tags)
    assert fleet.run(refused).tags["dagster/will_retry"] == "false"
    assert len(fleet.runs_of("impossible")) == len(fleet.executions("impossible")) == 1


def test_a_request_has_one_run_at_a_time_and_the_gpus_as_many_as_there_are_workers(fleet) -> None:
    assert fleet.instance.event_log_storage.get_concurrency_info("gpu").slot_count == fleet.fleet.plan.gpu_workers
    clips = ("held-twice", "held-twice", "held-once", "held-once-more")
    with fleet.gpu_slots(0):
        ids = [fleet.launch(clip) for clip in clips]
    with fleet.gpu_slots(2):
        fleet.wait_until("two are made at once", lambda: sum(line["run"] in ids for line in fleet.executions()) == 2)
        time.sleep(2.5)  # two passes of the queue: a third run would be launched by now
        for clip in clips:
            (fleet.folder / f"go-{clip}").touch()
        assert [fleet.finish(run_id) for run_id in ids] == [SUCCESS] * 4
    assert [line["event"] == "done" for line in fleet.executions("held-twice")] == [False, True, False, True]
    notes = sorted((line for line in fleet.executions() if line["run"] in ids), key=itemgetter("time"))
    working = list(accumulate(-1 if line["event"] == "done" else 1 for line in notes))
    assert max(working) == 2, "as many at once as the pool has slots"


def test_a_queue_named_by_the_run_is_respected(fleet) -> None:
    run_id = fleet.launch("on-the-cpu", tags={"dagster-celery/queue": "cpu"})
    assert fleet.finish(run_id) == SUCCESS
    assert fleet.worker_of(fleet.started(run_id)["pid"]) == "cpu"


def test_a_worker_process_gets_its_signal_handlers_back(fleet) -> None:
    """Dagster changes the handlers of SIGINT and SIGTERM during a run, and leaves both ignored."""
    run_id = fleet.launch("signals")
    assert fleet.finish(run_id) == SUCCESS
    status = Path(f"/proc/{fleet.started(run_id)['pid']}/status")

    def is_ignored(number: signal.Signals) -> bool:
        line = next(line for line in status.read_text().splitlines() if line.startswith("SigIgn"))
        return bool(int(line.split()[1], 16) & (1 << (number - 1)))

    # Shortly after the run's end: a late cancel must not reach a process without a run.
    fleet.wait_until("SIGINT is ignored", lambda: is_ignored(signal.SIGINT))
    assert not is_ignored(signal.SIGTERM), "SIGTERM must still end an idle process"
