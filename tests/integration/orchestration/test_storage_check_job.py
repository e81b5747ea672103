"""The store against manifests and the asset catalogue of a real instance."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from libs.settings import Settings, load_settings
from libs.storage.artifacts import ArtifactStore
from libs.storage.backends.factory import store_from_settings
from orchestration.storage.io_manager import ArtifactIOManager
from orchestration.storage.outputs import folder_output
from orchestration.storage.resources import ProgressResource, SettingsResource, StorageResource
from orchestration.storage.storage_check import check_storage, lost_artifacts

PARTITIONS = dg.StaticPartitionsDefinition(["p", "q"])
STORAGE = StorageResource(settings=SettingsResource())


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as running:
        yield running


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, instance: dg.DagsterInstance) -> ArtifactStore:
    """A store that holds the outputs of three materializations, one of them made twice."""
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("S3_ENDPOINT", "")
    monkeypatch.setitem(Settings.model_config, "env_file", None)
    count = 0

    def files(text: str) -> dg.Output:
        folder = tmp_path / f"scratch-{text}"
        folder.mkdir()
        (folder / "clip.mp4").write_text(text)
        return folder_output(folder)

    @dg.asset(partitions_def=PARTITIONS)
    def clip(context: dg.AssetExecutionContext) -> dg.Output:
        nonlocal count
        count += 1
        return files(f"{context.partition_key}-{count}")

    @dg.asset
    def whole() -> dg.Output:
        return files("whole")

    @dg.asset
    def stored_elsewhere() -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata={"files": 3})

    resources = {"io_manager": ArtifactIOManager(storage=STORAGE)}
    for partition in ("p", "p", "q"):
        assert dg.materialize([clip], instance=instance, resources=resources, partition_key=partition).success
    assert dg.materialize([whole, stored_elsewhere], instance=instance, resources=resources).success
    return store_from_settings(load_settings())


def run(instance: dg.DagsterInstance, full: bool = False) -> dg.ExecuteInProcessResult:
    return check_storage.execute_in_process(
        instance=instance,
        resources={"storage": STORAGE, "progress": ProgressResource()},
        run_config={"ops": {"compare_store_with_catalogue": {"config": {"full": full}}}},
        raise_on_error=False,
    )


def test_a_sound_store_passes(store: ArtifactStore, instance: dg.DagsterInstance) -> None:
    result = run(instance, full=True)
    assert result.success
    (output,) = result.filter_events(lambda event: event.is_successful_output)
    metadata = {name: value.value for name, value in output.step_output_data.metadata.items()}
    assert (metadata["manifests"], metadata["problems"], metadata["orphans"]) == (4 + 3, 0, 0)


def test_recorded_outputs_that_are_not_stored_are_reported(store: ArtifactStore, instance: dg.DagsterInstance) -> None:
    assert lost_artifacts(instance, store) == []
    for info in list(store.objects.list("clip/q/")):
        store.objects.delete(info.key)
    (lost,) = lost_artifacts(instance, store)
    assert (lost.asset, lost.partition) == ("clip", "q")
    result = run(instance)
    assert not result.success
    failure = result.failure_data_for_node("compare_store_with_catalogue")
    assert failure is not None
    assert failure.user_failure_data is not None
    assert "clip, partition q" in str(failure.user_failure_data.description)
    table = failure.user_failure_data.metadata["problems"].records
    assert table[0].data["run"].endswith("--select clip --partition q")


def test_only_the_latest_content_must_be_there(store: ArtifactStore, instance: dg.DagsterInstance) -> None:
    newest = store.manifest("clip", "p")
    assert newest is not None
    for info in list(store.objects.list("clip/p/manifests/")):
        if newest.digest[:16] not in info.key:
            store.objects.delete(info.key)
    assert lost_artifacts(instance, store) == []


def test_rotten_bits_fail_a_full_check_only(store: ArtifactStore, instance: dg.DagsterInstance) -> None:
    manifest = store.manifest("whole", None)
    assert manifest is not None
    store.objects.put_bytes(manifest.files[0].key, b"whale")
    assert run(instance).success
    assert not run(instance, full=True).success
