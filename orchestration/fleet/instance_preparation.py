"""``python -m orchestration.fleet.instance_preparation --gpu-workers N``: Dagster's database, made ready for a fleet.

A one-shot of ``infra/compose.yaml``, which all processes of Dagster wait for: it creates the tables of an empty
database, refuses those of another version, and sets the limit of pool ``gpu``. `one-to-all storage prepare` prepares
the bucket.
"""

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import dagster as dg
from sqlalchemy.exc import DatabaseError

from libs.errors import OneToAllError, SettingsError
from orchestration.fleet.preflight import DATABASE_VARIABLE
from orchestration.policies import GPU_POOL


class DatabaseNotReadyError(OneToAllError):
    """Dagster's database does not answer, refuses, or has the tables of another version."""


def prepare_instance(instance: dg.DagsterInstance, gpu_workers: int) -> None:
    """Set the limit of pool ``gpu`` to the number of GPU workers of all hosts; reading the instance made the tables.

    Raises:
        DatabaseNotReadyError: the tables are those of another version of Dagster.
    """
    for storage in (instance.run_storage, instance.event_log_storage, instance.schedule_storage):
        found, expected = (storage.alembic_version() if storage else None) or (None, None)
        if found != expected:
            raise DatabaseNotReadyError(
                f"Dagster's database has the tables of another version ({found}, expected {expected}): stop the fleet, "
                "back the database up and run `dagster instance migrate` (docs/operations.md, Upgrade)"
            )
    instance.event_log_storage.set_concurrency_slots(GPU_POOL, gpu_workers)


@contextmanager
def database_errors_explained() -> Iterator[None]:
    """Turn what the driver says, below a hundred lines of traceback, into one line.

    Raises:
        DatabaseNotReadyError: no connection, wrong password, no such database.
    """
    try:
        yield
    except Exception as error:  # dagster-postgres wraps some of them in an exception of its own
        cause = _database_error(error)
        if cause is None:
            raise
        said = " ".join(str(cause.orig or cause).split())
        raise DatabaseNotReadyError(f"Dagster's database: {said}; check {DATABASE_VARIABLE}") from error


def _database_error(error: BaseException | None) -> DatabaseError | None:
    while error is not None and not isinstance(error, DatabaseError):
        error = error.__cause__ or error.__context__
    return error


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 if the instance is ready, 1 if not."""
    parser = argparse.ArgumentParser(
        prog="python -m orchestration.fleet.instance_preparation",
        description=(
            "Prepare Dagster's database for a fleet: create the tables of an empty database, refuse those of another "
            "version, and set the limit of the pool gpu."
        ),
    )
    parser.add_argument("--gpu-workers", type=int, required=True, help="number of GPU workers of all hosts together")
    options = parser.parse_args(arguments)
    try:
        with database_errors_explained(), dg.DagsterInstance.get() as instance:
            prepare_instance(instance, options.gpu_workers)
    except (DatabaseNotReadyError, SettingsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"Dagster's database is ready; {options.gpu_workers} runs at once in pool {GPU_POOL}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
