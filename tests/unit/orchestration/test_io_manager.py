"""The IO manager in runs: what is stored damaged stops the reader with the way out, and making it again repairs it."""

from pathlib import Path
from shutil import rmtree
from typing import Any

import dagster as dg
import pytest

from libs.errors import StorageError
from libs.settings import load_settings
from libs.storage.artifacts import LocalArtifact
from libs.storage.backends.factory import store_from_settings
from libs.storage.backends.folder import FolderObjectStore
from orchestration.failures import STEP_RETRIES
from orchestration.storage.io_manager import DIGEST_METADATA, ArtifactIOManager
from orchestration.storage.outputs import folder_output
from orchestration.storage.resources import SettingsResource, StorageResource

PARTITIONS = dg.StaticPartitionsDefinition(["dance-1"])


@pytest.fixture(autouse=True)
def in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    monkeypatch.delenv("S3_ENDPOINT", raising=False)


@dg.asset(partitions_def=PARTITIONS)
def written() -> dg.Output:
    folder = load_settings().data_dir / "scratch"
    folder.mkdir(parents=True)
    (folder / "clip.mp4").write_bytes(b"moving pictures")
    return folder_output(folder)


@dg.asset(partitions_def=PARTITIONS, retry_policy=STEP_RETRIES)
def read(written: LocalArtifact) -> dg.MaterializeResult[None]:
    assert written.path("clip.mp4").read_bytes() == b"moving pictures"
    return dg.MaterializeResult()


def run(*assets: Any, instance: dg.DagsterInstance) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [written, read],
        selection=[asset.key for asset in assets],
        resources={
            "io_manager": ArtifactIOManager(storage=StorageResource(settings=SettingsResource())),
        },
        partition_key="dance-1",
        instance=instance,
        raise_on_error=False,
    )


def test_what_was_stored_is_shown_and_its_scratch_folder_goes() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        result = run(written, instance=instance)
    (materialization,) = result.asset_materializations_for_node("written")
    store = store_from_settings(load_settings())
    manifest = store.manifest("written", "dance-1")
    assert manifest is not None
    assert manifest.attributes["run_id"] == result.run_id
    file = manifest.file("clip.mp4")
    table = materialization.metadata["stored files"]
    assert isinstance(table, dg.TableMetadataValue)
    assert [record.data for record in table.records] == [
        {"file": "clip.mp4", "bytes": 15, "sha256": file.sha256, "stored at": store.objects.uri(file.key)}
    ]
    assert materialization.metadata[DIGEST_METADATA].value == manifest.digest
    assert materialization.metadata["size"].value == 15
    assert not (load_settings().data_dir / "scratch").exists()


def test_what_cannot_be_stored_is_explained_and_keeps_its_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> None:
        raise StorageError("the bucket refuses")

    monkeypatch.setattr(FolderObjectStore, "put_file", refuse)
    with dg.DagsterInstance.ephemeral() as instance:
        failed = run(written, instance=instance)
    (failure,) = [event for event in failed.all_events if event.is_step_failure]
    reason = failure.step_failure_data.user_failure_data
    assert reason is not None
    assert reason.description == "the bucket refuses"
    assert (load_settings().data_dir / "scratch" / "clip.mp4").read_bytes() == b"moving pictures"


@pytest.mark.parametrize("damage", ["rotten", "gone"])
def test_a_damaged_object_stops_the_run_once_and_says_what_to_materialize(damage: str) -> None:
    store = store_from_settings(load_settings())
    assert isinstance(store.objects, FolderObjectStore)
    with dg.DagsterInstance.ephemeral() as instance:
        assert run(written, instance=instance).success
        manifest = store.manifest("written", "dance-1")
        assert manifest is not None
        stored = store.objects.root / manifest.file("clip.mp4").key
        stored.chmod(0o600)
        if damage == "rotten":
            stored.write_bytes(b"moving pictores")
        else:
            stored.unlink()
        rmtree(load_settings().artifact_cache_dir)  # as on another host: this one still has a whole copy

        failed = run(read, instance=instance)

        assert not failed.success
        (failure,) = [event for event in failed.all_events if event.is_step_failure]
        reason = failure.step_failure_data.user_failure_data
        assert reason is not None
        assert "written, partition dance-1: clip.mp4" in str(reason.description)
        assert "--select written --partition dance-1" in str(reason.description)
        assert not [event for event in failed.all_events if event.is_step_up_for_retry], "trying again does not help"
        assert run(written, instance=instance).success
        assert run(read, instance=instance).success
