"""What a failed or interrupted run counts as: a crash, a planned stop, or the asset's own failure."""

import sys
from collections.abc import Iterator
from pathlib import Path

import botocore.exceptions
import dagster as dg
import kombu.exceptions
import psycopg2
import psycopg2.errors
import pytest
import redis.exceptions
import sqlalchemy.exc
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.storage.tags import MAX_RETRIES_TAG, RUN_FAILURE_REASON_TAG, WILL_RETRY_TAG
from dagster._core.test_utils import create_run_for_test
from dagster._utils.error import SerializableErrorInfo, serializable_error_info_from_exc_info
from dagster_postgres.utils import DagsterPostgresException

from libs.errors import InputError, StorageUnavailableError
from orchestration.crashes import lost_server
from orchestration.fleet.working.planned_stop import note_planned_stop
from orchestration.fleet.working.run_task import execute_run

REFUSED = psycopg2.OperationalError('connection to server at "10.0.0.1", port 5432 failed: Connection refused\n\tIs it')

LOST = [
    REFUSED,
    psycopg2.InterfaceError("connection already closed"),
    psycopg2.errors.AdminShutdown("terminating connection due to administrator command"),
    psycopg2.DatabaseError("error with status PGRES_TUPLES_OK and no message from the libpq"),
    sqlalchemy.exc.OperationalError("select 1", {}, REFUSED),
    sqlalchemy.exc.InterfaceError("select 1", {}, psycopg2.InterfaceError("cursor already closed")),
    sqlalchemy.exc.DatabaseError("select 1", {}, psycopg2.DatabaseError("lost synchronization with server")),
    sqlalchemy.exc.PendingRollbackError("Can't reconnect until invalid transaction is rolled back."),
    sqlalchemy.exc.TimeoutError("QueuePool limit reached"),
    DagsterPostgresException("too many retries for DB connection"),
    redis.exceptions.ConnectionError("Error 111 connecting to 10.0.0.1:6379. Connection refused."),
    redis.exceptions.TimeoutError("Timeout reading from socket"),
    kombu.exceptions.OperationalError("Error 111"),
    botocore.exceptions.EndpointConnectionError(endpoint_url="http://10.0.0.1:9000"),
    botocore.exceptions.ReadTimeoutError(endpoint_url="http://10.0.0.1:9000"),
]

OWN = [
    InputError("steps: must be at least 1"),
    StorageUnavailableError("the store does not answer"),
    ValueError("sqlalchemy.exc.OperationalError"),
    ConnectionError("of a hub"),
    sqlalchemy.exc.ProgrammingError("select", {}, psycopg2.ProgrammingError("syntax error")),
    sqlalchemy.exc.IntegrityError("insert", {}, psycopg2.IntegrityError("duplicate key")),
    redis.exceptions.ResponseError("WRONGTYPE"),
]


def info_of(error: BaseException) -> SerializableErrorInfo:
    try:
        raise error
    except BaseException:
        return serializable_error_info_from_exc_info(sys.exc_info())


def wrapped(error: BaseException, *, cause: bool) -> SerializableErrorInfo:
    """``error`` two levels below what the step raised, as its cause or as what was being handled."""
    try:
        try:
            try:
                raise error
            except BaseException as first:
                if cause:
                    raise RuntimeError("while an event was stored") from first
                raise RuntimeError("while an event was stored")  # noqa: B904 - the implicit context is the case
        except RuntimeError as second:
            raise dg.DagsterError("an unexpected error in a step") from second
    except dg.DagsterError:
        return serializable_error_info_from_exc_info(sys.exc_info())


@pytest.mark.parametrize("error", LOST, ids=lambda error: f"{type(error).__module__}.{type(error).__name__}")
def test_a_lost_connection_is_found_anywhere_in_the_chain(error: BaseException) -> None:
    for info in (info_of(error), wrapped(error, cause=True), wrapped(error, cause=False)):
        said = lost_server(info)
        assert said
        assert "\n" not in said


@pytest.mark.parametrize("error", OWN, ids=lambda error: type(error).__name__)
def test_a_failure_of_the_asset_is_no_crash(error: BaseException) -> None:
    for info in (info_of(error), wrapped(error, cause=True), wrapped(error, cause=False)):
        assert lost_server(info) is None


