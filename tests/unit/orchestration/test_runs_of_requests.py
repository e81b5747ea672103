"""Runs in progress, and what they keep: a request is not archived under them, and no second run makes its clip."""

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from libs.requests.documents.animation_request import AnimationRequest
from libs.requests.lifecycle.accepted import AcceptedRequests
from libs.requests.lifecycle.archive import RequestArchive
from libs.requests.lifecycle.states import CLIP_ASSET
from libs.storage.artifacts import ArtifactFiles, ArtifactStore
from libs.storage.backends.folder import FolderObjectStore
from orchestration.housekeeping.archive import archive_requests
from orchestration.jobs import ANIMATE
from orchestration.partitions import ANIMATION_REQUESTS
from orchestration.policies import CONTENT_TAG
from orchestration.requests.runs import RunsInProgress

PARTITIONS = str(ANIMATION_REQUESTS.name)


@pytest.fixture
def instance() -> Any:
    with dg.DagsterInstance.ephemeral() as made:
        made.add_dynamic_partitions(PARTITIONS, ["a"])
        yield made


@pytest.fixture
def store(tmp_path: Path) -> ArtifactStore:
    """One that holds the clip of request ``a``."""
    made = ArtifactStore(FolderObjectStore(tmp_path / "store"), tmp_path / "cache")
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "clip.mp4").write_bytes(b"clip")
    made.publish(CLIP_ASSET, "a", ArtifactFiles(tmp_path / "clip"))
    return made


def start(instance: dg.DagsterInstance, request_id: str = "a", content: str | None = None) -> None:
    tags = {"dagster/partition": request_id} | ({} if content is None else {CONTENT_TAG: content})
    instance.add_run(dg.DagsterRun(job_name=ANIMATE.name, tags=tags, status=dg.DagsterRunStatus.STARTED))


def test_a_finished_request_leaves_the_set_with_a_record(instance: dg.DagsterInstance, store: ArtifactStore) -> None:
    start(instance, "another")
    archive = RequestArchive(store)
    assert archive_requests(instance, archive, ["a"]) == ["a"]
    assert instance.get_dynamic_partitions(PARTITIONS) == []
    assert [record.request_id for record in archive.records("a")] == ["a"]


@pytest.mark.parametrize("reason", ["submitted again", "started again"])
def test_a_request_that_is_wanted_again_meanwhile_stays(
    instance: dg.DagsterInstance, store: ArtifactStore, reason: str
) -> None:
    if reason == "submitted again":
        request = AnimationRequest(id="a", reference="r.png", driver="d.mp4")
        AcceptedRequests(store.objects).accept(request, {}, document="a.json", default_model="sandbox")
    else:
        start(instance)
    assert archive_requests(instance, RequestArchive(store), ["a"]) == []
    assert instance.get_dynamic_partitions(PARTITIONS) == ["a"]


@pytest.mark.parametrize(
    ("made", "asked", "covered"),
    [("1", "1", True), ("1", "2", False), ("1", None, True), (None, "1", True), (None, None, True)],
)
def test_a_run_counts_for_the_content_it_makes(
    instance: dg.DagsterInstance, made: str | None, asked: str | None, covered: bool
) -> None:
    """``None``: the run takes the newest; asked by a request that nobody submitted, whatever is made counts."""
    start(instance, content=made)
    progress = RunsInProgress(instance)
    assert progress.cover("a", asked) == covered
    assert not progress.cover("b", asked)
