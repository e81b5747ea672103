"""The real code location on a fleet: models on the CPU queue, warm clips of sensor and schedule on the GPU queue.

And a long clip whose worker is killed, which goes on where it was, and a backfill that is canceled.
"""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import dagster as dg
import pytest
from observed_fleet import QUICK_RETRY
from real_fleet import RealFleet, running_fleet

from libs.media.video.reader import read_frames
from libs.media.video.stream_digest import stream_digest
from libs.provenance.clip_tag import read_origin
from tests.waiting import HANG_SECONDS

SUCCESS = dg.DagsterRunStatus.SUCCESS
LONG_FRAMES = 300
LONG_CLIP = {"driver": "long.mp4", "when": "nightly", "size": {"height": 32, "width": 32}, "steps": 4}
BACKFILL_KEYS = 200
DAEMON_GROWTH_BYTES = 300 * 1024**2


@pytest.fixture(scope="module")
def real_fleet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealFleet]:
    """One GPU worker; the night begins every minute, until a test ends that."""
    folder = tmp_path_factory.mktemp("real_fleet")
    with running_fleet(folder, {"NIGHTLY_CRON": "* * * * *", **QUICK_RETRY}) as fleet:
        yield fleet


def test_models_on_the_cpu_queue_then_the_most_urgent_clip_first_and_only_that_cold(real_fleet: RealFleet) -> None:
    """Documents become runs by the sensor or the schedule, all of which wait until the GPU is free."""
    priorities = {"tonight-last": -5, "tonight": 0, "tonight-urgent": 90}
    real_fleet.write_media()
    with real_fleet.gpu_slots(0):
        models = real_fleet.launch_job("prepare_models", "sandbox")
        real_fleet.submit("now", seed=1)
        by_sensor = real_fleet.launched("now")
        for request_id, priority in priorities.items():
            real_fleet.submit(request_id, when="nightly", priority=priority)
        by_schedule = {request_id: real_fleet.launched(request_id) for request_id in priorities}
        real_fleet.stop_schedule("nightly_batch")
        assert real_fleet.finish(models) == SUCCESS, real_fleet.messages(models)
        waiting = [by_sensor.run_id, *(run.run_id for run in by_schedule.values())]
        queued = {dg.DagsterRunStatus.QUEUED}
        real_fleet.wait_until("all wait", lambda: {real_fleet.run(run_id).status for run_id in waiting} == queued)
    assert real_fleet.run(models).tags["dagster-celery/queue"] == "cpu"
    assert by_sensor.tags["dagster/sensor_name"] == "inbox_sensor"
    assert {run.tags["dagster/schedule_name"] for run in by_schedule.values()} == {"nightly_batch"}

    runs = {"now": by_sensor.run_id, **{request_id: run.run_id for request_id, run in by_schedule.items()}}
    for run_id in runs.values():
        assert real_fleet.finish(run_id) == SUCCESS, real_fleet.messages(run_id)
        assert real_fleet.run(run_id).tags["dagster-celery/queue"] == "gpu"
    began = {request_id: real_fleet.instance.get_run_stats(run_id).start_time for request_id, run_id in runs.items()}
    order = sorted(began, key=began.__getitem__)
    assert order == ["tonight-urgent", "now", "tonight", "tonight-last"], "by priority, then by age"

    cold, *others = (real_fleet.metadata(runs[request_id]) for request_id in order)
    assert [clip["start"] for clip in (cold, *others)] == ["cold", "warm", "warm", "warm"]
    for warm in others:
        assert (warm["pid"], warm["worker"], warm["queue"]) == (cold["pid"], "gpu-0", "gpu")
        assert warm["load seconds"] < cold["load seconds"]
    assert real_fleet.worker_of(cold["pid"]) == "gpu-0"
    print(f"loading: cold {cold['load seconds']:.2f} s, warm {others[0]['load seconds']:.4f} s")