def test_an_error_explained_by_libs_is_a_failure_of_the_asset() -> None:
    """The store did not answer: the step has tried again for as long as its policy says."""
    error = StorageUnavailableError("the store does not answer")
    error.__cause__ = botocore.exceptions.EndpointConnectionError(endpoint_url="http://10.0.0.1:9000")
    assert lost_server(info_of(error)) is None
    assert lost_server(None) is None


# --- a run whose step fails so ---

ERRORS: dict[str, BaseException] = {
    "database": DagsterPostgresException("too many retries for DB connection"),
    "request": ValueError("steps: must be at least 1"),
    "stop": DagsterExecutionInterruptedError(),
}


@dg.op
def fail(context: dg.OpExecutionContext) -> None:
    error = ERRORS[context.run.tags["error"]]
    if context.run.tags["error"] == "database":
        error.__cause__ = sqlalchemy.exc.OperationalError("insert", {}, REFUSED)
    raise error


@dg.job(executor_def=dg.in_process_executor)
def failing() -> None:
    fail()


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "dagster.yaml").write_text(
        "telemetry: {enabled: false}\nrun_retries: {enabled: true, max_retries: 2, retry_on_asset_or_op_failure: false}"
    )
    with dg.DagsterInstance.get() as instance:
        yield instance


def failed_run(instance: dg.DagsterInstance, error: str, **more: str) -> dg.DagsterRun:
    """A launched run of ``failing``, executed as a worker does."""
    recon = dg.reconstructable(failing)
    run = instance.create_run_for_job(
        failing,
        tags={"error": error, **more},
        status=dg.DagsterRunStatus.STARTING,
        job_code_origin=recon.get_python_origin(),
    )
    assert execute_run(run.run_id) == "FAILURE"
    ended = instance.get_run_by_id(run.run_id)
    assert ended is not None
    return ended


def messages(instance: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    return "\n".join(record.message for record in instance.all_logs(run.run_id))


def test_a_run_that_lost_its_database_counts_as_crashed(instance: dg.DagsterInstance) -> None:
    run = failed_run(instance, "database")
    assert run.tags[RUN_FAILURE_REASON_TAG] != "STEP_FAILURE"
    assert run.tags[WILL_RETRY_TAG] == "true"
    assert "lost the connection to a server" in messages(instance, run)
    assert MAX_RETRIES_TAG not in run.tags, "it spends a retry, as every crash does"


def test_a_failure_of_the_asset_is_not_retried(instance: dg.DagsterInstance) -> None:
    run = failed_run(instance, "request")
    assert (run.tags[RUN_FAILURE_REASON_TAG], run.tags[WILL_RETRY_TAG]) == ("STEP_FAILURE", "false")


def test_a_planned_stop_spends_no_retry(instance: dg.DagsterInstance) -> None:
    run = failed_run(instance, "stop")
    assert run.tags[WILL_RETRY_TAG] == "true"
    assert run.tags[MAX_RETRIES_TAG] == "3"
    assert "without spending a retry" in messages(instance, run)


def test_both_processes_of_a_worker_may_note_a_planned_stop(instance: dg.DagsterInstance) -> None:
    run = create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED)
    for _ in range(2):
        assert note_planned_stop(instance, run.run_id)
        noted = instance.get_run_by_id(run.run_id)
        assert noted is not None
        assert noted.tags[MAX_RETRIES_TAG] == "3"
    # The retry has the tags of the run it repeats, and may be stopped again.
    retry = create_run_for_test(instance, status=dg.DagsterRunStatus.STARTED, tags=dict(noted.tags))
    assert note_planned_stop(instance, retry.run_id)
    noted = instance.get_run_by_id(retry.run_id)
    assert noted is not None
    assert noted.tags[MAX_RETRIES_TAG] == "4"


@pytest.mark.parametrize("status", [dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.FAILURE])
def test_a_run_that_was_ended_from_outside_is_no_planned_stop(
    instance: dg.DagsterInstance, status: dg.DagsterRunStatus
) -> None:
    run = create_run_for_test(instance, status=status)
    assert not note_planned_stop(instance, run.run_id)
    assert MAX_RETRIES_TAG not in instance.get_run_by_id(run.run_id).tags
