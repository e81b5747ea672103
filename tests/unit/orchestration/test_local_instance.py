"""The local instance: its home lies in DATA_DIR and uses the repository's dagster.yaml; one daemon at a time."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from libs.errors import SettingsError
from libs.settings import REPOSITORY_ROOT, load_settings
from orchestration.local_instance import claim_daemon, prepare_dagster_home


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


def test_killed_runs_are_retried_as_on_a_fleet_and_failed_ones_are_not() -> None:
    local, fleet = (
        yaml.safe_load((REPOSITORY_ROOT / name).read_text()) for name in ("dagster.yaml", "infra/dagster.prod.yaml")
    )
    assert local["run_retries"] == fleet["run_retries"]
    assert local["run_retries"]["retry_on_asset_or_op_failure"] is False


def test_one_daemon_works_on_a_database(tmp_path: Path) -> None:
    becomes_another = (
        "import os, sys; from pathlib import Path; from orchestration.local_instance import claim_daemon;"
        "claim_daemon(Path(sys.argv[1])); os.execvp('sh', ['sh', '-c', 'echo ready; read wait'])"
    )
    command = [sys.executable, "-c", becomes_another, str(tmp_path)]
    with subprocess.Popen(
        command, cwd=REPOSITORY_ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout and other.stdout.readline() == "ready\n"
        with pytest.raises(SettingsError, match="runs already"):
            claim_daemon(tmp_path)
        other.communicate("\n")
    os.close(claim_daemon(tmp_path))


@pytest.mark.parametrize("port", ["taken", "0x", "70000"])
def test_the_ui_says_that_it_cannot_have_its_port(port: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        environment = {
            **os.environ,
            "DATA_DIR": str(tmp_path),
            "DAGSTER_HOME": "",
            "DAGSTER_PORT": str(taken.getsockname()[1]) if port == "taken" else port,
        }
        command = [sys.executable, "-m", "orchestration.local_ui"]
        done = subprocess.run(
            command, cwd=REPOSITORY_ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
        )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert ("DAGSTER_PORT=3001 make ui" if port == "taken" else "is no port") in done.stderr


def test_log_dir_takes_the_output_of_the_ui(tmp_path: Path) -> None:
    stand_in = "import os; os.execv = lambda *_: (os.write(1, b'of dagster'), os._exit(0));"
    command = [sys.executable, "-c", f"{stand_in} from orchestration.local_ui import main; main()"]
    environment = {**os.environ, "DATA_DIR": str(tmp_path), "DAGSTER_HOME": "", "DAGSTER_PORT": "0"}
    environment["LOG_DIR"] = str(tmp_path / "logs")
    done = subprocess.run(
        command, cwd=REPOSITORY_ROOT, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    log = tmp_path / "logs" / "ui.log"
    assert (done.returncode, log.read_text()) == (0, "of dagster"), done.stderr
    assert f"Its log: {log}" in done.stdout
