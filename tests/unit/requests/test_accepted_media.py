"""What a request was accepted with stays its own, whatever takes its name in the inbox afterwards."""

import hashlib
import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from libs.errors import InputError
from libs.housekeeping.media_copies import unneeded_copies
from libs.requests.documents.animation_request import AnimationRequest
from libs.requests.inbox import accepted_media
from libs.requests.inbox.accepted_media import AcceptedMedia
from libs.requests.lifecycle.accepted import AcceptedRequest, content_of
from libs.storage.backends.folder import FolderObjectStore
from tests.unit.requests.intake_desk import Desk, request_fields


def accepted(desk: Desk, request_id: str = "a") -> AcceptedRequest:
    desk.request(request_id)
    (entry,) = desk.scan().accepted
    desk.scan()
    return entry


def fetch(desk: Desk, entry: AcceptedRequest) -> bytes:
    target = AcceptedMedia(desk.objects, entry.media).fetch_media("driver", "d.mp4", desk.folder / "fetched")
    assert target.suffix == ".mp4"
    return target.read_bytes()


def test_a_file_that_takes_the_name_changes_nothing_that_was_accepted(desk: Desk) -> None:
    entry = accepted(desk)
    digest = hashlib.sha256(b"video").hexdigest()
    assert entry.media["d.mp4"].key == f"requests/media/{digest}.mp4"
    (desk.folder / "inbox" / "d.mp4").write_bytes(b"VIDEO")  # in place: a hard link would see it
    assert fetch(desk, entry) == b"video"
    desk.objects.delete("inbox/d.mp4")
    assert fetch(desk, entry) == b"video"


def test_requests_share_their_copies_and_a_file_is_read_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (desk.folder / "inbox").iterdir():
        os.utime(path, (1, 1))
    read = []
    head = FolderObjectStore.head
    monkeypatch.setattr(FolderObjectStore, "head", lambda store, key: read.append(key) or head(store, key))
    desk.put("list.json", [request_fields("a"), request_fields("b")])
    desk.request("c")
    desk.scan()
    desk.request("d")
    desk.scan()
    assert len(desk.names("requests/media/")) == 2
    assert sorted(key for key in read if not key.endswith(".json")) == ["inbox/d.mp4", "inbox/r.png"]


@pytest.mark.parametrize("content", [b"VIDEO", b"a longer video", None])
def test_a_large_file_is_compared_when_the_run_starts(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, content: bytes | None
) -> None:
    monkeypatch.setattr(accepted_media, "COPIED_UP_TO", 4)
    entry = accepted(desk)
    assert desk.names("requests/media/") == []
    assert fetch(desk, entry) == b"video"
    desk.objects.delete("inbox/d.mp4")
    if content is not None:
        desk.put("d.mp4", content)
    with pytest.raises(
        InputError, match=r"driver: 'd.mp4' is not the file that this request was accepted with"
    ) as error:
        fetch(desk, entry)
    assert not error.value.retryable
    assert "5 bytes" in str(error.value)
    assert "submit the request again" in str(error.value)


def test_a_file_with_a_recorded_digest_is_compared_by_it(desk: Desk) -> None:
    entry = accepted(desk)
    medium = entry.media["d.mp4"]
    by_reference = entry.model_copy(update={"media": {"d.mp4": medium.model_copy(update={"key": "inbox/d.mp4"})}})
    os.utime(desk.folder / "inbox" / "d.mp4", (1, 1))
    assert fetch(desk, by_reference) == b"video"
    (desk.folder / "inbox" / "d.mp4").write_bytes(b"VIDEO")
    with pytest.raises(InputError, match="its SHA-256 is"):
        fetch(desk, by_reference)


def test_a_copy_that_housekeeping_took_is_replaced_by_the_same_file_only(desk: Desk) -> None:
    entry = accepted(desk)
    desk.objects.delete(entry.media["d.mp4"].key)
    assert fetch(desk, entry) == b"video"
    desk.put("d.mp4", b"VIDEO")
    with pytest.raises(InputError, match="is not the file"):
        fetch(desk, entry)


class WithoutCopy(FolderObjectStore):
    """A bucket of files whose digests nobody recorded."""

    def head(self, key: str):
        found = super().head(key)
        return found and replace(found, sha256=None)


def test_a_file_in_a_bucket_without_a_digest_is_copied_by_its_version(desk: Desk) -> None:
    desk.objects = desk.inbox.objects = desk.inbox._objects = WithoutCopy(desk.folder)
    entry = accepted(desk)
    assert entry.media["d.mp4"].key.startswith("requests/media/version-")
    desk.put("d.mp4", b"VIDEO")
    assert fetch(desk, entry) == b"video"
    assert accepted(desk).content != entry.content


def test_other_media_of_the_same_size_are_other_content_and_the_same_are_not(desk: Desk) -> None:
    first = accepted(desk)
    desk.put("d.mp4", b"video")
    assert accepted(desk).content == first.content
    desk.put("d.mp4", b"VIDEO")
    second = accepted(desk)
    assert (second.content != first.content, second.revision) == (True, 2)


def test_requests_accepted_before_media_were_copied_keep_their_content(desk: Desk) -> None:
    """Its clip is stored, and must not be made again."""
    content = content_of(AnimationRequest(**request_fields("a")), {"r.png": 7, "d.mp4": 5})
    new = accepted(desk)
    old = json.loads(desk.objects.get_bytes("requests/accepted/a.json"))
    for name in ("media", "base", "submissions", "arrival"):
        del old[name]
    desk.objects.put_bytes("requests/accepted/a.json", json.dumps({**old, "content": content}).encode())
    desk.requests.remove_marker(new.pending_marker)
    again = accepted(desk)
    assert (again.content, again.revision) == (content, 1)
    assert not desk.requests.is_pending(again)
    assert again.media == new.media


def test_copies_that_no_pending_request_needs_may_go(desk: Desk) -> None:
    entry = accepted(desk)
    later = datetime.now(UTC) + timedelta(days=3)
    in_use = desk.requests.media_in_use()
    assert in_use == {medium.key for medium in entry.media.values()}
    assert list(unneeded_copies(desk.objects, in_use, timedelta(), later)) == []
    desk.requests.clear_pending("a", entry.content)
    assert desk.requests.media_in_use() == set()
    assert list(unneeded_copies(desk.objects, set(), timedelta())) == [], "they may belong to a look that goes on"
    assert len(list(unneeded_copies(desk.objects, set(), timedelta(), later))) == 2


def test_a_file_that_changes_while_it_is_copied_waits_for_the_next_scan(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = FolderObjectStore.copy

    def change(store: FolderObjectStore, source, target: str):
        Path(store.root / source.key).write_bytes(b"changed")
        return copy(store, source, target)

    monkeypatch.setattr(FolderObjectStore, "copy", change)
    desk.request("a")
    assert desk.scan().accepted == []
    assert "a.json" in desk.names("inbox/")
    monkeypatch.undo()
    assert [entry.request.id for entry in desk.scan().accepted] == ["a"]
