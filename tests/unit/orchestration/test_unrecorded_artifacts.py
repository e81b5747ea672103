"""Stored artifacts that the catalogue lacks are found with few questions to the database, however many there are."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import sqlalchemy

from libs.requests.lifecycle.states import CLIP_ASSET
from libs.storage.artifacts import ArtifactFiles, ArtifactStore
from libs.storage.backends.folder import FolderObjectStore
from orchestration.recovery.adoption import unrecorded_artifacts
from orchestration.storage.io_manager import DIGEST_METADATA


@contextmanager
def counted_questions() -> Iterator[list[str]]:
    """The questions that are sent to the database while the block runs."""
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("SELECT"):
            sent.append(statement)

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", note)


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    return ArtifactStore(FolderObjectStore(tmp_path / "store"), tmp_path / "cache")


def publish(store: ArtifactStore, folder: Path, request_id: str) -> str:
    """A clip of this request; returns its digest."""
    folder.mkdir()
    (folder / "clip.mp4").write_text(request_id)
    return store.publish(CLIP_ASSET, request_id, ArtifactFiles(folder)).digest


def record(instance: dg.DagsterInstance, request_id: str, digest: str) -> None:
    instance.report_runless_asset_event(
        dg.AssetMaterialization(CLIP_ASSET, partition=request_id, metadata={DIGEST_METADATA: digest})
    )


def test_the_latest_materialization_decides_in_a_few_questions(store: ArtifactStore, tmp_path: Path) -> None:
    ids = [f"clip-{number:02}" for number in range(12)]
    digests = {request_id: publish(store, tmp_path / request_id, request_id) for request_id in ids}
    with dg.DagsterInstance.ephemeral() as instance:
        for request_id in ids:
            record(instance, request_id, digests[request_id])
        record(instance, ids[3], "something newer than what is stored")
        lost = publish(store, tmp_path / "lost", "lost")
        with counted_questions() as sent:
            found = list(unrecorded_artifacts(instance, store, [*ids, "lost"]))
        assert [(one.partition, one.digest) for one in found] == [(ids[3], digests[ids[3]]), ("lost", lost)]
        assert len(sent) <= 6, sent
