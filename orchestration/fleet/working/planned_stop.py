"""A worker that is told to stop hands its run back: the run is made again, and spends none of its retries.

Retries are for crashes (``orchestration.crashes``); Dagster counts the runs of a group against the limit in the run's
tags, so a planned stop raises that limit by one, once per run. See ``run_task`` for how an interruption is noticed.
"""

import dagster as dg

from orchestration.crashes import RUN_ENDS
from orchestration.dagster_internals import MAX_RETRIES_TAG

PLANNED_STOP_TAG = "one_to_all/stopped_run"
"""The id of the run for which the limit was raised last; a retry has the tags of the run it repeats."""

_GOING_ON = frozenset({
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
})  # fmt: skip


def note_planned_stop(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Note, before its end is reported, that ``run_id`` is interrupted by a planned stop.

    Both the worker and the process that executes the run may call this: the second call changes nothing.

    Returns:
        False for a run that was canceled, or has ended: the worker did not interrupt it.
    """
    run = instance.get_run_by_id(run_id)
    if run is None or run.status not in _GOING_ON:
        return False
    if run.tags.get(PLANNED_STOP_TAG) != run_id:
        limit = _limit_of(run, instance) + 1
        instance.add_run_tags(run_id, {MAX_RETRIES_TAG: str(limit), PLANNED_STOP_TAG: run_id})
        instance.report_engine_event(RUN_ENDS["worker stopped"].message, run)
    return True


def _limit_of(run: dg.DagsterRun, instance: dg.DagsterInstance) -> int:
    try:
        return int(run.tags[MAX_RETRIES_TAG])
    except (KeyError, ValueError):
        return int(instance.run_retries_max_retries)
