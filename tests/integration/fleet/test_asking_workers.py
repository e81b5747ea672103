"""Asking workers, from a process that outlives the Redis it asked first."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import RedisError

from orchestration.fleet import worker_list
from orchestration.fleet.local.fleet_plan import free_port
from tests.waiting import wait_until


@contextmanager
def redis_server(port: int, folder: Path) -> Iterator[None]:
    command = ["redis-server", "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process, Redis(port=port) as client:
        wait_until("Redis answers", lambda: _answers(client), pause=0.02)
        try:
            yield
        finally:
            process.kill()


def _answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisError:
        return False


def test_after_a_restart_of_redis_the_first_question_is_answered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """No connection is kept from before: it would be a dead one."""
    port = free_port()
    monkeypatch.setenv("REDIS_URL", f"redis://127.0.0.1:{port}/0")
    ask = ["--seconds", "0.1", "--gpu-workers", "0", "--cpu-workers", "0"]
    for _ in range(2):
        with redis_server(port, tmp_path):
            worker_list.main(ask)
            assert capsys.readouterr().err == "No worker answers.\n"
    worker_list.main(ask)
    assert "Redis cannot be reached" in capsys.readouterr().err
