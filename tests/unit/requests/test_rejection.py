"""A rejection is stored as data and as a text made from it; what earlier versions stored stays readable."""

import json
import os
from datetime import UTC, datetime
from pathlib import Path

from libs.requests.inbox.inbox import Inbox
from libs.requests.inbox.rejection import Rejection, parse_record, parse_text
from libs.storage.backends.folder import FolderObjectStore
from tests.unit.requests.intake_desk import Desk

SINCE = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)

OF_AN_EARLIER_VERSION = (
    "dance.yaml was not accepted:\n\ndance.yaml: steps: is 0, but must be at least 1\n\n"
    "The document is now /data/artifacts/inbox/rejected/dance.yaml.\nPut a corrected one into inbox/ again.\n"
)
"""Stored beside a refused document, word for word, before there was a record."""


def test_the_text_is_made_from_the_data_and_reads_as_before() -> None:
    reason, file = "dance.yaml: steps: is 0, but must be at least 1", "/data/artifacts/inbox/rejected/dance.yaml"
    assert Rejection("dance.yaml", reason, SINCE, file).text("inbox") == OF_AN_EARLIER_VERSION


def test_a_record_is_read_back_whole() -> None:
    rejection = Rejection("a b/ü\udce4.yaml", "first\n\nsecond paragraph", SINCE, "'/x/a b/ü.yaml'")
    assert parse_record(rejection.to_json().encode()) == rejection


def test_a_record_of_another_version_or_damaged_gives_way_to_the_text() -> None:
    newer = json.loads(Rejection("a.yaml", "why", SINCE).to_json()) | {"schema_version": 2}
    for record in (b"", b"{", b"[]", b"\xff", b"{}", json.dumps(newer).encode(), b"[" * 100_000):
        assert parse_record(record) is None


def test_the_text_of_an_earlier_version_is_listed_with_its_reason(tmp_path: Path) -> None:
    objects = FolderObjectStore(tmp_path)
    objects.put_bytes("inbox/rejected/dance.yaml", b"id: dance")
    objects.put_bytes("inbox/rejected/dance.yaml.error.txt", OF_AN_EARLIER_VERSION.encode())
    (found,) = Inbox(objects).rejections()
    assert found.name == "dance.yaml"
    assert found.reason == "dance.yaml: steps: is 0, but must be at least 1"
    assert parse_text(b"no paragraphs", "a.yaml", SINCE).reason == ""


def test_the_reason_is_listed_whole_also_with_blank_lines(desk: Desk) -> None:
    desk.put("bad.json", b"{}")
    (document,) = desk.inbox.documents()
    refused = desk.inbox.reject(document, "one\n\ntwo")
    (listed,) = desk.inbox.rejections()
    assert listed == refused
    assert listed.reason == "one\n\ntwo"
    assert desk.objects.get_bytes("inbox/rejected/bad.json.error.txt").decode() == refused.text("inbox")


def test_a_text_that_an_earlier_version_wrote_later_counts(desk: Desk) -> None:
    desk.put("dance.yaml", b"{}")
    desk.inbox.reject(desk.inbox.documents()[0], "of this version")
    desk.objects.put_bytes("inbox/rejected/dance.yaml.error.txt", OF_AN_EARLIER_VERSION.encode())
    os.utime(desk.folder / "inbox/rejected/dance.yaml.rejection", (1, 1))
    assert [entry.reason for entry in desk.inbox.rejections()] == ["dance.yaml: steps: is 0, but must be at least 1"]


def test_an_accepted_document_takes_text_and_record_of_the_refused_one_away(desk: Desk) -> None:
    desk.put("dance.json", {"id": "dance"})
    assert desk.scan().rejected
    desk.request("dance")
    desk.scan()
    desk.scan()
    assert desk.names("inbox/rejected/") == []
