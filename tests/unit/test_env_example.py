"""``.env.example`` lists every setting, explains it, and changes nothing when it is copied as it is."""

import re

import pytest

from libs.settings import REPOSITORY_ROOT, Settings
from libs.settings.kubernetes import KubernetesSettings
from libs.settings.studio import StudioSettings

EXAMPLE = REPOSITORY_ROOT / ".env.example"
_SETTING = re.compile(r"^(# )?([A-Z][A-Z0-9_]*)=")


def _names() -> list[str]:
    return [found.group(2) for line in EXAMPLE.read_text().splitlines() if (found := _SETTING.match(line))]


def test_it_lists_exactly_the_settings_there_are() -> None:
    settings = [*Settings.model_fields, *KubernetesSettings.model_fields, *StudioSettings.model_fields]
    assert sorted(_names()) == sorted(name.upper() for name in settings)


def test_every_setting_has_a_comment() -> None:
    """Behind it, or above the block it stands in."""
    for block in EXAMPLE.read_text().split("\n\n"):
        lines = block.strip().splitlines()
        explained = lines[0].startswith("# ") and not _SETTING.match(lines[0])
        bare = [line for line in lines if _SETTING.match(line) and not re.search(r"\S\s{2,}# \w", line)]
        assert explained or not bare, f"no comment: {bare}"


def test_a_copy_of_it_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _names():
        monkeypatch.delenv(name, raising=False)
    assert Settings(_env_file=EXAMPLE) == Settings(_env_file=None)
