"""``make fleet`` ends cleanly on Ctrl-C and SIGTERM, and the next one finishes what was interrupted."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import psutil
import pytest
from observed_fleet import CODE_LOCATION, QUICK_RETRY, ObservedFleet, toy_plan

from orchestration.fleet.local_fleet import FleetError, LocalFleet
from tests.waiting import HANG_SECONDS, is_running, wait_until

MAKE_FLEET = """
import sys
from orchestration.fleet import local_fleet
from orchestration.fleet.local import fleet_plan
fleet_plan.CODE_LOCATION = ("--python-file", sys.argv[1])
sys.exit(local_fleet.main(["--workers", "1", "--port", sys.argv[2]]))
"""


@contextmanager
def make_fleet(folder: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    environment = {key: value for key, value in os.environ.items() if key not in {"REDIS_URL", "DAGSTER_HOME"}}
    environment |= {"DATA_DIR": str(folder), "FLEET_TEST_DIR": str(folder / "notes"), "ONE_TO_ALL_DEVICE": "cpu"}
    environment |= QUICK_RETRY
    process = subprocess.Popen(
        [sys.executable, "-c", MAKE_FLEET, str(CODE_LOCATION), str(port)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("Dagster UI"):
                break
        else:
            pytest.fail("".join(lines))
        yield process
    finally:
        if process.poll() is None:
            process.terminate()
        process.communicate(timeout=HANG_SECONDS)


def stop(process: subprocess.Popen[str], number: signal.Signals) -> None:
    """Stop a fleet, and check that nothing is left of it."""
    family = psutil.Process(process.pid).children(recursive=True)
    assert len(family) >= 7, "redis, code server, webserver, daemon, two workers and their processes"
    process.send_signal(number)
    assert process.wait(HANG_SECONDS) == 0
    # A dead process whose parent died, too, is a zombie until the system's init takes notice; it runs nothing.
    wait_until("nothing is left", lambda: not any(one.is_running() and is_running(one.pid) for one in family))


def test_stop_interrupts_the_run_and_the_next_fleet_finishes_it(tmp_path: Path) -> None:
    """And a second fleet on the same database is refused meanwhile."""
    plan = toy_plan(tmp_path)
    fleet = LocalFleet(plan)  # never started: it knows the address and the home
    with make_fleet(tmp_path, plan.port) as process, fleet.instance() as instance:
        seen = ObservedFleet(fleet, tmp_path / "notes", instance)
        with pytest.raises(FleetError, match="Another fleet runs"), fleet:
            pass
        run_id = seen.launch("slow-interrupted")
        seen.started(run_id)
        stop(process, signal.SIGINT)
        assert seen.run(run_id).status == dg.DagsterRunStatus.FAILURE, "the worker must still report the end"
    with make_fleet(tmp_path, plan.port) as process:
        with fleet.instance() as instance:
            seen = ObservedFleet(fleet, tmp_path / "notes", instance)
            retried = wait_until("the run is retried", lambda: seen.runs_of("slow-interrupted")[1:])[0]
            assert seen.finish(retried.run_id) == dg.DagsterRunStatus.SUCCESS
        stop(process, signal.SIGTERM)
