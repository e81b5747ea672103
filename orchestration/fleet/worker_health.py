"""``python -m orchestration.fleet.worker_health NAME``: does the worker of that name on this host answer?

The health check of a container. The worker's main process answers, also while a run is being executed. See
``orchestration.fleet.launching.active_runs`` for whether a single run is alive.
"""

import argparse
import socket
import sys
from collections.abc import Sequence

from libs.settings import load_settings
from orchestration.fleet.launching.active_runs import BROKER_ERRORS
from orchestration.fleet.launching.celery_app import ask_workers, make_celery_app, require_redis_url


def worker_answers(redis_url: str, name: str, seconds: float) -> bool:
    """True if the worker ``name`` of this host answers within ``seconds``; False also when Redis cannot be reached."""
    node = f"{name}@{socket.gethostname()}"
    try:
        answers = ask_workers(make_celery_app(redis_url), "ping", seconds=seconds, worker=node)
    except BROKER_ERRORS:
        return False
    return any(node in answer for answer in answers)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 if the worker answers, 1 if not.

    Raises:
        SettingsError: ``REDIS_URL`` is not set.
    """
    parser = argparse.ArgumentParser(
        prog="python -m orchestration.fleet.worker_health",
        description="Check whether the worker NAME of this host answers, also while it executes a run.",
    )
    parser.add_argument("name", help="the --name of the worker")
    parser.add_argument(
        "--seconds", type=float, default=5.0, help="seconds to wait for the answer (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    return 0 if worker_answers(require_redis_url(load_settings()), options.name, options.seconds) else 1


if __name__ == "__main__":
    sys.exit(main())
