"""A run's metadata names the process that executed it."""

import os
import socket

from orchestration.fleet.working.worker_identity import (
    QUEUE_VARIABLE,
    WORKER_VARIABLE,
    announce_worker,
    process_metadata,
)


def test_outside_of_the_fleet(monkeypatch):
    monkeypatch.delenv(WORKER_VARIABLE, raising=False)
    monkeypatch.delenv(QUEUE_VARIABLE, raising=False)
    assert process_metadata() == {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "worker": "none",
        "queue": "none",
    }


def test_in_a_process_of_a_worker(monkeypatch):
    monkeypatch.setattr(os, "environ", dict(os.environ))
    announce_worker("gpu-0", "gpu")
    assert process_metadata()["worker"] == "gpu-0"
    assert process_metadata()["queue"] == "gpu"
