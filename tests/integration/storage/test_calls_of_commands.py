"""What ``one-to-all list`` and ``submit`` cost a bucket: as many calls however many clips were made before."""

import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from libs.requests.documents.animation_request import AnimationRequest
from libs.requests.inbox.inbox import Inbox
from libs.requests.inbox.submission import plan_submission, upload
from libs.requests.lifecycle.accepted import AcceptedRequest, AcceptedRequests
from libs.requests.lifecycle.listing import RequestListing
from libs.requests.lifecycle.states import CLIP_ASSET, RequestStates
from libs.storage.artifacts import ArtifactStore
from libs.storage.backends.keys import manifest_key
from libs.storage.backends.s3 import S3ObjectStore

pytestmark = pytest.mark.s3

SHOWN = 3


class Desk:
    """A bucket with requests, and the calls that a command makes."""

    def __init__(self, client: Any, bucket: str, folder: Path) -> None:
        self.objects = S3ObjectStore(client, bucket)
        self.store = ArtifactStore(self.objects, folder / "cache")
        self.requests = AcceptedRequests(self.objects)
        self.folder = folder
        self.calls: Counter[str] = Counter()
        self._count = 0
        client.meta.events.register("before-call.s3", lambda model, **_: self.calls.update([model.name]))

    def add(self, count: int, *, has_clip: bool, reference: str = "r.png") -> None:
        for _ in range(count):
            request = AnimationRequest(id=f"r{self._count:03}", reference=reference, driver=f"d{self._count}.mp4")
            accepted = self.requests.accept(request, {}, document="x", default_model="sandbox")
            if has_clip:
                self.objects.put_bytes(manifest_key(CLIP_ASSET, request.id), b"{}")
                self.requests.clear_pending(request.id, accepted.content)
            self._count += 1

    def list(self, limit: int | None) -> Counter[str]:
        self.calls.clear()
        RequestListing(self.store, None).take(limit)
        return Counter(self.calls)

    def submit(self, request_id: str, picture: bytes) -> Counter[str]:
        """Hand in a request whose files are called as everybody's, and take it back."""
        place = self.folder / request_id
        place.mkdir()
        (place / "r.png").write_bytes(picture)
        (place / "d.mp4").write_bytes(b"video")
        (place / f"{request_id}.yaml").write_text(f"id: {request_id}\nreference: r.png\ndriver: d.mp4\n")
        self.calls.clear()
        inbox = Inbox(self.objects)
        plan = plan_submission([place / f"{request_id}.yaml"], inbox)
        RequestStates(self.store).of([request_id])
        upload(plan, inbox)
        calls = Counter(self.calls)
        for info in list(self.objects.list("inbox/")):
            self.objects.delete(info.key)
        return calls


@pytest.fixture
def desk(s3_client: Any, s3_bucket: str, tmp_path: Path) -> Desk:
    return Desk(s3_client, s3_bucket, tmp_path)


@pytest.mark.slow
def test_clips_made_before_cost_list_and_submit_nothing(desk: Desk) -> None:
    desk.add(2, has_clip=False)
    desk.add(SHOWN, has_clip=True)
    listed, submitted = desk.list(SHOWN), desk.submit("mine", b"picture")
    desk.add(3 * SHOWN, has_clip=True)
    assert desk.list(SHOWN) == listed
    assert listed["HeadObject"] == SHOWN, "of the clips that are shown"
    assert desk.submit("mine-too", b"picture") == submitted
    assert submitted.total() < 40


def test_a_taken_name_costs_a_look_at_requests_that_may_name_the_file(desk: Desk) -> None:
    desk.objects.put_bytes("inbox/r.png", b"somebody's picture")
    free = desk.submit("mine", b"my picture")
    desk.objects.put_bytes("inbox/r.png", b"somebody's picture")
    desk.add(20, has_clip=False, reference="another.png")
    assert desk.submit("mine-again", b"my picture")["GetObject"] == free["GetObject"], "their markers say enough"
    desk.objects.put_bytes("inbox/r.png", b"somebody's picture")
    desk.add(20, has_clip=False)
    desk.objects.put_bytes("inbox/d.mp4", b"somebody's video, which nobody needs")
    needed = desk.submit("mine-too", b"my picture")
    assert needed["GetObject"] <= free["GetObject"] + 12, "one of them needs the picture: the others are not asked"


def test_requests_of_earlier_versions_whose_markers_say_nothing_of_names_are_read(desk: Desk, tmp_path: Path) -> None:
    desk.add(1, has_clip=False)
    accepted = desk.requests.find("r000")
    assert accepted is not None
    desk.requests.remove_marker(accepted.pending_marker)
    earlier = accepted.model_copy(update={"names": None})
    desk.objects.put_bytes("requests/accepted/r000.json", earlier.model_dump_json(exclude={"names"}).encode())
    desk.requests.mark_pending(earlier)
    assert [info.key.count(".") for info in desk.objects.list("requests/open/")] == [2]
    assert desk.requests.is_pending(desk.requests.find("r000"))
    desk.objects.put_bytes("inbox/r.png", b"somebody's picture")
    (tmp_path / "r.png").write_bytes(b"my picture")
    (tmp_path / "d.mp4").write_bytes(b"video")
    (tmp_path / "mine.yaml").write_text("id: mine\nreference: r.png\ndriver: d.mp4\n")
    plan = plan_submission([tmp_path / "mine.yaml"], Inbox(desk.objects))
    assert plan.reasons == {"r.png": "r000"}
    desk.requests.clear_pending("r000", accepted.content)
    assert list(desk.requests.pending_markers()) == []


def test_requests_that_wait_are_read_several_at_once(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which files they name is known by reading them, where somebody else's file has the name of mine."""
    desk.add(16, has_clip=False)
    find, lock, eight_at_once, reading, most = AcceptedRequests.find, threading.Lock(), threading.Event(), 0, 0

    def slow_find(requests: AcceptedRequests, request_id: str) -> AcceptedRequest | None:
        nonlocal reading, most
        with lock:
            reading += 1
            most = max(most, reading)
        if most == 8:
            eight_at_once.set()
        eight_at_once.wait(60)
        found = find(requests, request_id)
        with lock:
            reading -= 1
        return found

    monkeypatch.setattr(AcceptedRequests, "find", slow_find)
    desk.objects.put_bytes("inbox/r.png", b"somebody's picture")
    desk.submit("mine", b"my picture")
    assert most == 8
    most = 0
    eight_at_once.clear()
    calls = desk.list(None)
    assert most == 8
    assert calls["GetObject"] <= 17, "each of them once"
