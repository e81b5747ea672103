"""``python -m orchestration.fleet.worker_list``: the workers that answer, what each does, and why one takes no runs.

What does not belong here: whether a single run is alive (``roll_call``), and a container's health (``worker_health``).
"""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from libs.settings import load_settings
from orchestration.fleet.celery_app import make_celery_app
from orchestration.fleet.roll_call import BROKER_ERRORS
from orchestration.fleet.worker_panel import STATE


def worker_states(redis_url: str, seconds: float) -> list[tuple[str, dict[str, Any]]]:
    """(name, state as in ``worker_panel``) of each worker that answers within ``seconds``, by name.

    Raises:
        one of BROKER_ERRORS: Redis cannot be reached.
    """
    answers = make_celery_app(redis_url).control.broadcast(STATE, reply=True, timeout=seconds) or []
    # Not one dictionary: two workers of one name are two.
    return sorted(((name, state) for answer in answers for name, state in answer.items()), key=lambda entry: entry[0])


def describe(state: Mapping[str, Any], now: float) -> str:
    """What a worker does, in words; ``now`` in seconds since the epoch."""
    if "queue" not in state:
        return f"does not say what it does: {state.get('error', state)}"
    doing = f"executes {', '.join(state['runs'])}" if state["runs"] else "idle"
    if state["trouble"] is not None:
        minutes = (now - state["since"]) / 60
        doing = f"takes no runs for {minutes:.0f} min, since its GPU does not work: {state['trouble']}"
    return f"queue {state['queue']}  {doing}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 if workers answer and all of them take runs, 1 if not."""
    parser = argparse.ArgumentParser(prog="python -m orchestration.fleet.worker_list", description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.0, help="to wait for answers (default: %(default)s)")
    options = parser.parse_args(arguments)
    redis_url = load_settings().redis_url
    if redis_url is None:
        print("REDIS_URL is not set; that of `make fleet` only its own processes know: see their logs", file=sys.stderr)
        return 1
    try:
        states = worker_states(redis_url.get_secret_value(), options.seconds)
    except BROKER_ERRORS as error:
        print(f"Redis cannot be reached: {error}", file=sys.stderr)
        return 1
    for name, state in states:
        print(f"{name}  {describe(state, time.time())}")
    if not states:
        print("No worker answers.", file=sys.stderr)
    return 0 if states and all("queue" in state and state["trouble"] is None for _, state in states) else 1


if __name__ == "__main__":
    sys.exit(main())
