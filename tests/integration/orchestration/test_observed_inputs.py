"""What people put into the bucket is observed, and so is its replacement: read from Dagster's own staleness answers."""

import os
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from libs.sandbox.media import write_puppet_clip, write_puppet_picture
from orchestration.definitions import build_defs
from orchestration.inbox.input_watch import input_watch
from orchestration.staleness import stale_clips
from orchestration.storage.observed import observed_versions
from tests.integration.orchestration.daemon import Daemon
from tests.integration.orchestration.small_requests import submit_small, write_small_media
from tests.integration.orchestration.staleness import Watch, materialize, stale

REQUEST_ASSETS = ["animation_request", "request_media", "pose_options"]
POSE_ASSETS = ["request_media", "pose_options", "pose_tracks", "pose_conditioning"]


@pytest.fixture
def media(tmp_path: Path) -> Path:
    return write_small_media(tmp_path / "media", 3, audio=False)


@pytest.mark.slow
def test_a_picture_replaced_under_its_name_puts_those_out_of_date_that_used_it(world: Any, media: Path) -> None:
    write_puppet_picture(media / "other.png", width=200)
    for request_id, reference in (("one", "puppet.png"), ("two", "puppet.png"), ("three", "other.png")):
        materialize(world, submit_small(world, media, request_id, reference=reference), *REQUEST_ASSETS)
        world.requests.clear_pending(request_id, world.requests.find(request_id).content)  # as if its clip were stored
    watch = Watch(world, input_watch)
    assert watch.tick() == []
    before = observed_versions(world.instance, "reference_picture")
    assert before["one"] == before["two"] != before["three"]
    assert before["one"] == f"{world.inbox.media_digest('puppet.png')}  puppet.png"

    inbox = world.data_dir / "artifacts" / "inbox"
    size = (inbox / "puppet.png").stat().st_size
    (inbox / "puppet.png").write_bytes((inbox / "puppet.png").read_bytes()[:-1] + b"\n")  # as many bytes as before
    assert (inbox / "puppet.png").stat().st_size == size
    os.utime(inbox / "puppet.png", (1, 1))  # copied with an old date

    assert watch.tick() == [("reference_picture", "one"), ("reference_picture", "two")]
    assert watch.tick() == []
    assert stale(world, "one", *REQUEST_ASSETS) == stale(world, "two", *REQUEST_ASSETS) == {"request_media"}
    assert stale(world, "three", *REQUEST_ASSETS) == set()
    replaced = ["picture puppet.png replaced"]
    assert stale_clips(world.instance, ["one", "two", "three"]) == {"one": replaced, "two": replaced}

    write_puppet_picture(inbox / "puppet.png", width=240)
    materialize(world, "one", *REQUEST_ASSETS)  # before anybody looked: the run observes what it took
    assert stale(world, "one", *REQUEST_ASSETS) == set()
    assert watch.tick() == [("reference_picture", "two")]
    assert stale(world, "one", *REQUEST_ASSETS) == set()


@pytest.mark.slow
def test_the_same_bytes_again_and_a_file_that_goes_put_nothing_out_of_date(world: Any, media: Path) -> None:
    materialize(world, submit_small(world, media, "one"), *REQUEST_ASSETS)
    (record,) = world.instance.fetch_observations(dg.AssetKey("driving_video"), limit=1).records
    shown = {name: value.value for name, value in record.asset_observation.metadata.items()}
    assert shown["file"] == "dance.mp4"
    assert shown["stored at"] == world.inbox.media_uri("dance.mp4")

    watch = Watch(world, input_watch)
    inbox = world.data_dir / "artifacts" / "inbox"
    os.utime(inbox / "dance.mp4", (1, 1))
    assert watch.tick() == []
    (inbox / "dance.mp4").unlink()
    assert watch.tick() == []
    world.put("dance.mp4", media / "dance.mp4")
    assert watch.tick() == []
    write_puppet_clip(inbox / "dance.mp4", frame_count=4, audio=False)
    assert watch.tick() == [("driving_video", "one")]
    assert stale(world, "one", *REQUEST_ASSETS) == {"request_media"}
    world.put("dance.mp4", media / "dance.mp4")
    assert watch.tick() == [("driving_video", "one")]
    assert stale(world, "one", *REQUEST_ASSETS) == set(), "the old file is back"


@pytest.mark.slow
def test_a_scan_that_is_cut_short_continues_where_it_stopped(
    world: Any, media: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for request_id in ("one", "two"):
        materialize(world, submit_small(world, media, request_id), *REQUEST_ASSETS)
    write_puppet_picture(world.data_dir / "artifacts" / "inbox" / "puppet.png", width=240)
    monkeypatch.setattr("orchestration.inbox.watched_files.SECONDS_PER_TICK", -1.0)
    watch = Watch(world, input_watch)
    assert watch.tick() == []
    monkeypatch.setattr("orchestration.inbox.watched_files.SECONDS_PER_TICK", 60.0)
    monkeypatch.setattr("orchestration.inbox.watched_files.OBSERVATIONS_PER_TICK", 1)
    assert sorted(watch.tick() + watch.tick()) == [("reference_picture", "one"), ("reference_picture", "two")]
    assert watch.tick() == []


@pytest.mark.slow
def test_another_prompt_is_observed_when_it_is_accepted_and_leaves_the_poses_alone(world: Any, media: Path) -> None:
    submit_small(world, media, "one")
    materialize(world, "one", *REQUEST_ASSETS, "pose_tracks", "pose_conditioning")
    daemon = Daemon(world)
    submit_small(world, media, "one", priority=50, when="nightly")
    assert daemon.observe_inbox() == [], "when a clip is made changes nothing in it"
    assert stale(world, "one", *REQUEST_ASSETS, *POSE_ASSETS) == set()
    materialize(world, "one", *REQUEST_ASSETS)
    assert stale(world, "one", *REQUEST_ASSETS, *POSE_ASSETS) == set(), "not even when it is validated again"

    submit_small(world, media, "one", prompt="in the rain", priority=5)
    assert daemon.observe_inbox() == [("request_document", "one")]
    assert stale(world, "one", *POSE_ASSETS) == set()
    assert stale(world, "one", "animation_request") == {"animation_request"}

    submit_small(world, media, "one", prompt="in the rain", face="none")
    assert daemon.observe_inbox() == [("request_document", "one"), ("requested_poses", "one")]
    assert stale(world, "one", *POSE_ASSETS) == {"pose_options", "pose_conditioning"}
    materialize(world, "one", *REQUEST_ASSETS)
    assert stale(world, "one", *POSE_ASSETS) == {"pose_conditioning"}

    submit_small(world, media, "two")
    assert daemon.observe_inbox() == [], "nothing was made of it yet"


def test_the_graph_leads_from_what_people_and_hubs_provide_to_the_clip() -> None:
    graph = build_defs().resolve_asset_graph()
    roots = {
        key.to_user_string() for key in graph.get_ancestor_asset_keys(dg.AssetKey("animation")) if _is_root(graph, key)
    }
    inputs = {"request_document", "requested_poses", "reference_picture", "driving_video"}
    hubs = {"checkpoint_repository", "pose_repositories", "wan_repository"}
    assert roots == inputs | hubs | {"migrated_pretrained_models"}
    assert all(graph.get(dg.AssetKey(name)).is_external for name in inputs | hubs)


def _is_root(graph: Any, key: dg.AssetKey) -> bool:
    return not graph.get(key).parent_keys
