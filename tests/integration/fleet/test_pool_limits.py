"""The limit of pool ``gpu`` while the database does not answer: the daemon's queue on a real PostgreSQL."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import dagster as dg
import psycopg2
import pytest
import yaml
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.test_utils import MockedRunLauncher
from dagster._daemon.run_coordinator import QueuedRunCoordinatorDaemon

from libs.settings import REPOSITORY_ROOT
from orchestration.fleet.instance_preparation import prepare_instance
from orchestration.fleet.postgres_storage import waiting_at_most
from orchestration.fleet.preflight import DATABASE_VARIABLE
from orchestration.policies import GPU_POOL
from tests.postgres_server import PostgresServer, find_postgres, postgres_server
from tests.waiting import wait_until

ANSWER_SECONDS = 2.0
"""What a statement may take here; the shipped limit is two minutes."""
LOCATION = GrpcServerCodeLocationOrigin(host="localhost", port=4266, location_name="one_to_all")
ORIGIN = RemoteJobOrigin(RemoteRepositoryOrigin(LOCATION, "__repository__"), "gpu_work")


@dg.op(pool=GPU_POOL)
def occupy_a_gpu() -> None: ...


@dg.job
def gpu_work() -> None:
    occupy_a_gpu()


@pytest.fixture
def postgres() -> Iterator[PostgresServer]:
    if find_postgres() is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    with postgres_server() as server:
        yield server


@pytest.fixture
def instance(postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """What ``infra/dagster.prod.yaml`` says of database, queue and limits; launched runs go nowhere."""
    shipped = yaml.safe_load((REPOSITORY_ROOT / "infra" / "dagster.prod.yaml").read_text())
    configuration = {part: shipped[part] for part in ("storage", "run_coordinator", "concurrency")}
    configuration["run_launcher"] = {"module": MockedRunLauncher.__module__, "class": MockedRunLauncher.__name__}
    (tmp_path / "dagster.yaml").write_text(yaml.safe_dump(configuration))
    monkeypatch.setenv(DATABASE_VARIABLE, postgres.url())
    try:
        with dg.DagsterInstance.from_config(str(tmp_path)) as made:
            yield made
    finally:
        psycopg2.extensions.set_wait_callback(None)


@contextmanager
def limits_without_an_answer(postgres: PostgresServer, until: Callable[[], bool]) -> Iterator[None]:
    """Lock the table of limits for so long, as a database does that hangs after the runs were read."""

    def release() -> None:
        try:
            wait_until("the lock may go", until)
        finally:
            connection.close()

    connection = psycopg2.connect(postgres.url().replace("postgresql+psycopg2", "postgresql"))
    with connection.cursor() as cursor:
        cursor.execute("lock table concurrency_limits in access exclusive mode")
    releasing = threading.Thread(target=release)
    releasing.start()
    try:
        yield
    finally:
        releasing.join()


def test_no_run_too_many_is_launched_when_the_limits_cannot_be_read(
    instance: dg.DagsterInstance, postgres: PostgresServer, caplog: pytest.LogCaptureFixture
) -> None:
    prepare_instance(instance, gpu_workers=2)
    for _ in range(5):
        instance.create_run_for_job(gpu_work, status=dg.DagsterRunStatus.QUEUED, remote_job_origin=ORIGIN)
    workspace: Any = SimpleNamespace(instance=instance, create_request_context=lambda: None)
    with limits_without_an_answer(postgres, lambda: "asked for again" in caplog.text):
        psycopg2.extensions.set_wait_callback(waiting_at_most(ANSWER_SECONDS))
        list(QueuedRunCoordinatorDaemon(interval_seconds=1).run_iteration(workspace))
    assert len(cast("MockedRunLauncher", instance.run_launcher).queue()) == 2
    assert (
        "asked for again: sqlalchemy.exc.OperationalError: (psycopg2.OperationalError) the database took" in caplog.text
    )
