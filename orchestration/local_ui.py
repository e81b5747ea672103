"""``make ui``: webserver and daemon on this machine, bound to localhost, on the same state as ``make demo``.

Dagster's UI has no login; put a proxy before it before it leaves localhost. What does not belong here: production.
"""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from libs.errors import OneToAllError, SettingsError
from libs.settings import REPOSITORY_ROOT, load_settings
from orchestration.laptop.instance import claim_daemon, prepare_dagster_home, require_checkout
from orchestration.laptop.quiet_output import quiet_lines

HOST = "127.0.0.1"
PORT = "3000"
LOG_FILE = "ui.log"


def main() -> None:
    """Run ``dagster dev`` until it ends; ``DAGSTER_PORT`` chooses another port."""
    port = os.environ.get("DAGSTER_PORT", PORT)
    try:
        require_checkout()
        settings = load_settings()
        claim = claim_daemon(prepare_dagster_home(settings))
        _require_free(port)
        log = _open_log(settings.log_dir) if settings.log_dir else None
    except OneToAllError as error:
        sys.exit(f"error: {error}")
    dagster = Path(sys.executable).with_name("dagster")
    workspace = REPOSITORY_ROOT / "workspace.yaml"
    print(f"Dagster UI: http://{HOST}:{port}  (Ctrl-C stops it)", flush=True)
    if log:
        print(f"Its log: {log.name}", flush=True)
    command = [str(dagster), "dev", "-w", str(workspace), "-h", HOST, "-p", port]
    sys.exit(_run(command, log, claim))


def _run(command: list[str], log: BinaryIO | None, claim: int) -> int:
    """Run ``command``, its output in ``log`` or, without what is idle, on this terminal; returns its exit status.

    An interrupt reaches it by itself, as a member of the terminal's process group; a termination is passed on.
    """
    # Dagster treats terminations as interrupts, which a program started in the background would inherit as ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY_ROOT,
        stdout=log or subprocess.PIPE,
        stderr=subprocess.STDOUT,
        pass_fds=[claim],  # the daemon holds the claim, even if this process is killed
    )

    def pass_on(number: int, _: FrameType | None) -> None:
        process.send_signal(number)

    signal.signal(signal.SIGTERM, pass_on)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if process.stdout:
        decoded = (line.decode("utf-8", "replace") for line in process.stdout)
        for line in quiet_lines(decoded):
            print(line, end="", flush=True)
    return process.wait()


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
            raise SettingsError(f"DAGSTER_PORT={port} is no port: a number from 1 to 65535") from None
        except OSError as error:
            raise SettingsError(
                f"port {port} cannot be used ({error.strerror}): try `DAGSTER_PORT=3001 make ui`"
            ) from None


if __name__ == "__main__":
    main()
