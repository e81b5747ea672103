"""Waiting for processes, threads and servers in tests: until something is so, and never for a number of seconds.

A wait ends when what is waited for is there. Its limit only bounds a hang: far above what a busy machine takes.
"""

import time
from collections.abc import Callable
from typing import TypeVar

import psutil

HANG_SECONDS = 600.0
"""What takes longer will never come."""

Seen = TypeVar("Seen")


def wait_until(what: str, look: Callable[[], Seen | None], seconds: float = HANG_SECONDS, pause: float = 0.1) -> Seen:
    """What ``look`` returns once that is true; it looks every ``pause`` seconds."""
    deadline = time.monotonic() + seconds
    while True:
        if seen := look():
            return seen
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {seconds:.0f} s: {what}")
        time.sleep(pause)


def is_running(pid: int) -> bool:
    """False for a zombie, too: who should fetch its exit status may be gone."""
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False
