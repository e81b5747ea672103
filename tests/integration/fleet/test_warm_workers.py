"""Every way of launching lands on the right queue, and the processes that serve it stay warm."""

import signal
import statistics
from pathlib import Path

import dagster as dg

SUCCESS = dg.DagsterRunStatus.SUCCESS


def test_one_process_serves_six_runs_and_only_the_first_is_cold(fleet) -> None:
    overheads = []
    fleet.renew_process("gpu-0")
    with fleet.only_worker("gpu-0"):
        for number in range(6):
            run_id = fleet.launch(f"warm-{number}", seconds=0)
            assert fleet.finish(run_id) == SUCCESS
            launched = fleet.instance.get_run_stats(run_id).launch_time
            overheads.append(fleet.started(run_id)["time"] - launched)
    notes = [line for number in range(6) for line in fleet.executions(f"warm-{number}") if line["event"] != "done"]
    assert [line["event"] for line in notes] == ["cold"] + ["warm"] * 5
    assert len({line["pid"] for line in notes}) == 1
    assert fleet.worker_of(notes[0]["pid"]) == "gpu-0"
    print(f"launch to asset: cold {overheads[0]:.2f} s, warm median {statistics.median(overheads[1:]):.2f} s")
    assert statistics.median(overheads[1:]) < 5


def test_ui_backfill_sensor_and_schedule_all_land_on_the_gpu_queue(fleet) -> None:
    by_ui = fleet.launch("by-ui")
    backfill = fleet.backfill(["by-backfill-1", "by-backfill-2"])
    fleet.instance.add_dynamic_partitions("clips", ["by-sensor", "by-schedule"])
    (fleet.folder / "request-by-sensor").touch()
    (fleet.folder / "nightly-by-schedule").touch()
    cpu_run = fleet.launch(None, asset="model_files")
    # Meanwhile: a request error, which must not be retried although crashes are.
    (fleet.folder / "refuse-impossible").touch()
    refused = fleet.launch("impossible")

    assert fleet.finish(by_ui) == SUCCESS
    assert fleet.finish(cpu_run) == SUCCESS
    assert fleet.finish(refused) == dg.DagsterRunStatus.FAILURE
    clips = ["by-ui", "by-backfill-1", "by-backfill-2", "by-sensor", "by-schedule"]
    for clip in clips:
        fleet.wait_until(f"{clip} is done", lambda clip=clip: fleet.done(clip), 100)
        (run,) = fleet.runs_of(clip)
        assert fleet.finish(run.run_id) == SUCCESS
        assert fleet.run(run.run_id).tags["dagster-celery/queue"] == "gpu"
        assert fleet.worker_of(fleet.started(run.run_id)["pid"]).startswith("gpu-")
    assert fleet.runs_of("by-backfill-1")[0].tags["dagster/backfill"] == backfill
    assert fleet.runs_of("by-sensor")[0].tags["dagster/sensor_name"] == "inbox"
    assert fleet.runs_of("by-schedule")[0].tags["dagster/schedule_name"] == "nightly"

    assert fleet.run(cpu_run).tags["dagster-celery/queue"] == "cpu"
    (note,) = [line for line in fleet.executions() if line["run"] == cpu_run]
    assert fleet.worker_of(note["pid"]) == "cpu"
    assert note["cuda"] == "", "CPU work must not see a GPU"

    assert len(fleet.runs_of("impossible")) == 1, "a request error was retried"
    assert len(fleet.executions("impossible")) == 1


def test_a_queue_named_by_the_run_is_respected(fleet) -> None:
    run_id = fleet.launch("on-the-cpu", tags={"dagster-celery/queue": "cpu"})
    assert fleet.finish(run_id) == SUCCESS
    assert fleet.worker_of(fleet.started(run_id)["pid"]) == "cpu"


def test_a_worker_process_gets_its_signal_handlers_back(fleet) -> None:
    """Dagster changes the handlers of SIGINT and SIGTERM during a run, and leaves both ignored."""
    run_id = fleet.launch("signals")
    assert fleet.finish(run_id) == SUCCESS
    status = Path(f"/proc/{fleet.started(run_id)['pid']}/status").read_text()
    ignored = int(next(line.split()[1] for line in status.splitlines() if line.startswith("SigIgn")), 16)
    assert ignored & (1 << (signal.SIGINT - 1)), "a late cancel must not reach a process without a run"
    assert not ignored & (1 << (signal.SIGTERM - 1)), "SIGTERM must still end an idle process"
