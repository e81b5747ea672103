"""The settings resource: as the environment and ``.env`` are now, without reading them again for nothing."""

from pathlib import Path

import pytest

from libs.errors import SettingsError
from libs.settings import Settings
from orchestration import resources
from orchestration.resources import SettingsResource


@pytest.fixture
def dotenv(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(Settings.model_config, "env_file", tmp_path / ".env")
    monkeypatch.delenv("S3_PREFIX", raising=False)
    return tmp_path / ".env"


def test_a_change_of_the_environment_or_the_file_counts_at_once(dotenv: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def prefix() -> str:
        return SettingsResource().load().s3_prefix

    before = prefix()
    dotenv.write_text("S3_PREFIX=one\n")
    assert prefix() == "one"
    dotenv.write_text("S3_PREFIX=two\n")  # as long as before
    assert prefix() == "two"
    dotenv.with_suffix(".new").write_text("S3_PREFIX=six\n")
    dotenv.with_suffix(".new").replace(dotenv)
    assert prefix() == "six"
    monkeypatch.setenv("S3_PREFIX", "environment")
    assert prefix() == "environment"
    monkeypatch.delenv("S3_PREFIX")
    dotenv.unlink()
    assert prefix() == before


def test_without_a_change_nothing_is_read_again_and_an_error_is_not_kept(
    dotenv: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SettingsResource().load()
    assert SettingsResource().load() is settings
    reads = []
    read = resources.load_settings
    monkeypatch.setattr(resources, "load_settings", lambda: reads.append(1) or read())
    monkeypatch.setenv("ONE_TO_ALL_DEVICE", "toaster")
    for _ in range(2):
        with pytest.raises(SettingsError, match="ONE_TO_ALL_DEVICE"):
            SettingsResource().load()
    assert len(reads) == 2
