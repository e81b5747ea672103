"""The local instance's home lies in DATA_DIR and uses the repository's dagster.yaml."""

from pathlib import Path

import pytest
import yaml

from libs.settings import REPOSITORY_ROOT, load_settings
from orchestration.local_instance import prepare_dagster_home


def test_the_home_lies_in_data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.setenv("DAGSTER_HOME", "")
    home = prepare_dagster_home(load_settings())
    assert home == tmp_path / "dagster_home"
    assert (home / "dagster.yaml").resolve() == REPOSITORY_ROOT / "dagster.yaml"
    assert prepare_dagster_home(load_settings()) == home


def test_a_home_already_set_is_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "mine"))
    assert prepare_dagster_home(load_settings()) == tmp_path / "mine"


def test_telemetry_and_nux_are_off() -> None:
    content = yaml.safe_load((REPOSITORY_ROOT / "dagster.yaml").read_text())
    assert content["telemetry"]["enabled"] is False
    assert content["nux"]["enabled"] is False
