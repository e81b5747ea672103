"""The one-shot before Dagster's processes: the limit, tables of another version, the driver's words in one line."""

import sqlite3
from pathlib import Path

import dagster as dg
import psycopg2
import pytest
from dagster_postgres.utils import DagsterPostgresException
from sqlalchemy.exc import OperationalError

from orchestration.fleet.instance_preparation import DatabaseNotReadyError, database_errors_explained, main

REFUSAL = (
    'connection to server at "postgres", port 5432 failed: FATAL:  password authentication failed for user "dagster"'
)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    return tmp_path


def test_an_empty_database_gets_its_tables_and_the_limit(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--gpu-workers", "3"]) == 0
    assert "3 runs at once in pool gpu" in capsys.readouterr().out
    assert main(["--gpu-workers", "5"]) == 0
    with dg.DagsterInstance.get() as instance:
        assert [(limit.name, limit.limit) for limit in instance.event_log_storage.get_pool_limits()] == [("gpu", 5)]


def test_tables_of_another_version_are_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--gpu-workers", "1"]) == 0
    with sqlite3.connect(home / "history" / "runs.db") as database:
        database.execute("update alembic_version set version_num = '0000deadbeef'")
    assert main(["--gpu-workers", "1"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: Dagster's database has the tables of another version (0000deadbeef, expected")
    assert "dagster instance migrate" in said


def test_what_the_driver_says_is_one_line() -> None:
    """As dagster-postgres hands it on, after its retries."""
    with pytest.raises(DatabaseNotReadyError) as refused, database_errors_explained():
        try:
            raise OperationalError("select", {}, psycopg2.OperationalError(f"{REFUSAL}\n"))
        except OperationalError as error:
            raise DagsterPostgresException("too many retries for DB connection") from error
    assert "password authentication failed" in str(refused.value)
    assert str(refused.value).endswith("; check DAGSTER_POSTGRES_URL")
    assert "\n" not in str(refused.value)


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(KeyError), database_errors_explained():
        raise KeyError("something else")
