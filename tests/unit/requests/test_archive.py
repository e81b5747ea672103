"""Which requests are finished for good, and what the archive writes down of them."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from libs.requests.documents.animation_request import AnimationRequest
from libs.requests.lifecycle.accepted import CONTENT_ATTRIBUTE, AcceptedRequests
from libs.requests.lifecycle.archive import REQUEST_ASSETS, REVIEW_ASSET, RequestArchive
from libs.requests.lifecycle.states import CLIP_ASSET
from libs.storage.artifacts import ArtifactFiles, ArtifactStore
from libs.storage.backends.folder import FolderObjectStore
from libs.storage.manifest import Manifest

MONTH = timedelta(days=30)


class Shelf:
    """A store with the request ``a``, and shorthands for what runs do with it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.objects = FolderObjectStore(folder / "artifacts")
        self.store = ArtifactStore(self.objects, folder / "cache")
        self.archive = RequestArchive(self.store)
        self.content = self.accept()

    def accept(self, prompt: str = "") -> str:
        request = AnimationRequest(id="a", reference="r.png", driver="d.mp4", prompt=prompt)
        requests = AcceptedRequests(self.objects)
        return requests.accept(request, {}, document="a.json", default_model="sandbox").content

    def publish(self, asset: str, text: str = "1", days_ago: float = 0) -> Manifest:
        folder = self.folder / asset / text
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "file.txt").write_text(text)
        files = ArtifactFiles(folder, attributes={CONTENT_ATTRIBUTE: self.content})
        manifest = self.store.publish(asset, "a", files)
        stored = (datetime.now(UTC) - timedelta(days=days_ago)).timestamp()
        os.utime(self.objects.root / asset / "a" / "manifest.json", (stored, stored))
        return manifest

    def finished(self) -> list[str]:
        return self.archive.finished(["a", "unknown"], MONTH)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


@pytest.mark.parametrize(
    ("clip", "review", "expected"),
    [(31, 31, ["a"]), (29, 31, []), (31, 29, []), (31, None, []), (None, 31, [])],
)
def test_a_request_is_finished_when_clip_and_review_are_both_old(
    shelf: Shelf, clip: float | None, review: float | None, expected: list[str]
) -> None:
    for asset, days in ((CLIP_ASSET, clip), (REVIEW_ASSET, review)):
        if days is not None:
            shelf.publish(asset, days_ago=days)
    assert shelf.finished() == expected
    assert shelf.archive.finished(["a"], MONTH, datetime.now(UTC) - timedelta(days=3)) == []


def test_a_request_submitted_again_is_not_finished(shelf: Shelf) -> None:
    for asset in (CLIP_ASSET, REVIEW_ASSET):
        shelf.publish(asset, days_ago=31)
    shelf.accept("another prompt")
    assert shelf.finished() == []


def test_a_request_is_pending_until_its_clip_is_stored(shelf: Shelf) -> None:
    assert not shelf.archive.is_pending("unknown")
    assert shelf.archive.is_pending("a")
    AcceptedRequests(shelf.objects).clear_pending("a", shelf.content)
    assert not shelf.archive.is_pending("a")


def test_a_record_names_the_newest_of_everything_and_replaces_that_of_the_same_clip(shelf: Shelf) -> None:
    manifests = {asset: shelf.publish(asset) for asset in REQUEST_ASSETS}
    first = shelf.archive.record("a")
    assert first.artifacts == manifests
    assert first.accepted == AcceptedRequests(shelf.objects).find("a")
    again = shelf.archive.record("a", datetime.now(UTC) + timedelta(days=2))
    shelf.publish(CLIP_ASSET, "2")
    other = shelf.archive.record("a", datetime.now(UTC) + timedelta(days=1))
    shelf.publish(CLIP_ASSET, "3")
    last = shelf.archive.record("a", datetime.now(UTC) + timedelta(days=3))
    assert shelf.archive.records("a") == [other, again, last], "by time, not by digest"
