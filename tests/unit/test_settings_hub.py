"""Settings of the model hub."""

from pathlib import Path

import pytest

from libs.errors import SettingsError
from libs.settings import Settings, load_settings


def test_modelscope_is_the_default() -> None:
    settings = Settings(_env_file=None)
    assert settings.model_hub == "modelscope"
    assert settings.model_hub_endpoint is None


def test_all_are_read_from_the_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(Settings.model_config, "env_file", None)
    monkeypatch.setenv("MODEL_HUB", "huggingface")
    monkeypatch.setenv("MODEL_HUB_ENDPOINT", "https://mirror.example/")
    monkeypatch.setenv("MODEL_HUB_TOKEN", "very-secret")
    monkeypatch.setenv("MODEL_HUB_REVISION", "v1")
    settings = load_settings()
    assert settings.model_hub == "huggingface"
    assert settings.model_hub_endpoint == "https://mirror.example"
    assert settings.model_hub_revision == "v1"
    assert settings.model_hub_token is not None
    assert settings.model_hub_token.get_secret_value() == "very-secret"
    assert "very-secret" not in repr(settings)


@pytest.mark.parametrize(("name", "value"), [("MODEL_HUB", "github"), ("MODEL_HUB_ENDPOINT", "mirror.example")])
def test_a_wrong_value_names_the_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setitem(Settings.model_config, "env_file", None)
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=name):
        load_settings()
