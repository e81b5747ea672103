"""What was canceled stays canceled until it is wanted again; what failed can be asked for again."""

import json
import re
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.run_coordinator import QueuedRunCoordinator

from libs.requests.lifecycle.cancellations import Cancellation, Cancellations, Retries
from libs.requests.lifecycle.listing import RequestListing
from libs.storage.chunks import StoredChunks
from orchestration import command_line
from orchestration.policies import DROPPED_TAG
from orchestration.requests.control import InstanceRuns
from tests.integration.orchestration.daemon import Daemon
from tests.integration.orchestration.sensor_ticks import WAITING_RUNS, sensor_ticks
from tests.waiting import HANG_SECONDS


@pytest.fixture
def daemon(empty_world: Any) -> Daemon:
    empty_world.put("puppet.png", b"picture")
    empty_world.put("dance.mp4", b"video")
    return Daemon(empty_world)


def submit(daemon: Daemon, *request_ids: str, **fields: Any) -> list[str]:
    """Put documents into the inbox and let the sensor take them; returns the requests whose runs were launched."""
    for request_id in request_ids:
        content = {"id": request_id, "reference": "puppet.png", "driver": "dance.mp4", "model": "sandbox", **fields}
        daemon.world.put(f"{request_id}.json", json.dumps(content).encode())
    return daemon.scan_inbox()


def states(daemon: Daemon) -> dict[str, str]:
    listing = RequestListing(daemon.world.store, InstanceRuns(daemon.world.instance)).take(None)
    return {line.name: line.state for line in listing.requests}


def test_canceled_in_the_ui_it_stays_so_every_night_until_submitted_again(daemon: Daemon) -> None:
    submit(daemon, "a", "b")
    daemon.cancel("a")
    daemon.fail("b")
    assert daemon.night() == ["b"]
    noted = Cancellations(daemon.world.objects).find("a")
    assert noted is not None
    assert noted.run_id == daemon.run_of("a").run_id
    daemon.world.instance.delete_run(daemon.run_of("a").run_id)
    daemon.fail("b")
    assert daemon.night() == ["b"], "the store remembers it when the run is pruned"
    daemon.scan_inbox()
    assert submit(daemon, "a") == ["a"]
    daemon.fail("a")
    assert daemon.night() == ["a"]


def test_a_nightly_request_canceled_and_submitted_again_runs_tonight(daemon: Daemon) -> None:
    submit(daemon, "a", when="nightly")
    assert daemon.night() == ["a"]
    daemon.cancel("a")
    assert daemon.night() == []
    daemon.scan_inbox()
    assert submit(daemon, "a", when="nightly") == []
    assert daemon.night() == ["a"]


@pytest.mark.parametrize("end", ["fail", "cancel"])
def test_the_same_document_submitted_again_runs(daemon: Daemon, end: str) -> None:
    submit(daemon, "a")
    getattr(daemon, end)("a")
    daemon.scan_inbox()
    assert submit(daemon, "a") == ["a"]
    daemon.scan_inbox()
    assert submit(daemon, "a") == [], "its run goes on"


@pytest.mark.parametrize("end", ["fail", "cancel"])
def test_retry_launches_one_run_even_if_a_process_dies(daemon: Daemon, end: str) -> None:
    submit(daemon, "a", when="nightly")
    daemon.night()
    getattr(daemon, end)("a")
    requests = daemon.world.requests
    requests.resubmit(requests.find("a"))
    Retries(daemon.world.objects).ask("a")
    assert states(daemon) == {"a": "queued: tried again at the next scan of the inbox"}
    assert daemon.scan_inbox() == ["a"]
    assert daemon.scan_inbox() == []
    daemon.fail("a")
    assert daemon.scan_inbox() == [], "the run key of this retry was used"


def test_a_run_dropped_for_its_twin_cancels_nothing(daemon: Daemon) -> None:
    submit(daemon, "a")
    daemon.fail("a")
    run = daemon.run_of("a")
    twin = daemon.start_run({**run.tags, DROPPED_TAG: run.run_id})
    daemon.world.instance.report_run_canceled(twin)
    assert daemon.night() == ["a"]


def test_a_cancel_that_is_remembered_holds_without_any_run(daemon: Daemon) -> None:
    submit(daemon, "a", when="nightly")
    note = Cancellation(request_id="a", canceled=datetime.now(UTC), by="ann")
    Cancellations(daemon.world.objects).remember(note)
    assert daemon.night() == []
    assert states(daemon)["a"].endswith(", by ann)")


