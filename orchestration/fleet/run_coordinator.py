"""Which Celery queue a run goes to, and whether it is wanted at all, decided when the run is queued.

The webserver, backfills, sensors, schedules and retries all submit runs here. See ``run_launcher`` for sending the run
to its queue.
"""

import dagster as dg
from dagster_celery.tags import DAGSTER_CELERY_QUEUE_TAG

from orchestration.dagster_internals import PARTITION_NAME_TAG, QueuedRunCoordinator, SubmitRunContext
from orchestration.policies import CONTENT_TAG, DROPPED_TAG, GPU_POOL, GPU_QUEUE
from orchestration.requests.runs import makes_a_clip

CPU_QUEUE = "cpu"
"""The queue of runs that hold no slot of the GPU pool: model files, requests alone, housekeeping."""

GOING_ON = [dg.DagsterRunStatus.QUEUED, dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED]


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
    """``QueuedRunCoordinator`` that tags each run with its Celery queue, and drops one whose clip is on its way.

    The schedule may look while the sensor still launches a batch: both then launch a run for the same content of a
    request. The GPU makes it once.
    """

    def submit_run(self, context: SubmitRunContext) -> dg.DagsterRun:
        """Tag the run, then queue it; a queue named by the run's own tags is respected."""
        run = context.dagster_run
        if twin := self._twin_of(run):
            self._instance.add_run_tags(run.run_id, {DROPPED_TAG: twin.run_id})
            self._instance.report_run_canceled(run, f"Not queued: run {twin.run_id} makes the same clip already.")
            return self._instance.get_run_by_id(run.run_id) or run
        if DAGSTER_CELERY_QUEUE_TAG not in run.tags:
            self._instance.add_run_tags(run.run_id, {DAGSTER_CELERY_QUEUE_TAG: queue_of(run)})
        return super().submit_run(context)

    def _twin_of(self, run: dg.DagsterRun) -> dg.DagsterRun | None:
        """Another run that was queued to make the same clip, and has not ended; None if ``run`` makes none."""
        if CONTENT_TAG not in run.tags or not makes_a_clip(run):
            return None
        same = {name: run.tags[name] for name in (PARTITION_NAME_TAG, CONTENT_TAG)}
        going_on = self._instance.get_runs(dg.RunsFilter(tags=same, statuses=GOING_ON))
        return next((other for other in going_on if other.run_id != run.run_id and makes_a_clip(other)), None)
