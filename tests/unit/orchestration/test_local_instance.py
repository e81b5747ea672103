"""The local instance: its home lies in DATA_DIR and uses the repository's dagster.yaml; one daemon at a time."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import yaml

from libs.errors import SettingsError
from libs.settings import REPOSITORY_ROOT, load_settings
from orchestration import demo, local_ui
from orchestration.crashes import RUN_RETRIES
from orchestration.laptop.instance import claim_daemon, prepare_dagster_home
from tests.waiting import HANG_SECONDS


def test_the_home_lies_in_data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    monkeypatch.setenv("DAGSTER_HOME", "")
    home = prepare_dagster_home(load_settings())
    assert home == tmp_path / "dagster_home"
    assert (home / "dagster.yaml").resolve() == REPOSITORY_ROOT / "dagster.yaml"
    assert prepare_dagster_home(load_settings()) == home


def test_a_home_already_set_is_respected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine").mkdir()
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "mine"))
    assert prepare_dagster_home(load_settings()) == tmp_path / "mine"
    assert list((tmp_path / "mine").iterdir()) == []


def test_a_home_that_is_set_and_not_there_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DAGSTER_HOME", "data/dagster_home")  # as the page on the first clip has it set, data/ removed
    home = prepare_dagster_home(load_settings())
    assert home == tmp_path / "data/dagster_home"
    assert os.environ["DAGSTER_HOME"] == str(home), "Dagster takes no relative one"
    assert (home / "dagster.yaml").read_text() == (REPOSITORY_ROOT / "dagster.yaml").read_text()


def test_telemetry_and_nux_are_off() -> None:
    content = yaml.safe_load((REPOSITORY_ROOT / "dagster.yaml").read_text())
    assert content["telemetry"]["enabled"] is False
    assert content["nux"]["enabled"] is False


def test_killed_runs_are_retried_as_on_a_fleet_and_failed_ones_are_not() -> None:
    local, fleet = (
        yaml.safe_load((REPOSITORY_ROOT / name).read_text()) for name in ("dagster.yaml", "infra/dagster.prod.yaml")
    )
    assert local["run_retries"] == fleet["run_retries"] == RUN_RETRIES


def test_one_daemon_works_on_a_database(tmp_path: Path) -> None:
    becomes_another = (
        "import os, sys; from pathlib import Path; from orchestration.laptop.instance import claim_daemon;"
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


def run_module(module: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module]
    return subprocess.run(command, cwd=REPOSITORY_ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("port", ["taken", "0x", "70000"])
def test_the_ui_says_that_it_cannot_have_its_port(port: str, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        environment = {
            **os.environ,
            "DATA_DIR": str(tmp_path),
            "DAGSTER_HOME": "",
            "DAGSTER_PORT": str(taken.getsockname()[1]) if port == "taken" else port,
        }
        done = run_module("orchestration.local_ui", environment)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert ("DAGSTER_PORT=3001 make ui" if port == "taken" else "is not a port") in done.stderr


@pytest.mark.parametrize("module", ["orchestration.local_ui", "orchestration.demo"])
def test_a_data_dir_that_cannot_be_written_is_one_line(module: str) -> None:
    if not Path("/sys").is_dir():
        pytest.skip("no folder here that even root may not write to")
    environment = {**os.environ, "DATA_DIR": "/sys/one-to-all", "DAGSTER_HOME": "", "DAGSTER_PORT": "0"}
    done = run_module(module, environment)
    assert done.returncode == 1
    assert done.stderr.startswith("error: /sys/one-to-all/dagster_home cannot be written (")
    assert "DATA_DIR" in done.stderr
    assert done.stderr.count("\n") == 1


STAND_IN = """#!{python}
import os, signal, subprocess, sys, time
def end(number, frame):
    print("told to end", flush=True)
    sys.exit(7)
signal.signal(signal.SIGINT, end)
if "RUN" in os.environ:
    subprocess.Popen([sys.executable, "-c", os.environ["RUN"]])
