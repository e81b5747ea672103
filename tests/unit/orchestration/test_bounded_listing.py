"""``one-to-all list`` asks store and database equally often, however many requests there are."""

import os
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from sqlalchemy import Engine, event

from libs.progress import describe_progress
from libs.requests.documents.animation_request import AnimationRequest
from libs.requests.inbox.inbox import Inbox
from libs.requests.lifecycle.accepted import CONTENT_ATTRIBUTE, AcceptedRequests
from libs.requests.lifecycle.cancellations import Cancellation, Cancellations
from libs.requests.lifecycle.listing import Listing, RequestListing
from libs.storage.artifacts import ArtifactFiles, ArtifactStore
from libs.storage.backends.folder import FolderObjectStore
from libs.storage.backends.store import ObjectInfo
from orchestration.jobs import ANIMATE
from orchestration.requests.control import InstanceRuns

STATES = ("stored", "stale", "failed", "canceled", "noted", "busy", "queued", "nightly")
LIMIT = 8


class CountingStore(FolderObjectStore):
    """Counts what is asked of it."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.calls: Counter[str] = Counter()

    def list(self, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
        self.calls[f"list {prefix}"] += 1
        return super().list(prefix, start_after)

    def stat(self, key: str) -> ObjectInfo | None:
        self.calls["stat"] += 1
        return super().stat(key)

    def get_bytes(self, key: str) -> bytes:
        self.calls["get"] += 1
        return super().get_bytes(key)


class Desk:
    """Store and instance with requests in every state, the newest last."""

    def __init__(self, folder: Path, instance: dg.DagsterInstance) -> None:
        self.objects = CountingStore(folder / "artifacts")
        self.store = ArtifactStore(self.objects, folder / "cache")
        self.instance = instance
        self._folder = folder
        self._count = 0

    def add(self, times: int) -> None:
        """One more request in each state, and a refused document, so many times."""
        for _ in range(times):
            for state in STATES:
                self._add(f"r{self._count:04}", state)
                self._count += 1
            self.objects.put_bytes(f"inbox/rejected/{self._count}.yaml.error.txt", b"refused:\n\nwhy\n")

    def _add(self, request_id: str, state: str) -> None:
        requests = AcceptedRequests(self.objects)
        request = AnimationRequest(
            id=request_id, reference="r.png", driver="d.mp4", when="nightly" if state == "nightly" else "now"
        )
        sizes = {"r.png": 1, "d.mp4": 1}
        accepted = requests.accept(request, sizes, document="x", default_model="sandbox")
        if state in {"stored", "stale"}:
            (self._folder / "clip").mkdir(exist_ok=True)
            (self._folder / "clip" / "clip.mp4").write_text(request_id)
            files = ArtifactFiles(self._folder / "clip", attributes={CONTENT_ATTRIBUTE: accepted.content})
            self.store.publish("animation", request_id, files)
            requests.clear_pending(request_id, accepted.content)
        if state == "stale":
            requests.accept(request.model_copy(update={"seed": 7}), sizes, document="x", default_model="sandbox")
        if state == "noted":
            note = Cancellation(request_id=request_id, canceled=datetime.now(UTC), by="ann")
            Cancellations(self.objects).remember(note)
        statuses = {"failed": "STARTED", "canceled": "STARTED", "busy": "STARTED", "queued": "NOT_STARTED"}
        if state in statuses:
            status = dg.DagsterRunStatus[statuses[state]]
            run = dg.DagsterRun(ANIMATE.name, tags={"dagster/partition": request_id}, status=status)
            self.instance.add_run(run)
            line = describe_progress("sampling", 1, 10, 0.5, "chunk 1 of 2")
            entry = dg.EventLogEntry(None, 20, line, run.run_id, datetime.now(UTC).timestamp(), "animation")
            self.instance.event_log_storage.store_event(entry)
            if state == "failed":
                self.instance.report_run_failed(run)
            if state == "canceled":
                self.instance.report_run_canceled(run)

    def list(self) -> tuple[Listing, Counter[str]]:
        """The listing, and what it asked for."""
        asked: Counter[str] = Counter()

        def count(*_: Any) -> None:
            asked["sql"] += 1

        event.listen(Engine, "before_cursor_execute", count)
        self.objects.calls.clear()
        try:
            listing = RequestListing(self.store, InstanceRuns(self.instance)).take(LIMIT)
        finally:
            event.remove(Engine, "before_cursor_execute", count)
        return listing, asked + self.objects.calls


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Desk(tmp_path, instance)


def test_three_times_as_many_requests_are_listed_with_as_many_questions(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.requests.lifecycle.listing._REJECTIONS", 1)
    desk.add(2)
    listing, asked = desk.list()
    assert [line.state.split(" ")[0].strip(",:") for line in listing.requests] == [
        "tonight",
        "queued",
        "sampling",
        "canceled",
        "canceled",
        "failed",
        "stored",
        "stored",
    ]
    assert (listing.more, len(listing.rejected), listing.more_rejected) == (LIMIT, 1, 1)
    assert asked["list requests/accepted/"] == asked["list requests/open/"] == asked["list inbox/rejected/"] == 1
    assert asked["list animation/"] == 0, "thousands of clips are not walked through"
    assert asked["sql"] < 120
    desk.add(4)
    later, asked_later = desk.list()
    assert (len(later.requests), later.more) == (LIMIT, 5 * LIMIT)
    assert asked_later == asked


def test_rejected_documents_come_newest_first_and_are_read_only_when_shown(tmp_path: Path) -> None:

    objects = CountingStore(tmp_path)
    for number, name in enumerate(("b", "a", "c")):
        objects.put_bytes(f"inbox/rejected/{name}.yaml.error.txt", b"refused:\n\nwhy\n")
        os.utime(tmp_path / f"inbox/rejected/{name}.yaml.error.txt", (number, number))
    rejected, left_out = Inbox(objects).newest_rejections(2)
    assert ([entry.name for entry in rejected], left_out) == (["c.yaml", "a.yaml"], 1)
    assert objects.calls["get"] == 2
    (tmp_path / "inbox/rejected/red\x1b[31m.yaml.error.txt").write_text("refused:\n\nwhy\n")
    assert "cannot be a key" in Inbox(objects).rejections()[0].reason, "one odd name hides no other"
