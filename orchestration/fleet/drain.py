"""``python -m orchestration.fleet.drain NAME``: have one worker finish its run, take no other, and end.

Returns when it has ended. The rest of the fleet goes on. See ``working.draining`` for what the worker does.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence

from celery import Celery

from libs.settings import load_settings
from orchestration.fleet.launching.active_runs import BROKER_ERRORS
from orchestration.fleet.launching.celery_app import ask_workers, make_celery_app, require_redis_url
from orchestration.fleet.worker_list import worker_states
from orchestration.fleet.working.worker_panel import DRAIN

ANSWER_SECONDS = 5.0
POLL_SECONDS = 2.0
QUIET_POLLS = 3
"""A busy machine may miss one question; a worker that answers none of so many has ended."""


def full_name(name: str, workers: Sequence[str]) -> str | None:
    """The one of ``workers`` that ``name`` means, with or without ``@host``; None if it matches none or several."""
    found = [worker for worker in workers if name in {worker, worker.partition("@")[0]}]
    return found[0] if len(found) == 1 else None


def ask_to_drain(app: Celery, worker: str, *, stay: bool) -> bool:
    """True once the worker has understood."""
    return bool(ask_workers(app, DRAIN, seconds=ANSWER_SECONDS, arguments={"stay": stay}, worker=worker))


def wait_until_drained(redis_url: str, worker: str, wait: Callable[[float], None] = time.sleep) -> None:
    """Return when ``worker`` no longer answers, or reports that it is drained and idle."""
    silent = idle = 0
    while silent < QUIET_POLLS and idle < QUIET_POLLS:
        try:
            state = dict(worker_states(redis_url, POLL_SECONDS)).get(worker)
        except BROKER_ERRORS:
            wait(POLL_SECONDS)
            continue
        silent = silent + 1 if state is None else 0
        idle = idle + 1 if state is not None and state.get("stays") and not state.get("runs") else 0
        if state is not None:
            wait(POLL_SECONDS)


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 if the worker is drained (or was asked to, with ``--no-wait``), 1 if not."""
    parser = argparse.ArgumentParser(
        prog="python -m orchestration.fleet.drain",
        description="Have one worker finish its run, take no other, and end. Returns when it has ended.",
    )
    parser.add_argument(
        "name", help="the worker's name, as worker_list shows it; the host may be left out if the name is unique"
    )
    parser.add_argument(
        "--stay", action="store_true", help="stay idle instead of ending, for container engines that would restart it"
    )
    parser.add_argument("--no-wait", action="store_true", help="return at once")
    options = parser.parse_args(arguments)
    redis_url = require_redis_url(load_settings())
    try:
        workers = [name for name, _ in worker_states(redis_url, ANSWER_SECONDS)]
        worker = full_name(options.name, workers)
        if worker is None:
            print(
                f"{options.name} is not one of the workers that answer: {', '.join(workers) or 'none'}", file=sys.stderr
            )
            return 1
        if not ask_to_drain(make_celery_app(redis_url), worker, stay=options.stay):
            print(f"{worker} did not answer", file=sys.stderr)
            return 1
    except BROKER_ERRORS as error:
        print(f"Redis cannot be reached: {error}", file=sys.stderr)
        return 1
    print(f"{worker} takes no more runs", flush=True)
    if not options.no_wait:
        wait_until_drained(redis_url, worker)
        print(f"{worker} is drained{': stop it now' if options.stay else ' and has ended'}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
