"""Parts of a benchmark as processes of their own, one after the other, each with a limit of time; and their table.

What does not belong here: what the parts measure (``gpu``), and how they write it down (``record``).
"""

import importlib.util
import os
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from measuring.record import TABLE_HEAD, read_record, rows_of

_LEAST_SECONDS = 20.0
"""A part that has less time left is not begun."""


@dataclass(frozen=True)
class Part:
    """One part.

    Args:
        name: by which it is asked for; its record is ``<name>.json``.
        title: over its rows in the table.
        command: of its process, without the path of its record.
        seconds: after which it is ended; what it has measured by then stays.
        needs: packages, by the names under which they are imported.
        devices: how many the machine must have.
    """

    name: str
    title: str
    command: tuple[str, ...]
    seconds: float
    needs: tuple[str, ...] = ()
    devices: int = 1

    def record(self, folder: Path) -> Path:
        """Where it writes its figures."""
        return folder / f"{self.name}.json"

    def finished(self, folder: Path) -> bool:
        """All it measures is there."""
        return bool(read_record(self.record(folder))["finished"])

    def why_not(self, devices: int) -> str | None:
        """Why it cannot run on this machine."""
        missing = [name for name in self.needs if importlib.util.find_spec(name) is None]
        if missing:
            return f"needs {', '.join(missing)}, which is not installed"
        if devices < self.devices:
            return "needs a CUDA device" if self.devices == 1 else f"needs {self.devices} devices"
        return None


def run_parts(
    parts: Sequence[Part],
    folder: Path,
    seconds: float,
    devices: int,
    environment: Mapping[str, str],
    say: Callable[[str], None] = print,
) -> dict[str, str]:
    """Run what is not finished, in order, as long as there is time.

    Args:
        parts: the most valuable first.
        folder: of the records; made where it is missing.
        seconds: for all of them together.
        devices: that this machine has.
        environment: of the processes.
        say: told what happens.

    Returns:
        What became of each part: ``finished``, ``finished before``, or why it is not.
    """
    folder.mkdir(parents=True, exist_ok=True)
    end, outcome = time.monotonic() + seconds, {}
    for part in parts:
        left = end - time.monotonic()
        problem = part.why_not(devices)
        if part.finished(folder):
            outcome[part.name] = "finished before"
        elif problem is not None:
            outcome[part.name] = f"left out: {problem}"
        elif left < min(_LEAST_SECONDS, part.seconds):
            outcome[part.name] = "not begun: no time is left; run this again"
        else:
            say(f"== {part.name}: {part.title}, at most {min(left, part.seconds):.0f} s")
            outcome[part.name] = _run(part, folder, min(left, part.seconds), environment)
        say(f"== {part.name}: {outcome[part.name]}")
    return outcome


def _run(part: Part, folder: Path, seconds: float, environment: Mapping[str, str]) -> str:
    command = [*part.command, "--record", str(part.record(folder))]
    started = time.monotonic()
    process = subprocess.Popen(command, env=dict(environment), process_group=0)
    try:
        code = process.wait(seconds)
    except subprocess.TimeoutExpired:
        return f"ended after {seconds:.0f} s, its limit; what it measured is kept, run this again for the rest"
    finally:
        if process.poll() is None:  # at its limit, or this process is being ended: its own children, too
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    if part.finished(folder):
        return f"finished in {time.monotonic() - started:.0f} s"
    if code:
        return f"failed with exit code {code}; what it measured is kept"
    return "finished, but for what failed; run this again for it"


def table(parts: Sequence[Part], folder: Path, outcome: Mapping[str, str]) -> str:
    """Markdown for ``docs/benchmarks.md``: a line on the machine, then the figures of all parts."""
    records = {part: read_record(part.record(folder)) for part in parts}
    abouts = dict.fromkeys("; ".join(record["about"].values()) for record in records.values() if record["about"])
    lines = [*abouts, "", TABLE_HEAD]
    for part, record in records.items():
        state = outcome.get(part.name, "not asked for")
        lines.append(
            f"| **{part.title}** | {'' if state.startswith('finished') else state} | | |".replace("|  |", "| |")
        )
        lines += rows_of(record)
    return "\n".join(lines)
