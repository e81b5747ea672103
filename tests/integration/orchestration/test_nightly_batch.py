"""The nightly batch on a real instance: it picks exactly the requests that lack a clip, the most urgent first."""

import json
from datetime import timedelta
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.tags import AUTO_RETRY_RUN_ID_TAG, WILL_RETRY_TAG

from libs.errors import SettingsError
from libs.settings import load_settings
from orchestration.definitions import build_defs
from orchestration.partitions import ANIMATION_REQUESTS
from orchestration.policies import MAKES_TAG
from orchestration.requests import runs as request_runs
from orchestration.requests.nightly import build_nightly_batch
from tests.integration.orchestration.daemon import Daemon


@pytest.fixture
def daemon(empty_world: Any) -> Daemon:
    empty_world.put("puppet.png", b"picture")
    empty_world.put("dance.mp4", b"video")
    return Daemon(empty_world)


def submit(daemon: Daemon, *request_ids: str, **fields: Any) -> None:
    """Put documents into the inbox and let the sensor take them."""
    for request_id in request_ids:
        content = {"id": request_id, "reference": "puppet.png", "driver": "dance.mp4", "model": "sandbox", **fields}
        daemon.world.put(f"{request_id}.json", json.dumps(content).encode())
    daemon.scan_inbox()


def test_it_picks_exactly_the_missing_ones(daemon: Daemon) -> None:
    submit(daemon, "done", "failed", "canceled", "running", "resubmitted", "reverted")
    submit(daemon, "never", when="nightly")
    for request_id in ("done", "resubmitted", "reverted"):
        daemon.succeed(request_id)
    daemon.fail("failed")
    daemon.cancel("canceled")
    submit(daemon, "resubmitted", prompt="new", when="nightly")
    submit(daemon, "reverted", prompt="new", when="nightly")
    submit(daemon, "reverted", when="nightly")
    assert sorted(daemon.night()) == ["failed", "never", "resubmitted"]
    assert daemon.night() == [], "all of them are in progress now"


def test_it_goes_on_until_every_clip_is_there(daemon: Daemon) -> None:
    submit(daemon, "a", "b", when="nightly")
    assert daemon.night() == ["a", "b"]
    daemon.succeed("a")
    daemon.fail("b")
    assert daemon.night() == ["b"]
    daemon.fail("b")
    assert daemon.night() == ["b"]
    daemon.succeed("b")
    assert daemon.night() == []
    assert daemon.skipped == "None of the 2 registered requests lacks a clip."


def test_a_crashed_run_is_retried_once_not_twice(daemon: Daemon, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between a crash and Dagster's own retry of the run there are seconds in which no run is in progress."""
    submit(daemon, "crashed")
    daemon.fail("crashed")
    daemon.world.instance.add_run_tags(daemon.run_of("crashed").run_id, {WILL_RETRY_TAG: "true"})
    assert daemon.night() == []
    monkeypatch.setattr(request_runs, "RETRY_IS_DUE", timedelta(0))
    assert daemon.night() == ["crashed"], "a retry that never comes is not waited for"
    daemon.fail("crashed")
    monkeypatch.undo()
    daemon.world.instance.add_run_tags(daemon.runs[0].run_id, {AUTO_RETRY_RUN_ID_TAG: daemon.runs[1].run_id})
    assert daemon.night() == ["crashed"], "what was retried, and failed for good, is missing"


def test_a_clip_that_was_removed_from_the_store_is_made_again(daemon: Daemon) -> None:
    submit(daemon, "a")
    daemon.succeed("a")
    assert daemon.night() == []
    daemon.world.objects.delete("animation/a/manifest.json")
    assert daemon.night() == ["a"]


def test_the_most_urgent_first_and_among_equals_the_oldest(daemon: Daemon) -> None:
    submit(daemon, "z-plain", when="nightly")
    submit(daemon, "low", when="nightly", priority=-5)
    submit(daemon, "a-plain", when="nightly")
    submit(daemon, "urgent", when="nightly", priority=90)
    assert daemon.night() == ["urgent", "z-plain", "a-plain", "low"]
    assert [run.tags["dagster/priority"] for run in daemon.runs] == ["90", "0", "0", "-5"]


def test_a_request_submitted_again_tonight_does_not_wait_for_the_old_run(daemon: Daemon) -> None:
    submit(daemon, "a")
    submit(daemon, "a", prompt="new", when="nightly")
    assert daemon.night() == ["a"]
    daemon.succeed("a")
    assert daemon.night() == []


def test_the_old_content_finished_in_the_meantime_does_not_count(daemon: Daemon) -> None:
    submit(daemon, "a")
    submit(daemon, "a", prompt="new", when="nightly")
    daemon.succeed("a")
    assert daemon.night() == ["a"]


def test_runs_started_by_hand_count_when_they_make_the_clip(daemon: Daemon) -> None:
    submit(daemon, "poses", "clip", "whole", when="nightly")
    daemon.start_run({"dagster/partition": "poses"}, "pose_tracks", "pose_conditioning")
    daemon.start_run({"dagster/partition": "clip"}, "animation")
    daemon.start_run({"dagster/partition": "whole"})
    assert daemon.night() == ["poses"]


def test_a_run_started_by_hand_counts_until_it_has_taken_another_content(daemon: Daemon) -> None:
    submit(daemon, "waiting", "older", "newest", when="nightly")
    content = {request_id: daemon.world.requests.find(request_id).content for request_id in ("waiting", "older")}
    submit(daemon, "waiting", "older", prompt="new", when="nightly")
    content["newest"] = daemon.world.requests.find("newest").content
    for request_id, made in content.items():
        status = dg.DagsterRunStatus.STARTING if request_id == "waiting" else dg.DagsterRunStatus.STARTED
        daemon.start_run({"dagster/partition": request_id, MAKES_TAG: made}, status=status)
    assert daemon.night() == ["older"], "one that waits, here the repetition of another run, takes the newest"


def test_a_partition_added_by_hand_is_registered_too(daemon: Daemon) -> None:
    daemon.world.instance.add_dynamic_partitions(str(ANIMATION_REQUESTS.name), ["by-hand"])
    assert daemon.night() == ["by-hand"]


def test_a_request_whose_partition_was_deleted_is_left_alone(daemon: Daemon) -> None:
    submit(daemon, "a", when="nightly")
    daemon.world.instance.delete_dynamic_partition(str(ANIMATION_REQUESTS.name), "a")
    assert daemon.night() == []


def test_time_and_zone_come_from_the_settings(empty_world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTLY_CRON", "30 22 * * 1-5")
    monkeypatch.setenv("NIGHTLY_TIMEZONE", "Europe/Berlin")
    schedule = build_defs().get_repository_def().get_schedule_def("nightly_batch")
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("30 22 * * 1-5", "Europe/Berlin")
    monkeypatch.setenv("NIGHTLY_CRON", "99 1 * * *")
    with pytest.raises(SettingsError, match="NIGHTLY_CRON='99 1"):
        build_nightly_batch(load_settings())
