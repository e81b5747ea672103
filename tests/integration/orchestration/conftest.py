"""A complete little world for graph tests: sandbox models made once, an inbox, an instance of its own."""

import atexit
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.storage.event_log.sqlite import sqlite_event_log
from dagster._core.storage.runs.sqlite import sqlite_run_storage
from dagster._core.storage.schedules.sqlite import sqlite_schedule_storage
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Engine

from libs.model_repo.layout import layout_of
from libs.model_repo.verification.lock import lock_repository
from libs.requests.inbox.inbox import Inbox
from libs.requests.lifecycle.accepted import AcceptedRequests
from libs.settings import load_settings
from libs.storage.artifacts import ArtifactStore, LocalArtifact
from libs.storage.backends.folder import FolderObjectStore
from orchestration.definitions import build_defs
from orchestration.jobs import ANIMATE, PREPARE_MODELS
from orchestration.partitions import ANIMATION_REQUESTS


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

    @property
    def requests(self) -> AcceptedRequests:
        return AcceptedRequests(self.objects)

    def put(self, name: str, content: bytes | Path) -> None:
        """Put a file into the inbox."""
        target = self.data_dir / "artifacts" / "inbox" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content if isinstance(content, bytes) else content.read_bytes())

    def prepare_models(self, variant: str = "sandbox", *, raise_on_error: bool = True) -> dg.ExecuteInProcessResult:
        job = build_defs().resolve_job_def(PREPARE_MODELS.name)
        return job.execute_in_process(partition_key=variant, instance=self.instance, raise_on_error=raise_on_error)

    def accept_model_files(self, variant: str = "sandbox") -> None:
        """Declare the files that are there now to be the right ones."""
        lock_repository(layout_of(variant, load_settings()), replace_entries=True)

    def verify_models(self, variant: str = "sandbox") -> dg.ExecuteInProcessResult:
        job = build_defs().resolve_job_def(PREPARE_MODELS.name)
        return job.execute_in_process(
            partition_key=variant, instance=self.instance, asset_selection=[dg.AssetKey("model_verification")]
        )

    def animate(
        self, request_id: str, *, raise_on_error: bool = True, review: bool = True, clip: bool = True
    ) -> dg.ExecuteInProcessResult:
        """Run the job for one request; without its review, whose pose networks take half of the time, or clip."""
        self.instance.add_dynamic_partitions(ANIMATION_REQUESTS.name or "", [request_id])
        job = build_defs().resolve_job_def(ANIMATE.name)
        left_out = {"animation_review"} if clip else {"animation_review", "animation"}
        assets = job.asset_layer.executable_asset_keys - {dg.AssetKey(name) for name in left_out}
        return job.execute_in_process(
            partition_key=request_id,
            instance=self.instance,
            raise_on_error=raise_on_error,
            asset_selection=None if review and clip else list(assets),
        )

    def artifact(self, asset: str, partition: str) -> LocalArtifact:
        return self.store.fetch(asset, partition)


@event.listens_for(Engine, "connect")
def _write_without_waiting_for_the_disk(connection: Any, _: object) -> None:
    """No test loses its power."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous=OFF")


@lru_cache(maxsize=16)
def _engine(address: str, **options: Any) -> Engine:
    options["connect_args"] = dict(options.get("connect_args", ()))
    return create_engine(address, **options)


def _kept_engine(address: str, *, connect_args: dict[str, Any] | None = None, **options: Any) -> Engine:
    """One engine per database, which remembers its compiled statements.

    Dagster makes a new one for each of the thousand questions of a run, which takes a third of all time.
    """
    return _engine(address, connect_args=tuple((connect_args or {}).items()), **options)


for _storage in (sqlite_event_log, sqlite_run_storage, sqlite_schedule_storage):
    _storage.create_engine = _kept_engine  # type: ignore[attr-defined]


@cache
def _empty_databases() -> Path:
    """The databases of an instance with all tables; a copy takes a fraction of the time that making them takes."""
    folder = tempfile.mkdtemp(prefix="empty-databases-")
    atexit.register(shutil.rmtree, folder)
    with dg.DagsterInstance.local_temp(folder, overrides={"telemetry": {"enabled": False}}) as instance:
        instance.get_ticks("none", "none")
        instance.get_runs()
        instance.get_asset_keys()
    return Path(folder)


@contextmanager
def instance_in(folder: Path, **overrides: Any) -> Iterator[dg.DagsterInstance]:
    """A Dagster instance that keeps its databases in ``folder``."""
    if not folder.exists():
        shutil.copytree(_empty_databases(), folder)
    overrides = {"telemetry": {"enabled": False}, **overrides}
    with dg.DagsterInstance.local_temp(str(folder), overrides=overrides) as instance:
        yield instance


@contextmanager
def world_in(folder: Path) -> Iterator[World]:
    """The world whose models, data and instance lie in ``folder``; the environment points at it while it is open."""
    environment = {"MODELS_DIR": folder / "models", "DATA_DIR": folder / "data", "ONE_TO_ALL_DEVICE": "cpu"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, str(value))
        for name in ("S3_ENDPOINT", "ONE_TO_ALL_MODEL_DIR", "ONE_TO_ALL_RUNTIME_DIR", "DAGSTER_HOME"):
            patch.delenv(name, raising=False)
        with instance_in(folder / "dagster") as instance:
            yield World(folder / "data", folder / "models", instance)


@pytest.fixture(scope="session")
def prepared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world whose sandbox models are written and verified; copied by tests, never changed."""
    folder = tmp_path_factory.mktemp("prepared")
    with world_in(folder) as world:
        world.prepare_models()
    return folder


@pytest.fixture
def world(tmp_path: Path, prepared_folder: Path) -> Iterator[World]:
    """A world of this test's own, with verified sandbox models."""
    shutil.copytree(prepared_folder, tmp_path / "world")
    with world_in(tmp_path / "world") as world:
        yield world


@pytest.fixture
def empty_world(tmp_path: Path) -> Iterator[World]:
    """A world without model files, for what launches runs and does not execute them."""
    with world_in(tmp_path / "world") as world:
        yield world


@pytest.fixture
def unverified_world(tmp_path: Path, prepared_folder: Path) -> Iterator[World]:
    """A world whose sandbox models are there but were never verified."""
    shutil.copytree(prepared_folder / "models", tmp_path / "world" / "models")
    with world_in(tmp_path / "world") as world:
        yield world
