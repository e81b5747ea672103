"""What the store says about requests: pending, stored, outdated; also after writers that died in between."""

from pathlib import Path
from typing import Any

import pytest

from libs.errors import StorageError
from libs.requests.documents.animation_request import AnimationRequest
from libs.requests.lifecycle.accepted import CONTENT_ATTRIBUTE, AcceptedRequest, AcceptedRequests, PendingMarker
from libs.requests.lifecycle.states import CLIP_ASSET, ClipState, RequestStates
from libs.storage.artifacts import ArtifactFiles, ArtifactStore
from libs.storage.backends.folder import FolderObjectStore

SIZES = {"r.png": 1, "d.mp4": 2}


class Shelf:
    """A store, and shorthands for what people and runs do with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.store = ArtifactStore(FolderObjectStore(folder / "artifacts"), folder / "cache")
        self.requests = AcceptedRequests(self.store.objects)

    def accept(self, request_id: str, **fields: Any) -> AcceptedRequest:
        request = AnimationRequest(id=request_id, reference="r.png", driver="d.mp4", **fields)
        return self.requests.accept(request, SIZES, document=f"{request_id}.json", default_model="sandbox")

    def publish_clip(self, accepted: AcceptedRequest) -> None:
        """The clip of ``accepted``, by a writer that dies before it takes the marker away."""
        folder = self.folder / accepted.content
        folder.mkdir(exist_ok=True)
        (folder / "clip.mp4").write_text(accepted.content)
        files = ArtifactFiles(folder, attributes={CONTENT_ATTRIBUTE: accepted.content})
        self.store.publish(CLIP_ASSET, accepted.request.id, files, {"run_id": "x"})

    def make_clip(self, accepted: AcceptedRequest) -> None:
        self.publish_clip(accepted)
        self.requests.clear_pending(accepted.request.id, accepted.content)

    def state(self, request_id: str) -> ClipState:
        (state,) = RequestStates(self.store).of([request_id])
        return state.clip

    def markers(self) -> list[PendingMarker]:
        return list(self.requests.pending_markers())


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def test_a_request_is_pending_until_its_clip_is_stored(shelf: Shelf) -> None:
    accepted = shelf.accept("a", priority=-7)
    assert shelf.markers() == [PendingMarker("a", -7, accepted.content)]
    assert shelf.state("a") == ClipState.MISSING
    shelf.requests.clear_pending("b", accepted.content)
    assert shelf.state("a") == ClipState.MISSING
    shelf.make_clip(accepted)
    assert shelf.state("a") == ClipState.STORED
    assert shelf.markers() == []


def test_a_clip_asked_for_at_another_time_is_still_pending(shelf: Shelf) -> None:
    shelf.accept("a")
    later = shelf.accept("a", when="nightly")
    assert later.request.when == "nightly"
    assert shelf.markers() == [PendingMarker("a", 0, later.content)]


@pytest.mark.parametrize("name", ["a", "a.1", "a.1.", "a..{0}", "a.--1.{0}", "a.².{0}", "a.1.{0}.bak", "b/a.1.{0}"])
def test_other_objects_among_the_markers_are_ignored(shelf: Shelf, name: str) -> None:
    shelf.requests.clear_pending("a", shelf.accept("a").content)
    shelf.store.objects.put_bytes(f"requests/open/{name.format('0' * 32)}", b"")
    assert shelf.markers() == []


def test_new_content_is_pending_and_the_old_clip_stays_reachable(shelf: Shelf) -> None:
    first = shelf.accept("a")
    shelf.make_clip(first)
    old = shelf.store.manifest(CLIP_ASSET, "a")
    assert old is not None
    second = shelf.accept("a", prompt="new")
    assert shelf.state("a") == ClipState.OUTDATED
    shelf.make_clip(second)
    assert shelf.state("a") == ClipState.STORED
    assert shelf.store.fetch(CLIP_ASSET, "a", old.digest).path("clip.mp4").read_text() == first.content
    assert [manifest.attributes[CONTENT_ATTRIBUTE] for manifest in shelf.store.history(CLIP_ASSET, "a")] == [
        first.content,
        second.content,
    ]


def test_a_clip_of_the_older_content_that_is_finished_later_does_not_count(shelf: Shelf) -> None:
    first = shelf.accept("a")
    second = shelf.accept("a", prompt="new")
    shelf.make_clip(first)
    assert shelf.state("a") == ClipState.OUTDATED
    assert [marker.content for marker in shelf.markers()] == [second.content]


def test_another_priority_moves_the_marker_and_makes_nothing_pending(shelf: Shelf) -> None:
    accepted = shelf.accept("a")
    shelf.accept("a", priority=5)
    assert shelf.markers() == [PendingMarker("a", 5, accepted.content)]
    shelf.make_clip(accepted)
    shelf.accept("a", priority=9)
    assert shelf.markers() == []
    assert shelf.state("a") == ClipState.STORED


def test_a_marker_left_by_a_killed_writer_is_ignored(shelf: Shelf) -> None:
    shelf.publish_clip(shelf.accept("a"))
    assert len(shelf.markers()) == 1
    assert shelf.state("a") == ClipState.STORED
    assert len(shelf.markers()) == 1  # the trace by which the sensor unrecorded_clips finds what the run left undone


def test_a_marker_of_content_that_was_never_accepted_is_removed(shelf: Shelf) -> None:
    accepted = shelf.accept("a")
    shelf.store.objects.put_bytes(f"requests/open/a.0.{'0' * 32}", b"")
    assert shelf.state("a") == ClipState.MISSING
    assert [marker.content for marker in shelf.markers()] == [accepted.content]


def test_a_clip_that_was_deleted_is_missing(shelf: Shelf) -> None:
    accepted = shelf.accept("a")
    shelf.make_clip(accepted)
    shelf.store.objects.delete("animation/a/manifest.json")
    assert shelf.state("a") == ClipState.MISSING


def test_a_partition_that_was_added_by_hand_is_missing(shelf: Shelf) -> None:
    assert shelf.state("by-hand") == ClipState.MISSING


def test_the_stored_request_has_every_default_and_keeps_its_model(shelf: Shelf) -> None:
    first = shelf.accept("a")
    request = AnimationRequest(id="a", reference="r.png", driver="d.mp4")
    again = shelf.requests.accept(request, SIZES, document="a.yaml", default_model="14b")
    assert again == first
    assert again.request.model == "sandbox"
    assert again.request.steps == 4


def test_a_damaged_request_says_what_to_do(shelf: Shelf) -> None:
    shelf.accept("a")
    shelf.store.objects.put_bytes("requests/accepted/a.json", b"{}")
    with pytest.raises(StorageError, match="delete it and submit the request again"):
        shelf.requests.find("a")


def test_scheduling_is_not_part_of_what_determines_the_clip(shelf: Shelf) -> None:
    now = shelf.accept("a")
    request = AnimationRequest(id="a", reference="r.png", driver="d.mp4", when="nightly", priority=3)
    nightly = shelf.requests.accept(request, SIZES, document="a.json", default_model="sandbox")
    assert (nightly.content, nightly.run_key) == (now.content, now.run_key)
    assert nightly.request.clip_fields() == now.request.clip_fields()
    assert nightly.request.when == "nightly"


@pytest.mark.parametrize("damaged", ["requests/accepted/a.json", f"{CLIP_ASSET}/a/manifest.json"])
def test_one_damaged_request_does_not_hide_the_others(shelf: Shelf, damaged: str) -> None:
    shelf.make_clip(shelf.accept("a"))
    shelf.accept("a", prompt="new")
    shelf.accept("b")
    shelf.store.objects.put_bytes(damaged, b"half")
    states = RequestStates(shelf.store).of(["a", "b"])
    assert [state.clip for state in states] == [ClipState.OUTDATED, ClipState.MISSING]
    assert len(shelf.markers()) == 2
