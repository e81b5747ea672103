"""A sensor that finds launched runs which no worker will ever take, and fails them so that they are retried.

A message leaves Redis a moment before its worker has read it, and the daemon marks a run as STARTING a moment before it
sends it: if either process dies in between, the run would stay STARTING until ``start_timeout_seconds``, which must be
long, since a run may wait in its queue for hours. The sensor looks at every STARTING run and knows two good states,
waiting in Redis and held by a worker. See ``orchestration.fleet.run_launcher`` for runs that have started.
"""

import json
import time
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import TypeAdapter, ValidationError

from libs.settings import load_settings
from orchestration.crashes import RUN_ENDS

if TYPE_CHECKING:
    from orchestration.fleet.run_launcher import FleetRunLauncher

_END = RUN_ENDS["message lost"]

MISSING_SECONDS = 10.0
"""A message may be between queue and worker for a moment; one missing for longer is lost."""


def missing_runs(instance: dg.DagsterInstance, launcher: "FleetRunLauncher") -> list[dg.DagsterRun]:
    """The STARTING runs that neither wait in a queue nor are held by a worker right now.

    Raises:
        one of BROKER_ERRORS: Redis cannot be reached.
    """
    starting = instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTING]))
    if not starting:
        return []
    # First the queues, then the workers: a run on its way from one to the other is seen by the second question.
    waiting = launcher.active_runs.waiting({launcher.queue_of(run) for run in starting})
    suspects = [run for run in starting if run.run_id not in waiting]
    held = launcher.active_runs.holders([run.run_id for run in suspects]) if suspects else {}
    return [run for run in suspects if run.run_id not in held]


def fail_lost_launches(
    instance: dg.DagsterInstance, launcher: "FleetRunLauncher", missing_since: dict[str, float], now: float
) -> tuple[dict[str, float], list[str]]:
    """One look: fail the runs that have been missing for MISSING_SECONDS.

    Args:
        instance: whose runs to look at.
        launcher: knows queues and workers.
        missing_since: run id -> first time it was seen missing, from the tick before.
        now: seconds since the epoch.

    Returns:
        ``missing_since`` for the next tick, and the ids of the runs that were failed.
    """
    still_missing: dict[str, float] = {}
    lost: list[str] = []
    for run in missing_runs(instance, launcher):
        since = missing_since.get(run.run_id, now)
        current = instance.get_run_by_id(run.run_id)
        if current is None or current.status != dg.DagsterRunStatus.STARTING:
            continue
        if now - since < MISSING_SECONDS:
            still_missing[run.run_id] = since
            continue
        lost.append(run.run_id)
        instance.report_run_failed(
            current,
            _END.message,
            _END.failure(),
        )
    return still_missing, lost


@dg.sensor(
    minimum_interval_seconds=10,
    # Without Redis there is nothing to look at, and a line in the log for each tick.
    default_status=dg.DefaultSensorStatus.RUNNING if load_settings().redis_url else dg.DefaultSensorStatus.STOPPED,
    description="Fails launched runs that no worker will ever take, so that they are retried; idle without a fleet.",
)
def lost_launches(context: dg.SensorEvaluationContext) -> dg.SkipReason:
    """One tick; the cursor holds since when runs are missing."""
    # Celery is loaded by the first tick, not by every process that loads the code location.
    from orchestration.fleet.launching.active_runs import BROKER_ERRORS  # noqa: PLC0415
    from orchestration.fleet.run_launcher import FleetRunLauncher  # noqa: PLC0415

    launcher = context.instance.run_launcher
    if not isinstance(launcher, FleetRunLauncher):
        return dg.SkipReason("This instance does not launch runs through Redis.")
    try:
        since = _missing_since(context.cursor)
        launcher.announce_code()  # this process is the code location: workers compare theirs
        still_missing, lost = fail_lost_launches(context.instance, launcher, since, time.time())
    except BROKER_ERRORS:
        return dg.SkipReason("Redis cannot be reached; nothing can be concluded.")
    context.update_cursor(json.dumps(still_missing))
    return dg.SkipReason(f"Failed {len(lost)} lost launches: {', '.join(lost)}" if lost else "No launch was lost.")


def _missing_since(cursor: str | None) -> dict[str, float]:
    """What the tick before left; nothing where a person, or another version, wrote something else."""
    try:
        return TypeAdapter(dict[str, float]).validate_json(cursor or "{}")
    except ValidationError:
        return {}
