"""``make ui`` as a process of its own, on a test's state and a free port."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import requests

from libs.settings import REPOSITORY_ROOT
from tests.waiting import HANG_SECONDS


@contextmanager
def running_ui(log: Path) -> Iterator[str]:
    """The address of webserver, daemon and code server, which end with the block; they write to ``log``.

    Raises:
        RuntimeError: they did not start; with the end of ``log``.
    """
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = int(listener.getsockname()[1])
    address = f"http://127.0.0.1:{port}"
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "orchestration.local_ui"],
            cwd=REPOSITORY_ROOT,
            env={"STUDIO_PORT": "0", **os.environ, "DAGSTER_PORT": str(port)},  # a studio where a test wants one
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            deadline = time.monotonic() + HANG_SECONDS
            while not _is_up(address):
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"the UI did not start:\n{log.read_text()[-3000:]}")
                time.sleep(0.5)
            yield address
        finally:
            process.terminate()
            try:
                process.wait(HANG_SECONDS)
            except subprocess.TimeoutExpired:
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
                process.kill()
                process.wait()


def _is_up(address: str) -> bool:
    try:
        return requests.get(f"{address}/server_info", timeout=10).ok
    except requests.RequestException:
        return False
