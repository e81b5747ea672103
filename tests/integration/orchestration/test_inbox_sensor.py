"""The inbox sensor on a real instance: what is registered, launched, left alone."""

import json
import os
import time
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from orchestration.definitions import build_defs
from orchestration.partitions import ANIMATION_REQUESTS
from orchestration.policies import CONTENT_TAG
from tests.integration.orchestration.daemon import Daemon
from tests.integration.orchestration.small_requests import submit_small, write_small_media
from tests.s3_server import S3Server
from tests.waiting import HANG_SECONDS

AN_HOUR_AGO = 3600


@pytest.fixture
def daemon(empty_world: Any) -> Daemon:
    empty_world.put("puppet.png", b"picture")
    empty_world.put("dance.mp4", b"video")
    return Daemon(empty_world)


def submit(daemon: Daemon, request_id: str, age: float = 0, **fields: Any) -> None:
    """Put a document into the inbox; ``age`` in seconds."""
    content = {"id": request_id, "reference": "puppet.png", "driver": "dance.mp4", "model": "sandbox", **fields}
    put(daemon, f"{request_id}.json", json.dumps(content).encode(), age)


def put(daemon: Daemon, name: str, content: bytes, age: float = 0) -> None:
    daemon.world.put(name, content)
    path = daemon.world.data_dir / "artifacts" / "inbox" / name
    os.utime(path, (time.time() - age,) * 2)


def registered(daemon: Daemon) -> list[str]:
    return list(daemon.world.instance.get_dynamic_partitions(str(ANIMATION_REQUESTS.name)))


def test_a_document_becomes_a_partition_and_a_run(daemon: Daemon) -> None:
    submit(daemon, "a", priority=7)
    assert daemon.scan_inbox() == ["a"]
    assert registered(daemon) == ["a"]
    tags = daemon.runs[0].tags
    assert (tags["dagster/partition"], tags["dagster/priority"]) == ("a", "7")
    assert tags[CONTENT_TAG] == daemon.world.requests.find("a").content


def test_the_same_document_again_changes_nothing(daemon: Daemon) -> None:
    submit(daemon, "a")
    daemon.scan_inbox()
    daemon.scan_inbox()
    submit(daemon, "a")
    assert [daemon.scan_inbox() for _ in range(3)] == [[], [], []]
    daemon.succeed("a")
    submit(daemon, "a")
    assert [daemon.scan_inbox() for _ in range(3)] == [[], [], []]
    assert len(daemon.runs) == 1


def test_new_content_gets_a_run_and_the_old_clip_stays_reachable(daemon: Daemon) -> None:
    store = daemon.world.store
    submit(daemon, "a")
    daemon.scan_inbox()
    daemon.succeed("a")
    old = store.manifest("animation", "a")
    submit(daemon, "a", prompt="new")
    assert daemon.scan_inbox() == ["a"]
    daemon.succeed("a")
    newest = store.manifest("animation", "a")
    assert newest.digest != old.digest
    assert store.fetch("animation", "a", old.digest).path("clip.mp4").read_text() == daemon.runs[0].run_id


def test_new_content_gets_a_run_while_the_old_one_is_in_progress(daemon: Daemon) -> None:
    submit(daemon, "a")
    daemon.scan_inbox()
    submit(daemon, "a", prompt="new")
    assert daemon.scan_inbox() == ["a"]
    assert daemon.runs[0].tags[CONTENT_TAG] != daemon.runs[1].tags[CONTENT_TAG]


def test_nightly_requests_are_only_registered(daemon: Daemon) -> None:
    submit(daemon, "a", when="nightly")
    assert daemon.scan_inbox() == []
    assert daemon.skipped == "1 accepted: a"
    assert registered(daemon) == ["a"]


def test_a_nightly_request_that_becomes_urgent_runs_now_unless_its_clip_is_there(daemon: Daemon) -> None:
    for request_id in ("waiting", "running", "done"):
        submit(daemon, request_id, when="nightly")
    daemon.scan_inbox()
    daemon.night()
    daemon.succeed("done")
    daemon.fail("waiting")
    for request_id in ("waiting", "running", "done"):
        submit(daemon, request_id)
    assert daemon.scan_inbox() == ["waiting"]


def test_a_changed_priority_is_stored_without_a_run(daemon: Daemon) -> None:
    submit(daemon, "a", when="nightly")
    daemon.scan_inbox()
    submit(daemon, "a", when="nightly", priority=50)
    assert daemon.scan_inbox() == []
    assert daemon.world.requests.find("a").request.priority == 50
    assert daemon.night() == ["a"]
    assert daemon.runs[0].tags["dagster/priority"] == "50"


def test_a_batch_becomes_a_run_per_request(daemon: Daemon) -> None:
    grid = "batch: spring\nreferences: [puppet.png]\ndrivers: [dance.mp4]\nsettings: {a: , b: {seed: 3}}\n"
    put(daemon, "spring.yaml", grid.encode())
    launched = daemon.scan_inbox()
    assert len(launched) == 2
    assert launched == registered(daemon)
    assert daemon.world.requests.find(launched[1]).request.seed == 3
    daemon.scan_inbox()
    put(daemon, "spring.yaml", grid.replace("seed: 3", "seed: 4").encode())
    assert daemon.scan_inbox() == launched[1:], "only what changed runs again, under the same id"


def test_a_bad_document_is_put_aside_once(daemon: Daemon) -> None:
    submit(daemon, "bad", age=AN_HOUR_AGO, steps=0)
    submit(daemon, "good")
    assert daemon.scan_inbox() == ["good"]
    text = daemon.world.objects.get_bytes("inbox/rejected/bad.json.error.txt").decode()
    assert "steps: must be at least 1" in text
    assert daemon.scan_inbox() == []
    assert daemon.skipped == "nothing new in the inbox"
    assert registered(daemon) == ["good"]


