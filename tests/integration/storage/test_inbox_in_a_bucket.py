"""Looks at an inbox in a bucket: what they cost the server, whatever lies there."""

import json
from collections import Counter
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest

from libs.requests.inbox import inbox as inbox_module
from libs.requests.inbox.accepted_media import AcceptedMedia
from libs.requests.inbox.inbox import Inbox
from libs.requests.inbox.intake import InboxScanner, ScanLimits, ScanResult, ScanState
from libs.requests.lifecycle.accepted import AcceptedRequests
from libs.storage.backends.s3 import S3ObjectStore

pytestmark = pytest.mark.s3


class Desk:
    """An inbox in a bucket, filled by another program, and the calls that looking at it takes."""

    def __init__(self, client: Any, bucket: str) -> None:
        self.client, self.bucket = client, bucket
        self.objects = S3ObjectStore(client, bucket, "prefix")
        self.calls: Counter[str] = Counter()
        self.listed: Counter[str] = Counter()
        """How often each folder of the bucket was listed."""
        client.meta.events.register("before-call.s3", lambda model, **_: self.calls.update([model.name]))
        client.meta.events.register("before-parameter-build.s3.ListObjectsV2", self._note_listing)
        self.state = ScanState()
        for name in ("r.png", "d.mp4"):
            self.put(name, name.encode())

    def _note_listing(self, params: dict[str, Any], **_: Any) -> None:
        self.listed[params["Prefix"].rpartition("/")[0]] += 1

    def put(self, name: str, content: bytes) -> None:
        self.client.put_object(Bucket=self.bucket, Key=f"prefix/inbox/{name}", Body=content)

    def request(self, request_id: str, **fields: Any) -> None:
        content = {"id": request_id, "reference": "r.png", "driver": "d.mp4", **fields}
        self.put(f"{request_id}.json", json.dumps(content).encode())

    def scan(self, **limits: Any) -> ScanResult:
        self.calls.clear()
        self.listed.clear()
        intake = InboxScanner(Inbox(self.objects), AcceptedRequests(self.objects), "sandbox", ScanLimits(**limits))
        found = intake.scan(self.state, datetime.now(UTC))
        self.state = found.state
        return found


@pytest.fixture
def desk(s3_client: Any, s3_bucket: str) -> Desk:
    return Desk(s3_client, s3_bucket)


def test_a_scan_lists_once_and_asks_for_media_by_name(desk: Desk) -> None:
    for number in range(12):
        desk.request(f"a{number:02}")
    assert len(desk.scan(requests=5).accepted) == 5
    assert desk.listed == {"prefix/inbox": 1}
    assert desk.calls["CopyObject"] == 2, "each file once, however many requests share it"
    assert desk.calls["HeadObject"] <= 10
    assert len(desk.scan(requests=5).accepted) == 5
    assert desk.listed["prefix/inbox"] == 2, "behind the last one, then round to the beginning"
    assert desk.listed["prefix/requests/claims"] == 1, "for all documents that are removed"
    assert desk.calls["CopyObject"] == 0


def test_documents_are_moved_away_under_one_claim(desk: Desk) -> None:
    """On a server that ignores the condition of a conditional delete, as the one here does."""
    moved: list[Counter[str]] = []
    for count in (2, 8):
        for number in range(count):
            desk.request(f"a{number}")
        desk.scan()
        claims: Counter[str] = Counter()
        note = partial(_note_claim, claims)
        desk.client.meta.events.register("before-parameter-build.s3", note, unique_id="claims")
        desk.scan()
        desk.client.meta.events.unregister("before-parameter-build.s3", unique_id="claims")
        moved.append(claims)
        assert list(Inbox(desk.objects).documents()) == []
    assert moved[1] == Counter(PutObject=1, ListObjectsV2=1, DeleteObject=1)
    assert moved[0] - moved[1] == Counter(PutObject=1, DeleteObject=1), "once: whether the server heeds the condition"


def _note_claim(claims: Counter[str], params: dict[str, Any], model: Any, **_: Any) -> None:
    place = params.get("Key") or params.get("Prefix") or ""
    claims[model.name] += place.startswith("prefix/requests/claims/")


def test_a_slow_scan_accepts_at_least_one_document(desk: Desk) -> None:
    for number in range(4):
        desk.request(f"a{number}")
    accepted = [entry.request.id for _ in range(4) for entry in desk.scan(seconds=0.0).accepted]
    assert accepted == ["a0", "a1", "a2", "a3"]


def test_thousands_of_refused_documents_are_passed_over(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inbox_module, "REJECTED_SKIPPED", 2)
    for name in ("a.json", "b.json", "c.json", "é.json", "中.json"):
        desk.put(f"rejected/{name}", b"{")
    for request_id in ("a", "z"):
        desk.request(request_id)
    assert [entry.request.id for entry in desk.scan().accepted] == ["a", "z"]
    assert desk.calls["ListObjectsV2"] == 2


def test_a_file_replaced_in_the_bucket_changes_nothing_that_was_accepted(desk: Desk, tmp_path: Any) -> None:
    desk.request("a")
    (entry,) = desk.scan().accepted
    desk.put("d.mp4", b"D.MP4")
    media = AcceptedMedia(desk.objects, entry.media)
    assert media.fetch_media("driver", "d.mp4", tmp_path / "driver").read_bytes() == b"d.mp4"
    desk.request("b")
    other = next(found for found in desk.scan().accepted if found.request.id == "b")
    media = AcceptedMedia(desk.objects, other.media)
    assert media.fetch_media("driver", "d.mp4", tmp_path / "driver").read_bytes() == b"D.MP4"


def test_a_name_composed_in_another_way_is_found_in_a_bucket(desk: Desk) -> None:
    desk.put("caf\u00e9.mp4", b"video")
    desk.request("a", driver="cafe\u0301.mp4")
    assert [entry.request.id for entry in desk.scan().accepted] == ["a"]
