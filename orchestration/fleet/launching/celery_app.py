"""How Celery carries runs: the settings that launcher and workers must agree on, for Redis as broker and result store.

See ``orchestration.fleet.working.run_task`` for what a worker does with a run, ``orchestration.fleet.worker`` for how a
worker is started.
"""

from collections.abc import Mapping
from typing import Any

from celery import Celery

from libs.errors import SettingsError
from libs.settings import Settings

RUN_TASK_NAME = "one_to_all.execute_run"
"""The name under which launcher and workers know the one task there is."""

VISIBILITY_TIMEOUT_SECONDS = 24 * 60 * 60
"""Longer than any clip takes: a message that waits for its acknowledgement longer than this is delivered twice."""

SOCKET_TIMEOUTS = {"socket_timeout": 5.0, "socket_connect_timeout": 5.0}
"""Seconds after which a Redis that takes the connection and does not answer counts as one that is away.

Workers wait for messages without this limit; kombu reconnects after 51 s of silence.
"""

SEND_ATTEMPTS = {"max_retries": 40, "interval_start": 0.2, "interval_step": 0.2, "interval_max": 2.0}
"""Sending survives more than a minute without Redis; after that the run fails, and run_retries queues it again."""


def celery_settings() -> dict[str, Any]:
    """Settings of both sides; a fresh dictionary, since Celery keeps what it is given."""
    transport = {"visibility_timeout": VISIBILITY_TIMEOUT_SECONDS, "socket_keepalive": True, **SOCKET_TIMEOUTS}
    return {
        # JSON only: whoever reaches Redis must not be able to have code unpickled.
        "accept_content": ["json"],
        "task_serializer": "json",
        "result_serializer": "json",
        "broker_transport_options": transport,
        "result_backend_transport_options": transport,
        **{f"redis_{name}": seconds for name, seconds in SOCKET_TIMEOUTS.items()},
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,  # a worker outlives any outage of Redis
        # A run is taken off the queue when it begins. A crash is Dagster's to retry, not the broker's to deliver again.
        "task_acks_late": False,
        "task_reject_on_worker_lost": False,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        # A busy worker leaves the next run in the queue, where an idle one finds it.
        "worker_disable_prefetch": True,
        "worker_prefetch_multiplier": 1,
        # Dagster captures the output of a run by file descriptor; Celery must leave stdout and the loggers alone.
        "worker_redirect_stdouts": False,
        "worker_hijack_root_logger": False,
        "worker_send_task_events": False,
    }


def make_celery_app(redis_url: str, *, with_results: bool = True) -> Celery:
    """A Celery app on ``redis_url`` that does not become the process's current app.

    Args:
        redis_url: ``redis://[:password@]host:port/database``.
        with_results: False for an app that only sends. Sending with a result store subscribes to each result, and the
            daemon, which never waits for one, would collect subscriptions for ever.
    """
    return Celery(
        "one-to-all",
        broker=redis_url,
        backend=redis_url if with_results else None,
        config_source=celery_settings(),
        set_as_current=False,
    )


def send_run(outbox: Celery, run_id: str, queue: str) -> None:
    """Send the message "execute run ``run_id``" to ``queue``; the task's id is the run's.

    Raises:
        kombu.exceptions.OperationalError: Redis stayed away for more than a minute.
    """
    outbox.send_task(
        RUN_TASK_NAME,
        args=[run_id],
        task_id=run_id,
        queue=queue,
        retry=True,
        retry_policy=SEND_ATTEMPTS,
    )


def ask_workers(
    app: Celery,
    command: str,
    *,
    seconds: float,
    arguments: Mapping[str, Any] | None = None,
    worker: str | None = None,
) -> list[dict[str, Any]]:
    """What workers answer to a remote-control command, each as {name: answer}.

    Args:
        app: an app of :func:`make_celery_app`.
        command: one of Celery's own, or of ``worker_panel``.
        seconds: to wait for answers; with ``worker`` the first one ends it.
        arguments: of the command.
        worker: the full name of the only one to ask; all by default.

    Raises:
        one of ``active_runs.BROKER_ERRORS``: Redis cannot be reached.
    """
    # A connection of its own: one that Celery keeps for later breaks when Redis restarts, just when the answer matters.
    with app.connection_for_write() as connection:
        answers = app.control.broadcast(
            command,
            arguments=dict(arguments or {}),
            destination=None if worker is None else [worker],
            reply=True,
            limit=None if worker is None else 1,
            timeout=seconds,
            connection=connection,
        )
    return answers or []


def require_redis_url(settings: Settings) -> str:
    """The broker's address, password included: not to be logged.

    Raises:
        SettingsError: ``REDIS_URL`` is not set.
    """
    if settings.redis_url is None:
        raise SettingsError(
            "REDIS_URL is not set, but this Dagster instance launches runs through Redis: set "
            "REDIS_URL=redis://host:6379/0, or use `make fleet`, which starts its own"
        )
    return settings.redis_url.get_secret_value()
