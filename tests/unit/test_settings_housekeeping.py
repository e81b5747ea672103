"""Ages and sizes of housekeeping: sensible defaults, fractions, and no negative numbers."""

from datetime import timedelta

import pytest

from libs.errors import SettingsError
from libs.housekeeping.orphans import MINIMUM_AGE
from libs.settings import Settings, load_settings

DEFAULTS = {
    "ARCHIVE_AFTER_DAYS": 90,
    "PRUNE_RUNS_AFTER_DAYS": 90,
    "PRUNE_ARTIFACTS_AFTER_DAYS": 90,
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
    monkeypatch.setenv(name, "2.5")
    assert getattr(load_settings(), name.lower()) == 2.5


@pytest.mark.parametrize("name", DEFAULTS)
@pytest.mark.parametrize("value", ["-1", "soon", "inf", "nan", "1e300"])
def test_a_wrong_value_names_its_variable(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"^{name}: "):
        load_settings()


def test_artifacts_are_kept_for_as_long_as_a_run_may_rely_on_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNE_ARTIFACTS_AFTER_DAYS", "1.9")
    with pytest.raises(SettingsError, match=r"^PRUNE_ARTIFACTS_AFTER_DAYS: .*2"):
        load_settings()
    assert Settings.model_fields["prune_artifacts_after_days"].metadata[0].ge == MINIMUM_AGE / timedelta(days=1)


def test_scratch_of_a_run_in_progress_is_never_too_old(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHUNK_MAX_AGE_DAYS", "0")
    with pytest.raises(SettingsError, match=r"^CHUNK_MAX_AGE_DAYS: .*1"):
        load_settings()
