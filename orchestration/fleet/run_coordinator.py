"""Which Celery queue a run goes to, decided when the run is queued, so that every way of launching is covered.

The webserver, backfills, sensors, schedules and retries all submit runs here. What does not belong here: sending the
run to its queue (``run_launcher``).
"""

import dagster as dg
from dagster._core.run_coordinator import QueuedRunCoordinator, SubmitRunContext
from dagster_celery.tags import DAGSTER_CELERY_QUEUE_TAG

from orchestration.policies import GPU_POOL, GPU_QUEUE

CPU_QUEUE = "cpu"
"""The queue of runs that hold no slot of the GPU pool: model files, requests, reviews."""


def queue_of(run: dg.DagsterRun) -> str:
    """The queue for ``run``: the one its tags name, else ``gpu`` if a selected op is in the GPU pool, else ``cpu``.

    Dagster records the pools of the *selected* steps when it creates a run; a job that could use a GPU but materializes
    only its other assets counts as CPU work.
    """
    if named := run.tags.get(DAGSTER_CELERY_QUEUE_TAG):
        return named
    pools = run.run_op_concurrency.all_pools if run.run_op_concurrency else None
    return GPU_QUEUE if GPU_POOL in (pools or ()) else CPU_QUEUE


class FleetRunCoordinator(QueuedRunCoordinator):
    """``QueuedRunCoordinator`` that tags each run with its Celery queue before it is queued."""

    def submit_run(self, context: SubmitRunContext) -> dg.DagsterRun:
        """Tag the run, then queue it; a queue named by the run's own tags is respected."""
        run = context.dagster_run
        if DAGSTER_CELERY_QUEUE_TAG not in run.tags:
            self._instance.add_run_tags(run.run_id, {DAGSTER_CELERY_QUEUE_TAG: queue_of(run)})
        return super().submit_run(context)
