"""Which process executes a run, for its metadata: host, process id, and the fleet's worker where there is one.

Light: assets import it.
"""

import os
import socket

WORKER_VARIABLE = "ONE_TO_ALL_WORKER"
"""Set by a worker for the processes that execute its runs: its name."""

QUEUE_VARIABLE = "ONE_TO_ALL_WORKER_QUEUE"
"""Likewise: the queue it listens to."""

_NO_WORKER = "none"


def announce_worker(name: str, queue: str) -> None:
    """Let the processes that this one starts know whose they are."""
    os.environ[WORKER_VARIABLE] = name
    os.environ[QUEUE_VARIABLE] = queue


def process_metadata() -> dict[str, str | int]:
    """``host``, ``pid``, ``worker`` and ``queue`` of this process; the last two are ``none`` outside of the fleet."""
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "worker": os.environ.get(WORKER_VARIABLE, _NO_WORKER),
        "queue": os.environ.get(QUEUE_VARIABLE, _NO_WORKER),
    }
