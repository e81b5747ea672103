"""``python -m orchestration.fleet.worker_list``: the workers that answer, what each does, and why one takes no runs.

It knows how many there should be: ``--gpu-workers``, or the limit of pool ``gpu``, and ``--cpu-workers``. A health
check of the whole fleet. See ``orchestration.fleet.launching.active_runs`` for whether a single run is alive,
``worker_health`` for a container's health.
"""

import argparse
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from libs.settings import load_settings
from orchestration.fleet.instance_preparation import DatabaseNotReadyError, database_errors_explained
from orchestration.fleet.launching.active_runs import BROKER_ERRORS
from orchestration.fleet.launching.celery_app import ask_workers, make_celery_app
from orchestration.fleet.run_coordinator import CPU_QUEUE
from orchestration.fleet.working.worker_panel import STATE
from orchestration.policies import GPU_POOL


def worker_states(redis_url: str, seconds: float) -> list[tuple[str, dict[str, Any]]]:
    """(name, state as in ``worker_panel``) of each worker that answers within ``seconds``, by name.

    Raises:
        one of BROKER_ERRORS: Redis cannot be reached.
    """
    answers = ask_workers(make_celery_app(redis_url), STATE, seconds=seconds)
    # Not one dictionary: two workers of one name are two.
    return sorted(((name, state) for answer in answers for name, state in answer.items()), key=lambda entry: entry[0])


def describe(state: Mapping[str, Any], now: float) -> str:
    """What a worker does, in words; ``now`` in seconds since the epoch."""
    if "queue" not in state:
        return f"does not say what it does: {state.get('error', state)}"
    doing = f"executes {', '.join(state['runs'])}" if state["runs"] else "idle"
    if state.get("draining"):
        doing = f"is drained: {doing}, takes no more runs"
    elif state["trouble"] is not None:
        minutes = (now - state["since"]) / 60
        doing = f"takes no runs for {minutes:.0f} min, {_why(state)}: {state['trouble']}"
    return f"queue {state['queue']}  {doing}"


def _why(state: Mapping[str, Any]) -> str:
    return "since its host cannot make them" if state.get("of") == "host" else "since its GPU does not work"


def missing_workers(states: Sequence[tuple[str, Mapping[str, Any]]], gpu_workers: int, cpu_workers: int) -> list[str]:
    """What is lacking, in words, where fewer workers answer than there should be; drained ones count as gone."""
    queues = [state.get("queue") for _, state in states if not state.get("draining")]
    answering = {"CPU": queues.count(CPU_QUEUE), "GPU": len([name for name in queues if name not in {CPU_QUEUE, None}])}
    expected = {"CPU": cpu_workers, "GPU": gpu_workers}
    return [
        f"{answering[kind]} of {count} {kind} workers answer and take runs"
        for kind, count in expected.items()
        if answering[kind] < count
    ]


def limit_of_gpu_pool() -> int | None:
    """The number of GPU workers that the instance of ``DAGSTER_HOME`` was prepared for; None where nothing says it."""
    if not os.environ.get("DAGSTER_HOME"):
        return None
    with database_errors_explained(), dg.DagsterInstance.get() as instance:
        limits = [pool.limit for pool in instance.event_log_storage.get_pool_limits() if pool.name == GPU_POOL]
    return limits[0] if limits else None


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 if all workers that there should be answer and take runs, 1 if not."""
    parser = argparse.ArgumentParser(
        prog="python -m orchestration.fleet.worker_list",
        description=(
            "List the workers that answer, what each does, and why one takes no runs. The exit status is 1 if one "
            "takes no runs, or if fewer answer than expected."
        ),
    )
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds to wait for answers (default: %(default)s)")
    parser.add_argument(
        "--gpu-workers", type=int, help="how many GPU workers to expect (default: the limit of pool gpu)"
    )
    parser.add_argument(
        "--cpu-workers", type=int, default=1, help="how many CPU workers to expect (default: %(default)s)"
    )
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
    expected = options.gpu_workers
    if expected is None:
        try:
            expected = limit_of_gpu_pool()
        except DatabaseNotReadyError as error:
            print(f"How many GPU workers there should be is not known: {error}", file=sys.stderr)
            return 1
    if expected is None:
        print("How many GPU workers there should be is not known: give --gpu-workers or DAGSTER_HOME", file=sys.stderr)
    missing = missing_workers(states, expected or 0, options.cpu_workers)
    for line in missing:
        print(line, file=sys.stderr)
    if not states:
        print("No worker answers.", file=sys.stderr)
    well = all("queue" in state and state["trouble"] is None for _, state in states)
    return 0 if states and well and not missing else 1


if __name__ == "__main__":
    sys.exit(main())