def test_a_clip_of_300_frames_killed_in_its_third_chunk_goes_on_there(real_fleet: RealFleet) -> None:
    real_fleet.write_media(LONG_FRAMES, "long.mp4")
    for request_id in ("killed", "undisturbed"):
        real_fleet.submit(request_id, **LONG_CLIP)
    killed, undisturbed = (real_fleet.animate_by_hand(request_id) for request_id in ("killed", "undisturbed"))

    real_fleet.wait_until("two chunks are stored", lambda: 1 in real_fleet.chunks("killed"), pause=0.01)
    pid = real_fleet.process_of("gpu-0")
    os.kill(pid, signal.SIGKILL)
    left = real_fleet.chunks("killed")
    assert sorted(left) in ([0, 1], [0, 1, 2]), "killed while it made the third, or the last"

    assert real_fleet.finish(killed) == dg.DagsterRunStatus.FAILURE
    retried = real_fleet.wait_until("the run is retried", lambda: real_fleet.runs_of("killed")[1:])[0]

    def is_made_without_making_chunks_again() -> bool:
        ended = real_fleet.run(retried.run_id).is_finished
        chunks = real_fleet.chunks("killed")  # they go when the clip is stored
        assert chunks.items() >= {number: left[number] for number in left if number in chunks}.items()
        return ended

    real_fleet.wait_until("the clip is made", is_made_without_making_chunks_again)
    for run_id in (retried.run_id, undisturbed):
        assert real_fleet.finish(run_id) == SUCCESS, real_fleet.messages(run_id)
    assert len(real_fleet.runs_of("killed")) == 2

    resumed, whole = real_fleet.metadata(retried.run_id), real_fleet.metadata(undisturbed)
    assert resumed["pid"] != pid
    assert (resumed["chunks_resumed"], whole["chunks_resumed"]) == (len(left), 0)
    assert resumed["chunk_starts"] == whole["chunk_starts"] == [0, 76, 152, 227]
    steps = {event.step_key for event in real_fleet.instance.get_run_step_stats(retried.run_id)}
    assert not steps & {"validate_request", "pose_tracks", "pose_conditioning"}, "finished before the crash"
    files = [real_fleet.artifacts.fetch("animation", name).path("clip.mp4") for name in ("killed", "undisturbed")]
    assert len(list(read_frames(files[0]))) == LONG_FRAMES
    assert stream_digest(files[0]) == stream_digest(files[1]), "frames are equal, even as they are encoded"
    tags = [read_origin(file) for file in files]
    renamed = {**tags[0].request, "id": "undisturbed"}
    assert tags[0].model_copy(update={"request": renamed}) == tags[1], "the tag differs in the name only"
    assert not real_fleet.chunks("killed"), "chunks go when the clip is stored"


def test_a_clip_is_canceled_while_it_is_sampled_and_the_model_stays(real_fleet: RealFleet) -> None:
    real_fleet.submit("canceled", seed=9, **LONG_CLIP)  # its poses are there already
    run_id = real_fleet.animate_by_hand("canceled")
    real_fleet.wait_until("a chunk is stored", lambda: real_fleet.chunks("canceled"), pause=0.01)
    pid = real_fleet.process_of("gpu-0")
    real_fleet.cancel(run_id)
    assert real_fleet.finish(run_id) == dg.DagsterRunStatus.CANCELED
    assert real_fleet.process_of("gpu-0") == pid
    assert real_fleet.artifacts.manifest("animation", "canceled") is None
    assert len(real_fleet.chunks("canceled")) < 4, "it was not made to its end"


def test_a_backfill_is_canceled_and_the_ui_stays_usable(real_fleet: RealFleet) -> None:
    seen = real_fleet.cancel_a_backfill(BACKFILL_KEYS, cancel_at=20, seconds=HANG_SECONDS, lost=1)
    print(seen)
    assert seen.cancels >= 2, "a cancel that the daemon overwrites is asked for again"
    assert seen.runs < BACKFILL_KEYS, "canceled too late to show anything"
    assert seen.queues == {"gpu"}
    assert seen.daemon_peak - seen.daemon_before < DAEMON_GROWTH_BYTES
    # The worker goes on as before, warm.
    real_fleet.submit("after-backfill", seed=3)
    run = real_fleet.launched("after-backfill")
    assert real_fleet.finish(run.run_id) == SUCCESS, real_fleet.messages(run.run_id)
    assert real_fleet.metadata(run.run_id)["start"] == "warm"


@pytest.mark.parametrize(("name", "status"), [("gpu-0", 0), ("cpu", 0), ("gpu-7", 1)])
def test_the_health_check_of_a_container(real_fleet: RealFleet, name: str, status: int) -> None:
    patience = "30" if status == 0 else "3"  # an answer ends the wait
    command = [sys.executable, "-m", "orchestration.fleet.worker_health", name, "--seconds", patience]
    done = subprocess.run(command, env={**os.environ, **real_fleet.fleet.environment}, check=False)
    assert done.returncode == status
