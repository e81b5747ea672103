"""``make ui``: studio, webserver and daemon on this machine, bound to localhost, on the same state as ``make demo``.

Dagster's UI has no login: put a proxy with one before it, before it leaves localhost. Ctrl-C, SIGTERM and the
terminal's end stop it in the same way: a run in progress is interrupted and noted as failed, its finished chunks stay.
"""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import IO, BinaryIO

import psutil

from libs.errors import OneToAllError, SettingsError
from libs.settings import REPOSITORY_ROOT, load_settings
from libs.settings.studio import load_studio_settings
from orchestration.fleet.gpus.gpu_environment import prepare_gpu_environment
from orchestration.laptop.instance import (
    claim_daemon,
    create_databases,
    prepare_dagster_home,
    require_checkout,
)
from orchestration.laptop.quiet_output import quiet_lines

HOST = "127.0.0.1"
PORT = "3000"
LOG_FILE = "ui.log"

STOP_SECONDS = 15.0
"""How long a run that was interrupted has to note its end, once ``dagster dev`` is gone."""


def main() -> None:
    """Run ``dagster dev`` until it ends, the studio beside it; ``DAGSTER_PORT`` chooses another port."""
    port = os.environ.get("DAGSTER_PORT", PORT)
    try:
        require_checkout()
        settings = load_settings()
        studio = load_studio_settings()
        claim = claim_daemon(prepare_dagster_home(settings))
        _require_free(port)
        create_databases()
        log = _open_log(settings.log_dir) if settings.log_dir else None
    except OneToAllError as error:
        sys.exit(f"error: {error}")
    prepare_gpu_environment(os.environ, settings.data_dir)
    dagster = Path(sys.executable).with_name("dagster")
    workspace = REPOSITORY_ROOT / "workspace.yaml"
    with_studio = studio.studio_port != 0
    if with_studio:
        print(f"Studio, to make clips: {studio.address}", flush=True)
        os.environ.setdefault("STUDIO_DAGSTER_URL", f"http://{HOST}:{port}")
    print(f"Dagster UI: http://{HOST}:{port}  (Ctrl-C stops it)", flush=True)
    if log:
        print(f"Its log: {log.name}", flush=True)
    command = [str(dagster), "dev", "-w", str(workspace), "-h", HOST, "-p", port]
    sys.exit(_run(command, log, claim, with_studio=with_studio))


def _run(command: list[str], log: BinaryIO | None, claim: int, *, with_studio: bool) -> int:
    """Run ``command``, its output in ``log`` or, without what is idle, on this terminal; returns its exit status.

    It leads a process group of its own. An interrupt, a termination or the terminal's end interrupts the whole group:
    webserver, daemon, code server, and the process of a run in progress, which Dagster then notes as failed.
    """
    process: subprocess.Popen[bytes] | None = None
    studio: subprocess.Popen[bytes] | None = None
    stopping = threading.Event()

    def interrupt(*_: object) -> None:
        stopping.set()
        if studio is not None:
            studio.terminate()
        if process is not None:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGINT)

    # Set before the start: a program started in the background would inherit interrupts as ignored.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY_ROOT,
        stdout=log or subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=[claim],  # ``dagster dev`` holds the claim, even if this process is killed
        process_group=0,
    )
    if with_studio:
        studio = _start_studio(log)
    if stopping.is_set():
        interrupt()
    # In a thread: the pipe stays open as long as a run's process does.
    printing = threading.Thread(target=_print_lines, args=(process.stdout,), daemon=True)
    printing.start()
    status = process.wait()
    if studio is not None:
        _end(studio)
    if going_on := _wait_for_group(process.pid):
        print(
            f"A run has not ended yet and goes on by itself: process {', '.join(map(str, going_on))}",
            flush=True,
        )
    else:
        printing.join(STOP_SECONDS)
    return status


def _start_studio(log: BinaryIO | None) -> "subprocess.Popen[bytes]":
    """The studio, in a process of its own; where it cannot start it says why, and everything else goes on."""
    return subprocess.Popen(
        [sys.executable, "-m", "orchestration.studio", "--quiet"],
        cwd=REPOSITORY_ROOT,
        stdout=log,
        stderr=subprocess.STDOUT if log else None,
        process_group=0,
    )


def _end(studio: "subprocess.Popen[bytes]") -> None:
    studio.terminate()
    try:
        studio.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        studio.kill()
        studio.wait()


def _print_lines(output: IO[bytes] | None) -> None:
    if output is not None:
        decoded = (line.decode("utf-8", "replace") for line in output)
        for line in quiet_lines(decoded):
            print(line, end="", flush=True)


def _wait_for_group(group: int) -> list[int]:
    """The processes of ``group`` that are left after ``STOP_SECONDS``; interrupted runs note their end meanwhile."""
    deadline = time.monotonic() + STOP_SECONDS
    while (left := _members(group)) and time.monotonic() < deadline:
        time.sleep(0.1)
    return left


def _members(group: int) -> list[int]:
    """The living processes of a group."""
    members = []
    for process in psutil.process_iter():
        with suppress(ProcessLookupError, psutil.Error):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                members.append(process.pid)
    return members


def _open_log(folder: Path) -> BinaryIO:
    """The file below LOG_DIR that takes the output, to append to.

    Raises:
        SettingsError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return (folder / LOG_FILE).open("ab")
    except OSError as error:
        raise SettingsError(f"LOG_DIR={folder} cannot be written: {error.strerror}") from None


def _require_free(port: str) -> None:
    """``dagster dev`` goes on with a daemon and no webserver where the port is taken.

    Raises:
        SettingsError: it is, or is no port.
    """
    with socket.socket() as listener:
        # As the webserver does: one that was just stopped is no hindrance.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((HOST, int(port)))
        except (ValueError, OverflowError):
            raise SettingsError(f"DAGSTER_PORT={port} is not a port: expected a number from 1 to 65535") from None
        except OSError as error:
            raise SettingsError(
                f"port {port} cannot be used ({error.strerror}): try `DAGSTER_PORT=3001 make ui`"
            ) from None


if __name__ == "__main__":
    main()
