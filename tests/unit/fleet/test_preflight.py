"""The check before everything else starts: what is missing, what is a known password, and nothing shown."""

import os
import subprocess
import sys

import pytest

from libs.errors import SettingsError
from libs.settings import REPOSITORY_ROOT, Settings
from orchestration.fleet.preflight import check_environment

SECRET = "f00ba4b1946ac92492d2347c"
GOOD = {
    "REDIS_URL": f"redis://:{SECRET}@redis:6379/0",
    "DAGSTER_POSTGRES_URL": f"postgresql+psycopg2://dagster:{SECRET}@postgres:5432/dagster",
    "S3_ENDPOINT": "http://minio:9000",
    "S3_ACCESS_KEY": "one-to-all",
    "S3_SECRET_KEY": SECRET,
    "S3_BUCKET_NAME": "one-to-all",
    "MINIO_ROOT_USER": "administrator",
    "MINIO_ROOT_PASSWORD": SECRET,
}


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setitem(Settings.model_config, "env_file", None)
    for name in (*(field.upper() for field in Settings.model_fields), *GOOD):
        monkeypatch.delenv(name, raising=False)
    for name, value in GOOD.items():
        monkeypatch.setenv(name, value)
    return monkeypatch


def test_a_complete_environment_passes(environment: pytest.MonkeyPatch) -> None:
    check_environment()
    environment.delenv("MINIO_ROOT_USER")
    environment.delenv("MINIO_ROOT_PASSWORD")
    check_environment()


@pytest.mark.parametrize(
    ("variable", "value", "expected"),
    [
        ("REDIS_URL", "", "REDIS_URL is not set"),
        ("REDIS_URL", "redis://:changeme@redis:6379/0", "REDIS_URL is a password that everybody knows"),
        ("S3_ENDPOINT", "", "S3_ENDPOINT is not set: a fleet keeps clips"),
        ("S3_SECRET_KEY", "minioadmin", "S3_SECRET_KEY is a password that everybody knows"),
        ("MINIO_ROOT_PASSWORD", "minioadmin", "MINIO_ROOT_PASSWORD is a password that everybody knows"),
        ("MINIO_ROOT_PASSWORD", "", "MINIO_ROOT_PASSWORD is empty"),
        ("DAGSTER_POSTGRES_URL", "", "DAGSTER_POSTGRES_URL is not set: expected postgresql\\+psycopg2://user:"),
        ("DAGSTER_POSTGRES_URL", f"postgresql://dagster:{SECRET}@postgres/dagster", "begins with postgresql://"),
        ("DAGSTER_POSTGRES_URL", "postgresql+psycopg2://dagster:postgres@db/dagster", "that everybody knows"),
        ("DAGSTER_POSTGRES_URL", "postgresql+psycopg2://dagster@db:5432/dagster", "in DAGSTER_POSTGRES_URL is empty"),
        ("DAGSTER_POSTGRES_URL", "postgresql+psycopg2://dagster:se/cr@et@db:5432/dagster", "is not an address"),
        ("DAGSTER_POSTGRES_URL", "postgresql+psycopg2://dagster:secret@db:5432", "is not an address"),
    ],
)
def test_what_is_wrong_is_named(environment: pytest.MonkeyPatch, variable: str, value: str, expected: str) -> None:
    environment.setenv(variable, value)
    with pytest.raises(SettingsError, match=expected) as refused:
        check_environment()
    for secret in (SECRET, "minioadmin", "changeme", "se/cr", "dagster:"):
        assert secret not in str(refused.value)


def test_as_a_container_runs_it(environment: pytest.MonkeyPatch) -> None:
    environment.setenv("S3_SECRET_KEY", "minioadmin")
    done = subprocess.run(
        [sys.executable, "-m", "orchestration.fleet.preflight"],
        cwd=REPOSITORY_ROOT,
        env=dict(os.environ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: S3_SECRET_KEY is a password that everybody knows")
    assert "Traceback" not in done.stderr
