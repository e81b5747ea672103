"""Passwords that everybody knows are refused for servers that others can reach, and nowhere shown."""

import pytest

from libs.errors import SettingsError
from libs.settings import Settings, load_settings
from libs.settings.default_passwords import KNOWN_PASSWORDS, is_on_this_machine, password_in, why_refused

HERE = [
    "http://localhost:9000",
    "http://127.0.0.1:9000",
    "http://127.8.8.8",
    "http://[::1]:9000",
    "redis:///run/r.sock",
]
ELSEWHERE = [
    "http://minio:9000",
    "https://s3.example.org",
    "http://10.0.0.1:9000",
    "http://0.0.0.0:9000",
    "http://[::2]",
]
GOOD = "b1946ac92492d2347c6235b4d2611184"


@pytest.fixture(autouse=True)
def _empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setitem(Settings.model_config, "env_file", None)


@pytest.mark.parametrize("address", HERE)
@pytest.mark.parametrize("password", ["minioadmin", "", None, "short"])
def test_on_this_machine_every_password_will_do(address: str, password: str | None) -> None:
    assert is_on_this_machine(address)
    assert why_refused(password, address, None) is None


@pytest.mark.parametrize("address", [*ELSEWHERE, "http://[", "http://user:hunter2@\u2100"])
@pytest.mark.parametrize("password", ["minioadmin", "MinioAdmin", "password", "changeme", "", None, "hunter2"])
def test_elsewhere_it_is_refused_with_a_way_out(address: str, password: str | None) -> None:
    reason = why_refused(password, "http://localhost:9000", address)
    assert reason
    assert "openssl rand -hex 24" in reason
    assert "hunter2" not in reason
    assert why_refused(GOOD, address) is None


def test_the_list_is_compared_without_regard_to_case() -> None:
    assert all(password == password.casefold() for password in KNOWN_PASSWORDS)
    assert {"minioadmin", "password", "changeme"} <= KNOWN_PASSWORDS


def test_passwords_are_read_from_addresses() -> None:
    assert password_in("redis://:p%40ss@broker:6379/0") == "p@ss"
    assert password_in("redis://broker:6379/0") is None
    assert password_in("http://[") is None


def s3(monkeypatch: pytest.MonkeyPatch, **changes: str) -> None:
    base = {
        "S3_ENDPOINT": "http://minio:9000",
        "S3_ACCESS_KEY": "one-to-all",
        "S3_SECRET_KEY": GOOD,
        "S3_BUCKET_NAME": "clips",
    }
    for name, value in (base | changes).items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"S3_SECRET_KEY": "minioadmin"}, "S3_SECRET_KEY"),
        (
            {
                "S3_SECRET_KEY": "minioadmin",
                "S3_ENDPOINT": "http://127.0.0.1:9000",
                "S3_PUBLIC_ENDPOINT": "http://media.example.org",
            },
            "S3_SECRET_KEY",
        ),
        ({"MINIO_ROOT_USER": "root", "MINIO_ROOT_PASSWORD": "changeme"}, "MINIO_ROOT_PASSWORD"),
        ({"MINIO_ROOT_USER": "root"}, "MINIO_ROOT_PASSWORD is empty"),
        ({"REDIS_URL": "redis://broker:6379/0"}, "REDIS_URL is empty"),
        ({"REDIS_URL": "redis://:redis@broker:6379/0"}, "REDIS_URL is a password that everybody knows"),
    ],
)
def test_settings_refuse_them_and_name_the_variable(
    monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], named: str
) -> None:
    s3(monkeypatch)
    load_settings()
    s3(monkeypatch, **changes)
    with pytest.raises(SettingsError, match=named) as refused:
        load_settings()
    assert "minioadmin" not in str(refused.value)
    assert "changeme" not in str(refused.value)


def test_settings_accept_them_on_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    s3(
        monkeypatch,
        S3_ENDPOINT="http://localhost:9000",
        S3_SECRET_KEY="minioadmin",
        S3_PUBLIC_ENDPOINT="http://127.0.0.1:9000",
        MINIO_ROOT_USER="minioadmin",
        MINIO_ROOT_PASSWORD="minioadmin",
        REDIS_URL="redis://127.0.0.1:6379/0",
    )
    assert load_settings().uses_s3
