"""The real code location on a fleet: models on the CPU queue, warm clips on the GPU queue, a canceled backfill."""

import os
import subprocess
import sys
from collections.abc import Iterator

import dagster as dg
import pytest
from real_fleet import RealFleet, running_fleet

SUCCESS = dg.DagsterRunStatus.SUCCESS
BACKFILL_KEYS = 200
ANSWER_SECONDS = 2.0
DAEMON_GROWTH_BYTES = 300 * 1024**2


@pytest.fixture(scope="module")
def real_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealFleet]:
    with running_fleet(tmp_path_factory.mktemp("real_fleet")) as fleet:
        yield fleet


def test_models_on_the_cpu_queue_then_a_cold_and_a_warm_clip(real_fleet: RealFleet) -> None:
    models = real_fleet.launch_job("prepare_models", "sandbox")
    assert real_fleet.finish(models, 90) == SUCCESS, real_fleet.messages(models)
    assert real_fleet.run(models).tags["dagster-celery/queue"] == "cpu"

    real_fleet.write_media()
    real_fleet.submit("first", seed=1)
    real_fleet.submit("second", seed=2)
    clips = []
    for request_id in ("first", "second"):
        run = real_fleet.launched(request_id)
        assert real_fleet.finish(run.run_id, 90) == SUCCESS, real_fleet.messages(run.run_id)
        assert real_fleet.run(run.run_id).tags["dagster-celery/queue"] == "gpu"
        assert run.tags["dagster/sensor_name"] == "inbox_sensor"
        clips.append((real_fleet.instance.get_run_stats(run.run_id).start_time, real_fleet.metadata(run.run_id)))
    cold, warm = (metadata for _, metadata in sorted(clips, key=lambda clip: clip[0]))
    assert (cold["start"], warm["start"]) == ("cold", "warm")
    assert cold["pid"] == warm["pid"]
    assert real_fleet.worker_of(warm["pid"]) == "gpu-0"
    assert (warm["worker"], warm["queue"]) == ("gpu-0", "gpu")
    assert warm["load seconds"] < cold["load seconds"]
    print(f"loading: cold {cold['load seconds']:.2f} s, warm {warm['load seconds']:.4f} s")


def test_a_backfill_is_canceled_and_the_ui_stays_usable(real_fleet: RealFleet) -> None:
    seen = real_fleet.cancel_a_backfill(BACKFILL_KEYS, cancel_at=40, seconds=100)
    print(seen)
    assert seen.runs < BACKFILL_KEYS, "canceled too late to show anything"
    assert seen.median_answer < ANSWER_SECONDS
    assert seen.daemon_peak - seen.daemon_before < DAEMON_GROWTH_BYTES
    # The worker goes on as before, warm.
    real_fleet.submit("after-backfill", seed=3)
    run = real_fleet.launched("after-backfill")
    assert real_fleet.finish(run.run_id, 60) == SUCCESS, real_fleet.messages(run.run_id)
    assert real_fleet.metadata(run.run_id)["start"] == "warm"


@pytest.mark.parametrize(("name", "status"), [("gpu-0", 0), ("cpu", 0), ("gpu-7", 1)])
def test_the_health_check_of_a_container(real_fleet: RealFleet, name: str, status: int) -> None:
    command = [sys.executable, "-m", "orchestration.fleet.worker_health", name, "--seconds", "3"]
    done = subprocess.run(command, env={**os.environ, **real_fleet.fleet.environment}, check=False)
    assert done.returncode == status