def test_list_shows_each_state(daemon: Daemon) -> None:
    submit(daemon, "made", "stale", "failed", "canceled", "busy", "first", "second")
    submit(daemon, "nightly", when="nightly")
    for name in ("made", "stale"):
        daemon.succeed(name)
    submit(daemon, "stale", prompt="new", when="nightly")
    daemon.fail("failed")
    daemon.cancel("canceled")
    instance = daemon.world.instance
    daemon.world.put("late.json", json.dumps({"id": "late", "reference": "gone.png", "driver": "dance.mp4"}).encode())
    for name in ("first", "second"):
        daemon.fail(name)
        daemon.start_run(daemon.run_of(name).tags, status=dg.DagsterRunStatus.NOT_STARTED)
    run = daemon.run_of("busy")
    instance.report_engine_event("started", run)
    shown = states(daemon)
    assert shown["made"] == "stored"
    assert shown["stale"] == "stored, stale (the request was changed since): tonight"
    assert shown["failed"].startswith("failed: ")
    assert shown["canceled"].startswith("canceled (20")
    assert shown["nightly"] == "tonight"
    assert shown["first"] == "queued, next"
    assert shown["second"] == "queued (1 before it)"
    assert shown["busy"] == "starting"
    assert shown["late.json"] == "waiting for media: gone.png"
    assert next(iter(shown)) == "late.json"


def test_cancel_ends_a_queued_run(daemon: Daemon) -> None:
    submit(daemon, "a")
    daemon.fail("a")
    instance = daemon.world.instance
    origin = RemoteJobOrigin(
        RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("one_to_all"), "__repository__"), "animate"
    )
    run = instance.add_run(
        dg.DagsterRun(
            job_name="animate",
            tags=daemon.run_of("a").tags,
            status=dg.DagsterRunStatus.QUEUED,
            remote_job_origin=origin,
        )
    )
    coordinator = QueuedRunCoordinator()
    coordinator.register_instance(instance)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(instance), "run_coordinator", coordinator)
        assert InstanceRuns(instance).cancel("a").canceled == 1
    assert instance.get_run_by_id(run.run_id).status == dg.DagsterRunStatus.CANCELED


@pytest.mark.slow
def test_a_running_request_canceled_by_the_command_stays_so_until_retry(
    daemon: Daemon, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Through Dagster's sensor daemon, code server and launcher: the run is a process of its own."""
    world = daemon.world
    home = tmp_path / "world" / "dagster"
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    StoredChunks(world.objects, "chunks/a/0123/81-5-81").save(0, np.zeros((1, 64, 48, 3), np.uint8))
    chunks = [info.key for info in world.objects.list("chunks/")]

    def one_to_all(*arguments: str) -> str:
        monkeypatch.setattr("sys.argv", ["one-to-all", *arguments])
        with pytest.raises(SystemExit) as ended:
            command_line.main()
        output = capsys.readouterr()
        assert not ended.value.code, output.err + output.out
        return output.out

    def state() -> str:
        (line,) = json.loads(one_to_all("list", "--json"))["requests"]
        return str(line["state"])

    def wait_for(status: dg.DagsterRunStatus) -> None:
        deadline = time.monotonic() + HANG_SECONDS
        while (run := world.instance.get_runs(limit=1)[0]).status != status:
            assert not run.is_finished
            assert time.monotonic() < deadline, run.status
            time.sleep(0.1)

    content = {"id": "a", "reference": "puppet.png", "driver": "dance.mp4", "model": "sandbox"}
    world.put("a.json", json.dumps(content).encode())
    with sensor_ticks(world, WAITING_RUNS) as ticks:
        ticks.tick()
        ticks.launch_queued()
        wait_for(dg.DagsterRunStatus.STARTED)
        assert "a: canceled, 1 run ends; `one-to-all retry a` makes it again\n" in one_to_all("cancel", "a")
        wait_for(dg.DagsterRunStatus.CANCELED)
        assert re.fullmatch(r"canceled \(20.* UTC, by .+\)", state())
        ticks.tick()
        assert daemon.night() == []
        assert len(ticks.queued()) == 1
        assert one_to_all("retry", "a") == "a: runs now: the next scan of the inbox launches it\n"
        ticks.tick()
        wait_for(dg.DagsterRunStatus.QUEUED)
        assert state() == "queued, next"
    assert len(ticks.runs()) == 2
    assert len(set(ticks.runs())) == 1, "of the same content"
    assert [info.key for info in world.objects.list("chunks/")] == chunks
