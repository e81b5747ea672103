"""Servers that take a connection and never answer: they count as servers that are away, after a bounded time."""

import socket
from collections.abc import Iterator

import psycopg2
import pytest
from redis.exceptions import TimeoutError as RedisSilentError

from orchestration.fleet.launching import celery_app
from orchestration.fleet.launching.active_runs import BROKER_ERRORS, ActiveRunQuery
from orchestration.fleet.postgres_storage import waiting_at_most


@pytest.fixture
def silent_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield int(server.getsockname()[1])


def test_a_database_that_never_answers_is_given_up(silent_port: int) -> None:
    psycopg2.extensions.set_wait_callback(waiting_at_most(60, connect_seconds=0.2))
    try:
        with pytest.raises(psycopg2.OperationalError, match=r"took the connection and has not answered for 0\.2 s"):
            psycopg2.connect(host="127.0.0.1", port=silent_port, user="u", password="p", dbname="d")
    finally:
        psycopg2.extensions.set_wait_callback(None)


def test_a_redis_that_never_answers_is_given_up(silent_port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By the daemon, whose health checks and launches would wait for ever."""
    monkeypatch.setattr(celery_app, "SOCKET_TIMEOUTS", dict.fromkeys(celery_app.SOCKET_TIMEOUTS, 0.1))
    app = celery_app.make_celery_app(f"redis://:p@127.0.0.1:{silent_port}/0")
    with pytest.raises(RedisSilentError):
        _ = app.AsyncResult("run").state
    with pytest.raises(BROKER_ERRORS):
        ActiveRunQuery(app).waiting(["gpu"])
