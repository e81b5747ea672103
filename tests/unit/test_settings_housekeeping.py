"""Ages and sizes of housekeeping: sensible defaults, fractions, and no negative numbers."""

import pytest

from libs.errors import SettingsError
from libs.settings import Settings, load_settings

DEFAULTS = {
    "ARCHIVE_AFTER_DAYS": 90,
    "PRUNE_RUNS_AFTER_DAYS": 90,
    "CHUNK_MAX_AGE_DAYS": 7,
    "ARTIFACT_CACHE_MAX_GB": 100,
}


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in DEFAULTS:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setitem(Settings.model_config, "env_file", None)


@pytest.mark.parametrize(("name", "default"), DEFAULTS.items())
def test_each_has_a_default_and_takes_fractions(monkeypatch: pytest.MonkeyPatch, name: str, default: float) -> None:
    assert getattr(load_settings(), name.lower()) == default
    monkeypatch.setenv(name, "0.5")
    assert getattr(load_settings(), name.lower()) == 0.5


@pytest.mark.parametrize("name", DEFAULTS)
@pytest.mark.parametrize("value", ["-1", "soon"])
def test_a_wrong_value_names_its_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{name}: "):
        load_settings()