def test_a_document_waits_for_its_media(daemon: Daemon) -> None:
    submit(daemon, "a", driver="late.mp4")
    assert daemon.scan_inbox() == []
    assert daemon.skipped == "1 waiting for media: a.json"
    put(daemon, "late.mp4", b"video", age=AN_HOUR_AGO)
    assert daemon.scan_inbox() == ["a"]


def test_a_tick_whose_answer_was_lost_launches_the_same_runs(daemon: Daemon) -> None:
    submit(daemon, "a")
    cursor = daemon.cursor
    daemon.scan_inbox()
    daemon.cursor = cursor
    assert daemon.scan_inbox() == [], "the run key is the same"
    assert len(daemon.runs) == 1


def test_a_junk_cursor_is_put_aside(daemon: Daemon) -> None:
    daemon.cursor = "from another version"
    submit(daemon, "a")
    assert daemon.scan_inbox() == ["a"]


@pytest.mark.slow
def test_a_run_for_a_content_that_was_replaced_makes_nothing(world: Any) -> None:
    daemon = Daemon(world)
    put(daemon, "puppet.png", b"picture")
    put(daemon, "dance.mp4", b"video")
    submit(daemon, "a")
    daemon.scan_inbox()
    submit(daemon, "a", prompt="new", when="nightly")
    daemon.scan_inbox()
    job = build_defs().resolve_job_def("animate")
    result = job.execute_in_process(
        partition_key="a", instance=world.instance, tags=daemon.runs[0].tags, raise_on_error=False
    )
    assert not result.success
    (failure,) = [
        event for event in result.all_events if event.is_step_failure and event.step_key == "validate_request"
    ]
    assert "was submitted again" in str(failure.step_failure_data.user_failure_data.description)
    assert world.store.manifest("animation_request", "a") is None
    assert daemon.night() == ["a"]


@pytest.mark.slow
def test_another_person_s_files_of_the_same_names_never_become_my_clip(world: Any, tmp_path: Path) -> None:
    """Nor are they taken where the copies are gone: that run fails for good, and says what to do."""
    daemon = Daemon(world)
    mine = write_small_media(tmp_path / "mine", 3, audio=False)
    submit_small(world, mine, "mine")
    daemon.scan_inbox()
    theirs = write_small_media(tmp_path / "theirs", 4, audio=False)
    (theirs / "puppet.png").write_bytes((theirs / "puppet.png").read_bytes() + b" ")
    submit_small(world, theirs, "theirs")
    daemon.scan_inbox()
    job = build_defs().resolve_job_def("animate")

    def run(request_id: str) -> Any:
        return job.execute_in_process(
            partition_key=request_id,
            instance=world.instance,
            tags=daemon.run_of(request_id).tags,
            asset_selection=[dg.AssetKey(name) for name in ("animation_request", "request_media", "pose_options")],
            raise_on_error=False,
        )

    for request_id, folder in (("mine", mine), ("theirs", theirs)):
        assert run(request_id).success
        media = world.artifact("request_media", request_id)
        assert media.path("reference.png").read_bytes() == (folder / "puppet.png").read_bytes()
        assert media.path("driver.mp4").read_bytes() == (folder / "dance.mp4").read_bytes()
    for medium in world.requests.find("mine").media.values():
        world.objects.delete(medium.key)
    failed = run("mine")
    assert not failed.success
    (failure,) = [event for event in failed.all_events if event.is_step_failure]
    description = str(failure.step_failure_data.user_failure_data.description)
    assert "is not the file that this request was accepted with" in description
    assert "submit the request again" in description


@pytest.mark.slow
@pytest.mark.s3
def test_the_inbox_of_a_bucket(
    empty_world: Any, s3_server: S3Server, s3_bucket: str, s3_client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a folder: documents leave it, bad ones with their reason beside them, media stay."""
    for name, value in s3_server.environment(s3_bucket).items():
        monkeypatch.setenv(name, value)
    good = {"id": "good", "reference": "puppet.png", "driver": "dance.mp4", "model": "sandbox"}
    files = {"puppet.png": b"picture", "dance.mp4": b"video", "good.json": json.dumps(good).encode()}
    for name, content in {**files, "bad.json": json.dumps({**good, "id": "bad", "steps": 0}).encode()}.items():
        s3_client.put_object(Bucket=s3_bucket, Key=f"inbox/{name}", Body=content)
    daemon = Daemon(empty_world)

    assert daemon.scan_inbox() == ["good"]
    # A document that cannot be accepted may still be written, for some seconds.
    deadline = time.monotonic() + HANG_SECONDS
    names = {
        "inbox/dance.mp4",
        "inbox/puppet.png",
        "inbox/rejected/bad.json",
        "inbox/rejected/bad.json.error.txt",
        "inbox/rejected/bad.json.rejection",
    }
    while (kept := set(keys_of(s3_client, s3_bucket, "inbox/"))) != names:
        assert time.monotonic() < deadline, kept
        time.sleep(0.5)
        assert daemon.scan_inbox() == []

    assert registered(daemon) == ["good"]
    reason = s3_client.get_object(Bucket=s3_bucket, Key="inbox/rejected/bad.json.error.txt")["Body"].read().decode()
    assert "steps: must be at least 1" in reason
    assert keys_of(s3_client, s3_bucket, "requests/accepted/") == ["requests/accepted/good.json"]
    daemon.fail("good")
    assert daemon.night() == ["good"]


def keys_of(s3_client: Any, bucket: str, prefix: str) -> list[str]:
    return [entry["Key"] for entry in s3_client.list_objects_v2(Bucket=bucket, Prefix=prefix).get("Contents", [])]
