"""``make ui``: webserver and daemon on this machine, bound to localhost, on the same state as ``make demo``.

Dagster's UI has no login; put a proxy before it before it leaves localhost. What does not belong here: production.
"""

import os
import socket
import sys
from pathlib import Path
from typing import BinaryIO

from libs.errors import OneToAllError, SettingsError
from libs.settings import REPOSITORY_ROOT, load_settings
from orchestration.local_instance import claim_daemon, prepare_dagster_home

HOST = "127.0.0.1"
PORT = "3000"
LOG_FILE = "ui.log"


def main() -> None:
    """Replace this process by ``dagster dev``; ``DAGSTER_PORT`` chooses another port."""
    port = os.environ.get("DAGSTER_PORT", PORT)
    try:
        settings = load_settings()
        claim_daemon(prepare_dagster_home(settings))
        _require_free(port)
        log = settings.log_dir and _open_log(settings.log_dir)
    except OneToAllError as error:
        sys.exit(f"error: {error}")
    dagster = Path(sys.executable).with_name("dagster")
    workspace = REPOSITORY_ROOT / "workspace.yaml"
    print(f"Dagster UI: http://{HOST}:{port}  (Ctrl-C stops it)", flush=True)
    if log:
        print(f"Its log: {log.name}", flush=True)
        for descriptor in (1, 2):
            os.dup2(log.fileno(), descriptor)
    os.chdir(REPOSITORY_ROOT)
    os.execv(dagster, [str(dagster), "dev", "-w", str(workspace), "-h", HOST, "-p", port])


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
