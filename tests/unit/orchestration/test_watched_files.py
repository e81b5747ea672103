"""One look at files that clips were made from, whatever they are."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from libs.errors import StorageError, StorageUnavailableError
from libs.storage.backends.folder import FolderObjectStore
from libs.storage.backends.store import ObjectInfo
from orchestration.inbox import input_watch
from orchestration.inbox.watched_files import FileUse, scan_files
from orchestration.partitions import ANIMATION_REQUESTS
from orchestration.requests.request_inputs import observe_media
from orchestration.storage.observed import observation
from tests.unit.requests.intake_desk import Desk


class Files:
    """Each file was used by the request named like it, when its digest was ``old``."""

    def __init__(self, digests: dict[str, str | Exception]) -> None:
        self.digests = digests

    def listing(self) -> Iterable[tuple[str, ObjectInfo]]:
        return [(path, ObjectInfo(path, 1, datetime(2026, 1, 1, tzinfo=UTC))) for path in self.digests]

    def uses(self, instance: dg.DagsterInstance) -> Mapping[str, list[FileUse]]:
        return {path: [FileUse("reference_picture", path, "old", "old")] for path in self.digests}

    def digest(self, path: str) -> str | None:
        found = self.digests[path]
        if isinstance(found, Exception):
            raise found
        return found

    def observation(self, use: FileUse, path: str, digest: str) -> dg.AssetObservation:
        return observation(use.asset, use.request_id, digest)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(str(ANIMATION_REQUESTS.name), ["a", "b", "c"])
        yield instance


@pytest.mark.parametrize("error", [StorageError("access denied"), PermissionError("access denied")])
def test_an_unreadable_file_does_not_hide_others(instance: dg.DagsterInstance, error: Exception) -> None:
    files = Files({"a": "old", "b": error, "c": "new"})
    found = scan_files(instance, files, None)
    assert [event.partition for event in found.asset_events] == ["c"]
    assert "1 replaced inputs, 1 wait for the next scan; not readable: b: access denied" in str(found.skip_reason)
    files.digests["b"] = "new"
    again = scan_files(instance, files, found.cursor)
    assert [event.partition for event in again.asset_events] == ["b"]
    assert not scan_files(instance, files, again.cursor).asset_events


def test_a_store_that_does_not_answer_is_an_error_of_the_scan(instance: dg.DagsterInstance) -> None:
    with pytest.raises(StorageUnavailableError):
        scan_files(instance, Files({"a": StorageUnavailableError("away")}), None)


@pytest.mark.parametrize("cursor", ["", "what a person typed", "AAAA", "{}", "é"])
def test_an_unreadable_cursor_means_a_first_scan(instance: dg.DagsterInstance, cursor: str) -> None:
    assert [event.partition for event in scan_files(instance, Files({"a": "new"}), cursor).asset_events] == ["a"]


@pytest.mark.parametrize(("content", "expected"), [(None, None), (b"VIDEO", "5 bytes of 20")])
def test_a_large_file_is_not_read_in_a_tick_and_only_a_replaced_one_is_observed(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, expected: Any
) -> None:
    monkeypatch.setattr(input_watch, "HASHED_UP_TO", 4)
    monkeypatch.setattr("libs.requests.inbox.accepted_media.COPIED_UP_TO", 4)
    desk = Desk(tmp_path)
    desk.request("a")
    desk.scan()
    digest = hashlib.sha256(b"video").hexdigest()
    for event in observe_media_of("a", digest, desk):
        instance.report_runless_asset_event(event)
    if content is not None:
        desk.put("d.mp4", content)
    monkeypatch.setattr(FolderObjectStore, "head", None)
    media = input_watch._Media(desk.inbox, desk.requests)
    found = scan_files(instance, media, None)
    versions = [event.data_version for event in found.asset_events if event.asset_key == dg.AssetKey("driving_video")]
    assert [version[: len(expected or "")] for version in versions] == ([expected] if expected else [])


def observe_media_of(request_id: str, digest: str, desk: Desk) -> Iterator[dg.AssetObservation]:
    accepted = desk.requests.find(request_id)
    assert accepted is not None
    yield from observe_media(accepted.request, {"reference": digest, "driver": digest}, desk.inbox)