print("2026-11-30 05:48:14 +0000 - dagster.daemon.SensorDaemon - INFO - Checking for new runs for sensor: inbox_sensor")
print("of dagster", flush=True)
time.sleep(float(os.environ["STAND_IN_SECONDS"]))
"""


@pytest.fixture
def run_ui(tmp_path: Path) -> Callable[..., subprocess.Popen[str]]:
    """Starts the UI's module with a stand-in for the program ``dagster``."""
    program = tmp_path / "bin" / "dagster"
    program.parent.mkdir()
    program.write_text(STAND_IN.format(python=sys.executable))
    program.chmod(0o755)
    code = (
        f"import sys; sys.executable = {str(program.with_name('python'))!r};"
        "from orchestration import local_ui as ui; ui.STOP_SECONDS = float(sys.argv[1]); ui.main()"
    )

    ports = {"DAGSTER_PORT": "0", "STUDIO_PORT": "0"}  # without a studio, which no stand-in takes the place of

    def run(stop_seconds: float = HANG_SECONDS, **environment: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", code, str(stop_seconds)],
            cwd=REPOSITORY_ROOT,
            env={**os.environ, **ports, "DATA_DIR": str(tmp_path), "DAGSTER_HOME": "", **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return run


def test_log_dir_takes_all_output_of_the_ui(run_ui: Callable[..., subprocess.Popen[str]], tmp_path: Path) -> None:
    ui = run_ui(LOG_DIR=str(tmp_path / "logs"), STAND_IN_SECONDS="0")
    output, errors = ui.communicate(timeout=HANG_SECONDS)
    log = tmp_path / "logs" / "ui.log"
    assert ui.returncode == 0, errors
    assert [line.endswith("inbox_sensor") for line in log.read_text().splitlines()] == [True, False]
    assert f"Its log: {log}" in output
    for database in ("schedules/schedules.db", "history/runs.db", "history/runs/index.db"):
        with closing(sqlite3.connect(tmp_path / "dagster_home" / database)) as connection:
            heads = connection.execute("select count(*) from alembic_version").fetchone()
        assert heads == (1,), "created before several processes would do so"


def test_a_terminated_ui_ends_what_it_started(run_ui: Callable[..., subprocess.Popen[str]]) -> None:
    ui = run_ui(STAND_IN_SECONDS="600")
    assert ui.stdout is not None
    assert ui.stdout.readline().startswith("Dagster UI: http://")
    assert ui.stdout.readline() == "of dagster\n"  # and not that a sensor had nothing to do
    ui.terminate()
    assert ui.communicate(timeout=HANG_SECONDS)[0] == "told to end\n"
    assert ui.returncode == 7


INTERRUPTED_RUN = """
import signal, sys, time
def end(number, frame):
    time.sleep(0.5)
    print("the run notes that it failed", flush=True)
    sys.exit()
signal.signal(signal.SIGINT, end)
print("a run goes on", flush=True)
time.sleep(600)
"""
STUBBORN_RUN = """
import os, signal, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
print("a run goes on", os.getpid(), flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_stopped_ui_lets_a_run_note_its_end_and_frees_the_database(
    run_ui: Callable[..., subprocess.Popen[str]], tmp_path: Path, number: signal.Signals
) -> None:
    ui = run_ui(STAND_IN_SECONDS="600", RUN=INTERRUPTED_RUN)
    assert ui.stdout is not None
    while ui.stdout.readline() != "a run goes on\n":
        assert ui.poll() is None
    ui.send_signal(number)
    output = ui.communicate(timeout=HANG_SECONDS)[0]
    assert "told to end" in output
    assert output.endswith("the run notes that it failed\n")
    os.close(claim_daemon(tmp_path / "dagster_home"))


@pytest.mark.parametrize("has_log", [False, True])
def test_a_stopped_ui_does_not_wait_for_a_run_that_does_not_end(
    run_ui: Callable[..., subprocess.Popen[str]], tmp_path: Path, has_log: bool
) -> None:
    log = {"LOG_DIR": str(tmp_path / "logs")} if has_log else {}
    ui = run_ui(stop_seconds=0.5, STAND_IN_SECONDS="600", RUN=STUBBORN_RUN, **log)
    assert ui.stdout is not None
    lines = iter(ui.stdout.readline, "")
    if has_log:
        lines = lines_of_growing_file(tmp_path / "logs" / "ui.log")
    run = next(int(line.split()[-1]) for line in lines if line.startswith("a run goes on"))
    try:
        ui.terminate()
        assert ui.wait(HANG_SECONDS) == 7
        os.close(claim_daemon(tmp_path / "dagster_home"))
        assert psutil.pid_exists(run)
        assert f"goes on by itself: process {run}\n" in "".join(ui.stdout)
    finally:
        os.kill(run, signal.SIGKILL)
        ui.communicate()


def lines_of_growing_file(path: Path) -> Iterator[str]:
    """The lines of a file that another process writes, as they come."""
    deadline = time.monotonic() + HANG_SECONDS
    while time.monotonic() < deadline:
        yield from path.read_text().splitlines() if path.exists() else []
        time.sleep(0.1)


@pytest.mark.parametrize("main", [local_ui.main, demo.main], ids=["make ui", "make demo"])
def test_an_installed_package_says_what_to_do(
    main: Callable[[], int | None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both programs that need files of the repository ask for them before they do anything."""
    monkeypatch.setattr("orchestration.laptop.instance.is_checkout", lambda: False)
    monkeypatch.setattr(sys, "argv", ["make"])
    try:
        said = f"status {main()}"
    except SystemExit as error:
        said = str(error.code)
    assert "clone the repository and run `make demo` there" in said + capsys.readouterr().err
    assert said != "status 0"
