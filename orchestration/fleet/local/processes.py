"""The processes of a local fleet: start, log, restart and stop, so that none is left behind.

Each process leads a session of its own: Ctrl-C in the terminal reaches only the fleet, which stops the others in order.
See ``orchestration.fleet.local_fleet`` for which processes there are.
"""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

RESTART_PAUSE_SECONDS = 2.0

LOG_BYTES = 20_000_000
LOGS_KEPT = 4
"""A log that is longer becomes ``NAME.log.1``, the one before ``NAME.log.2``, and so on: at most 100 MB a process."""


@dataclass
class Process:
    """One long-lived process and its log file; ``stdin`` is a text it reads at start, e.g. with a password."""

    name: str
    command: Sequence[str | Path]
    environment: Mapping[str, str]
    log: Path
    stdin: str = ""
    stop_seconds: float = 30.0
    last_status: int | None = None
    """The exit status that says: do not start me again."""
    running: subprocess.Popen[bytes] | None = field(default=None, init=False)
    ended_at: float | None = field(default=None, init=False)

    @property
    def pid(self) -> int:
        """The process id; -1 before the first start."""
        return self.running.pid if self.running else -1

    def start(self) -> None:
        """Start it, appending to its log."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        with self.log.open("ab") as log:
            self.running = subprocess.Popen(
                [str(part) for part in self.command],
                env={**os.environ, **self.environment},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        assert self.running.stdin is not None
        self.running.stdin.write(self.stdin.encode())
        self.running.stdin.close()
        self.ended_at = None

    def is_running(self) -> bool:
        """True while the process lives.

        An ended process is not reaped before its session is cleared: until then its id cannot become another's.
        """
        if self.running is None or self.running.returncode is not None:
            return False
        return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None

    def restart_if_ended(self) -> bool:
        """Start it again, ``RESTART_PAUSE_SECONDS`` after its end; True if it was started now."""
        if self.is_running() or self._wants_to_stay_ended():
            return False
        if self.ended_at is None:
            self.ended_at = time.monotonic()
        if time.monotonic() - self.ended_at < RESTART_PAUSE_SECONDS:
            return False
        self.kill_group()
        self.start()
        return True

    def _wants_to_stay_ended(self) -> bool:
        if self.last_status is None or self.running is None:
            return False
        if self.running.returncode is None:
            ended = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            return ended is not None and (ended.si_code, ended.si_status) == (os.CLD_EXITED, self.last_status)
        return self.running.returncode == self.last_status

    def rotate_log(self, most_bytes: int = LOG_BYTES, kept: int = LOGS_KEPT) -> bool:
        """Keep the log short; True if it was too long.

        The process goes on writing to the same file, which is copied and emptied: what it writes in between is lost.
        """
        if not self.log.exists() or self.log.stat().st_size <= most_bytes:
            return False
        older = [self.log.with_name(f"{self.log.name}.{number}") for number in range(1, kept + 1)]
        for older_one, newer in reversed(list(zip(older[1:], older[:-1], strict=True))):
            if newer.exists():
                newer.replace(older_one)
        shutil.copyfile(self.log, older[0])
        os.truncate(self.log, 0)
        return True

    def ask_to_stop(self) -> None:
        """Send SIGTERM; returns at once."""
        if self.is_running():
            os.kill(self.pid, signal.SIGTERM)

    def stop(self) -> None:
        """SIGTERM, then, after ``stop_seconds`` or once it has ended, SIGKILL to whatever is left of its session."""
        self.ask_to_stop()
        deadline = time.monotonic() + self.stop_seconds
        while self.is_running() and time.monotonic() < deadline:
            time.sleep(0.05)
        self.kill_group()

    def signal_group(self, number: signal.Signals) -> None:
        """Send a signal to the process and all descendants that stayed in its session."""
        if self.running is not None and self.running.returncode is None:
            os.killpg(self.running.pid, number)

    def kill_group(self) -> None:
        """SIGKILL to the process and all descendants that stayed in its session."""
        if self.running is None or self.running.returncode is not None:
            return
        self.signal_group(signal.SIGKILL)
        self.running.wait()

    def last_lines(self, count: int = 15) -> str:
        """The end of its log, for the message of an error."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-count:])
