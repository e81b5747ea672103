"""dagster-celery's run launcher, with a cancel that keeps the worker warm and a health check that asks the worker.

A run's Celery task id is its run id. See ``run_coordinator`` for the queue a run goes to, ``working.run_task`` for
what a worker does with it.
"""

import time
from collections.abc import Callable, Mapping
from typing import Any, Self

import dagster as dg
from celery.exceptions import WorkerLostError
from dagster_celery.launcher import CeleryRunLauncher
from dagster_celery.tags import DAGSTER_CELERY_QUEUE_TAG, DAGSTER_CELERY_TASK_ID_TAG

from libs.settings import load_settings
from orchestration.crashes import RUN_ENDS
from orchestration.dagster_internals import (
    CheckRunHealthResult,
    ConfigurableClassData,
    EngineEventData,
    LaunchRunContext,
    WorkerStatus,
)
from orchestration.fleet.launching.active_runs import BROKER_ERRORS, ActiveRunQuery
from orchestration.fleet.launching.celery_app import make_celery_app, require_redis_url, send_run
from orchestration.fleet.launching.code_version import announce_code
from orchestration.fleet.run_coordinator import CPU_QUEUE

SILENCE_SECONDS = 20.0
"""How long no worker may know a started run before it counts as lost; a restart of Redis is over sooner."""

LOST_TASK_STATES = frozenset({"FAILURE", "REVOKED"})

ACTIVE_STATUSES = [dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


class FleetRunLauncher(CeleryRunLauncher):
    """Starts runs as Celery tasks on ``REDIS_URL``; takes no configuration of its own in ``dagster.yaml``."""

    def __init__(
        self,
        inst_data: ConfigurableClassData | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        redis_url = require_redis_url(load_settings())
        super().__init__(default_queue=CPU_QUEUE, broker=redis_url, backend=redis_url, inst_data=inst_data)
        self.celery = make_celery_app(redis_url)
        self.active_runs = ActiveRunQuery(self.celery)
        self._outbox = make_celery_app(redis_url, with_results=False)
        self._clock = clock
        self._silent_since: dict[str, float] = {}

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """No configuration: the broker's address is a secret and comes from the environment."""
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        """Called by Dagster when it reads ``dagster.yaml``.

        Raises:
            SettingsError: ``REDIS_URL`` is not set.
        """
        return cls(inst_data=inst_data, **config_value)

    def launch_run(self, context: LaunchRunContext) -> None:
        """Send the run to the queue its tag names.

        Raises:
            kombu.exceptions.OperationalError: Redis stayed away for more than a minute.
        """
        run = context.dagster_run
        queue = self.queue_of(run)
        self._instance.add_run_tags(run.run_id, {DAGSTER_CELERY_TASK_ID_TAG: run.run_id})
        send_run(self._outbox, run.run_id, queue)
        self._instance.report_engine_event(
            f"Sent the run to the queue {queue}.", run, EngineEventData({"queue": queue}), cls=self.__class__
        )

    def announce_code(self) -> None:
        """Say which code this process runs; called by the code location, whose word counts.

        Raises:
            redis.exceptions.RedisError: Redis cannot be reached.
        """
        announce_code(require_redis_url(load_settings()))

    def queue_of(self, run: dg.DagsterRun) -> str:
        """The Celery queue that ``run`` is sent to."""
        return str(run.tags.get(DAGSTER_CELERY_QUEUE_TAG, self.default_queue))

    def terminate(self, run_id: str) -> bool:
        """Cancel a run: its worker sees the status CANCELING, ends the step and stays warm.

        Nothing is sent to the worker: Celery's own termination ends the process, and a message does not reach a worker
        that is cut off. If the host is lost, the run monitoring ends the run after ``cancel_timeout_seconds``.

        Returns:
            False if there is nothing to cancel.
        """
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished:
            return False
        if run.status != dg.DagsterRunStatus.CANCELING:
            self._instance.report_run_canceling(run)
        return True

    @property
    def supports_resume_run(self) -> bool:
        """False: ``run_retries`` starts a new run, on another worker, which resumes at the chunk the old one was in."""
        return False

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Report the health of a started run to the run monitoring; anything but RUNNING fails the run."""
        try:
            task = self.celery.AsyncResult(run.run_id)
            if task.state in LOST_TASK_STATES:
                return CheckRunHealthResult(WorkerStatus.FAILED, _why_lost(task.state, task.result))
            holder = self.active_runs.holders(self._active_run_ids() | {run.run_id}).get(run.run_id)
        except BROKER_ERRORS as error:
            self._silent_since.clear()
            return CheckRunHealthResult(WorkerStatus.RUNNING, f"Unknown, since Redis cannot be reached: {error}")
        if holder is not None:
            self._silent_since.pop(run.run_id, None)
            return CheckRunHealthResult(WorkerStatus.RUNNING, run_worker_id=holder)
        return self._judge_silence(run.run_id)

    def _judge_silence(self, run_id: str) -> CheckRunHealthResult:
        silent_for = self._clock() - self._silent_since.setdefault(run_id, self._clock())
        if silent_for < SILENCE_SECONDS:
            return CheckRunHealthResult(WorkerStatus.RUNNING, f"No worker has known the run for {silent_for:.0f} s.")
        del self._silent_since[run_id]
        return CheckRunHealthResult(
            WorkerStatus.NOT_FOUND, RUN_ENDS["worker silent"].message.format(seconds=silent_for)
        )

    def _active_run_ids(self) -> set[str]:
        active = self._instance.get_runs(dg.RunsFilter(statuses=ACTIVE_STATUSES))
        ids = {run.run_id for run in active}
        for ended in self._silent_since.keys() - ids:
            del self._silent_since[ended]
        return ids

    def get_run_worker_debug_info(
        self,
        run: dg.DagsterRun,
        include_container_logs: bool | None = True,  # noqa: ARG002 - Dagster's signature
    ) -> str | None:
        """Describe where the run is, for the message of a run that failed to start or to stop."""
        try:
            state = self.celery.AsyncResult(run.run_id).state
            holder = self.active_runs.holders([run.run_id]).get(run.run_id)
        except BROKER_ERRORS as error:
            return f"Redis cannot be reached: {error}"
        return f"Celery task {run.run_id}: {state}, held by {holder or 'no worker'}"


def _why_lost(state: str, result: object) -> str:
    """Describe why a task ended without its run ending; ``result`` is the error, if Celery has one."""
    if isinstance(result, Exception) and not isinstance(result, WorkerLostError):
        lines = str(result).splitlines() or [""]
        return f"The worker gave the run up and could not report it ({type(result).__name__}: {lines[0]})."
    return RUN_ENDS["worker died"].message.format(state=state)
