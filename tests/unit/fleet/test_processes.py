"""Processes of a local fleet leave nothing behind; workers see the GPUs they should."""

import sys
import time
from pathlib import Path

import pytest

from orchestration.fleet.local import processes
from orchestration.fleet.local.processes import Process
from orchestration.fleet.worker import visible_devices
from tests.waiting import is_running, wait_until

PARENT = """
import subprocess, sys, time
print(sys.stdin.read())
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1800)"])
print(child.pid, flush=True)
{rest}
"""
TALKER = """
import itertools, time
for number in itertools.count():
    print(number, "a line of a log", flush=True)
    time.sleep(0.0005)
"""
IGNORE_SIGTERM = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(1800)"


def start(folder: Path, rest: str) -> tuple[Process, int]:
    process = Process("parent", [sys.executable, "-c", PARENT.format(rest=rest)], {}, folder / "log", stdin="hello")
    process.stop_seconds = 1.0
    process.start()
    wait_until("it tells its child", lambda: len(process.last_lines().split()) == 2, pause=0.02)
    lines = process.last_lines().split()
    assert lines[0] == "hello"
    return process, int(lines[1])


@pytest.mark.parametrize("rest", ["time.sleep(1800)", IGNORE_SIGTERM, ""], ids=["obeys", "ignores", "has ended"])
def test_stop_ends_a_process_and_what_it_started(tmp_path: Path, rest: str) -> None:
    process, child = start(tmp_path, rest)
    process.stop()
    assert not process.is_running()
    wait_until("no orphan is left", lambda: not is_running(child), pause=0.02)
    process.stop()  # once more does no harm


def test_what_ended_is_started_again_after_a_pause(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "RESTART_PAUSE_SECONDS", 0.2)
    process, _child = start(tmp_path, "")
    first = process.pid
    while process.is_running():
        time.sleep(0.01)
    assert not process.restart_if_ended(), "not at once"
    time.sleep(0.25)
    assert process.restart_if_ended()
    assert process.pid != first
    process.stop()


def test_a_process_that_was_never_started_can_be_stopped(tmp_path: Path) -> None:
    process = Process("never", ["true"], {}, tmp_path / "log")
    process.stop()
    process.kill_group()
    assert not process.is_running()


@pytest.mark.parametrize(
    ("queue", "gpu", "devices"),
    [("gpu", "3", "3"), ("gpu", None, None), ("cpu", None, ""), ("cpu", "0", "0"), ("gpu-80gb", None, None)],
)
def test_the_gpus_a_worker_sees(queue: str, gpu: str | None, devices: str | None) -> None:
    assert visible_devices(queue, gpu) == devices


def test_a_process_may_say_that_it_is_not_to_be_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processes, "RESTART_PAUSE_SECONDS", 0.0)
    for status, again in ((3, False), (0, True), (1, True)):
        command = [sys.executable, "-c", f"import sys; sys.exit({status})"]
        process = Process("worker", command, {}, tmp_path / "log", last_status=3)
        process.start()
        while process.is_running():
            time.sleep(0.01)
        assert process.restart_if_ended() is again
        process.stop()
        assert not process.restart_if_ended() or again


def test_a_log_that_grows_is_rotated_while_its_process_writes_on(tmp_path: Path) -> None:
    process = Process("daemon", [sys.executable, "-c", TALKER], {}, tmp_path / "daemon.log")
    process.start()
    try:
        for _ in range(5):
            wait_until("it writes on", lambda: process.rotate_log(most_bytes=2000, kept=2), pause=0.01)
        wait_until("a line follows", lambda: (tmp_path / "daemon.log").read_text().endswith("\n"), pause=0.01)
    finally:
        process.stop()
    assert {path.name for path in tmp_path.iterdir()} == {"daemon.log", "daemon.log.1", "daemon.log.2"}
    assert b"\0" not in (tmp_path / "daemon.log").read_bytes(), "no hole at its beginning"
    begins = [int(path.read_text().split(maxsplit=1)[0]) for path in sorted(tmp_path.iterdir(), reverse=True)]
    assert begins == sorted(set(begins)), "each was emptied before the next one begins"
