"""A complete little world for graph tests: sandbox models made once, an inbox, an instance of its own."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

from libs.inbox import Inbox
from libs.model_repo.layout import layout_of
from libs.settings import load_settings
from libs.storage.artifacts import ArtifactStore, LocalArtifact
from libs.storage.folder import FolderObjectStore
from orchestration.definitions import build_defs
from orchestration.jobs import ANIMATE, PREPARE_MODELS
from orchestration.partitions import ANIMATION_REQUESTS

SMALL_REQUEST = """\
id: {id}
reference: {reference}
driver: {driver}
model: sandbox
steps: 2
size: {{height: 96, width: 64}}
"""


@pytest.fixture(scope="session")
def sandbox_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MODELS_DIR with the sandbox repository; read-only for tests."""
    from libs.sandbox.repository import write_sandbox_repository

    models = tmp_path_factory.mktemp("models")
    previous = os.environ.get("MODELS_DIR")
    os.environ["MODELS_DIR"] = str(models)
    try:
        write_sandbox_repository(layout_of("sandbox", load_settings()))
    finally:
        if previous is None:
            del os.environ["MODELS_DIR"]
        else:
            os.environ["MODELS_DIR"] = previous
    return models


@dataclass
class World:
    """Folders and store of one test, and ways to run the graph in it."""

    data_dir: Path
    models_dir: Path
    instance: dg.DagsterInstance

    @property
    def objects(self) -> FolderObjectStore:
        return FolderObjectStore(self.data_dir / "artifacts")

    @property
    def store(self) -> ArtifactStore:
        return ArtifactStore(self.objects, self.data_dir / "artifact_cache")

    @property
    def inbox(self) -> Inbox:
        return Inbox(self.objects)

    def put(self, name: str, content: bytes | Path) -> None:
        """Put a file into the inbox."""
        target = self.data_dir / "artifacts" / "inbox" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.read_bytes())

    def prepare_models(self, variant: str = "sandbox", *, raise_on_error: bool = True) -> dg.ExecuteInProcessResult:
        job = build_defs().resolve_job_def(PREPARE_MODELS.name)
        return job.execute_in_process(partition_key=variant, instance=self.instance, raise_on_error=raise_on_error)

    def animate(self, request_id: str, *, raise_on_error: bool = True) -> dg.ExecuteInProcessResult:
        self.instance.add_dynamic_partitions(ANIMATION_REQUESTS.name or "", [request_id])
        job = build_defs().resolve_job_def(ANIMATE.name)
        return job.execute_in_process(partition_key=request_id, instance=self.instance, raise_on_error=raise_on_error)

    def artifact(self, asset: str, partition: str) -> LocalArtifact:
        return self.store.fetch(asset, partition)


@pytest.fixture
def world(tmp_path: Path, sandbox_models: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """An empty DATA_DIR and instance, with the sandbox models at hand (in a copy made of hard links)."""
    models = tmp_path / "models"
    _hard_link_tree(sandbox_models, models)
    monkeypatch.setenv("MODELS_DIR", str(models))
    monkeypatch.setenv("DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("ONE_TO_ALL_DEVICE", "cpu")
    for name in ("S3_ENDPOINT", "ONE_TO_ALL_MODEL_DIR", "ONE_TO_ALL_RUNTIME_DIR"):
        monkeypatch.delenv(name, raising=False)
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster")) as instance:
        yield World(tmp_path / "data", models, instance)


def _hard_link_tree(source: Path, target: Path) -> None:
    for path in sorted(source.rglob("*")):
        destination = target / path.relative_to(source)
        if path.is_dir():
            destination.mkdir(parents=True, exist_ok=True)
        elif not path.name.endswith(".lock"):
            destination.parent.mkdir(parents=True, exist_ok=True)
            os.link(path, destination)
