"""The steps of a process share one S3 client for as long as its settings stay the same."""

from secrets import token_hex

import boto3.session
import pytest

from libs.settings import get_settings
from libs.storage.backends import client
from orchestration.storage.resources import SettingsResource, StorageResource

SETTINGS = {
    "S3_ENDPOINT": "http://127.0.0.1:9",
    "S3_PUBLIC_ENDPOINT": "http://127.0.0.1:9",
    "S3_ACCESS_KEY": "somebody-here",
    "S3_BUCKET_NAME": "bucket",
}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each client that is made."""
    entries: list[str] = []
    make = boto3.session.Session.client

    def noted(session: boto3.session.Session, service: str, **options: object) -> object:
        entries.append(service)
        return make(session, service, **options)

    for name, value in SETTINGS.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("S3_SECRET_KEY", token_hex())  # no other test has a client for it
    get_settings.cache_clear()
    monkeypatch.setattr(boto3.session.Session, "client", noted)
    return entries


def use(storage: StorageResource) -> None:
    """As the steps of a clip do."""
    storage.artifacts()
    storage.previews()
    storage.address("animation/anna/clip.mp4")


def test_one_client_serves_all_steps_until_the_settings_change(
    made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = StorageResource(settings=SettingsResource())
    use(storage)
    use(StorageResource(settings=SettingsResource()))
    assert made == ["s3"]
    monkeypatch.setenv("S3_SECRET_KEY", token_hex())
    use(storage)
    assert made == ["s3", "s3"]


def test_a_client_that_was_idle_for_long_is_replaced(made: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    storage = StorageResource(settings=SettingsResource())
    storage.objects()
    monkeypatch.setattr(client, "IDLE_SECONDS", -1.0)
    storage.objects()
    assert made == ["s3", "s3"]
