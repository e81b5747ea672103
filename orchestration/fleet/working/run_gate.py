"""Before a worker's process executes a run: can this host make it, and does the GPU answer? If not, the run goes back.

A process that replaced one which lost its GPU would otherwise fail every clip of the queue, one after the other. This
is the part of the process that executes runs; ``gpu_watch`` is the main process's. See ``run_task`` for executing a
run, ``orchestration.fleet.gpus.gpu_requirement`` for which GPUs a worker needs.
"""

import logging
import sys
import time
from collections.abc import Callable
from typing import Any

import dagster as dg
from celery import Celery

from orchestration.fleet.gpus.gpu_check import GpuCheck
from orchestration.fleet.launching.active_runs import BROKER_ERRORS
from orchestration.fleet.launching.celery_app import ask_workers, send_run
from orchestration.fleet.working.host_check import HostCheck, Unfit
from orchestration.fleet.working.worker_panel import GPU_LOST, GPU_WORKS, HOST_UNFIT

TELL_SECONDS = 5.0
TELL_ATTEMPTS = 12
"""For a minute without Redis; then the run goes back all the same, and may come to this worker again."""

_WAITING = frozenset({dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.NOT_STARTED})

logger = logging.getLogger(__name__)


class RunGate:
    """Made in the main process, used in those it forks: each knows what the main process knew when it forked."""

    def __init__(
        self,
        check: GpuCheck | None,
        outbox: Celery,
        node: str,
        queue: str,
        had_troubles: Callable[[], bool] = lambda: False,
        wait: Callable[[float], None] = time.sleep,
        host: HostCheck | None = None,
    ) -> None:
        """``node`` is the worker's full name; ``had_troubles`` says if the GPU failed since the last clip was made.

        ``check`` is None for a worker that needs no GPU.
        """
        self._host = host
        self._check = check
        self._outbox = outbox
        self._node = node
        self._queue = queue
        self._had_troubles = had_troubles
        self._wait = wait
        self._in_doubt = check is not None

    def admits(self, run_id: str) -> bool:
        """True if the run may be executed here; otherwise it waits in the queue, and this worker stops reading the
        queue.

        The GPU is asked before the first run of a process, and after a failed one that may have failed because of it:
        that takes seconds.
        """
        if unfit := self._why_unfit(run_id):
            self._tell(HOST_UNFIT, reason=unfit.reason, variant=unfit.variant)
            return not self._give_back(run_id, f"The host of worker {self._node} cannot make the run ({unfit.reason})")
        if self._check is None or not self._in_doubt:
            return True
        reason = self._check.probe()
        if reason is None:
            self._in_doubt = False
            return True
        self.report_loss(reason)
        return not self._give_back(run_id, f"The GPU of worker {self._node} does not answer ({reason})")

    def _why_unfit(self, run_id: str) -> Unfit | None:
        """The reason why this host cannot make the run; None also if the check itself fails, since the run reports it
        then."""
        if self._host is None:
            return None
        try:
            with dg.DagsterInstance.get() as instance:
                run = instance.get_run_by_id(run_id)
            return self._host.why_unfit(run) if run is not None and run.status in _WAITING else None
        except Exception:
            logger.exception("Cannot tell whether this host can make run %s", run_id)
            return None

    def _give_back(self, run_id: str, why: str) -> bool:
        """True if the run waits in the queue again; False for one that was canceled meanwhile."""
        with dg.DagsterInstance.get() as instance:
            run = instance.get_run_by_id(run_id)
            if run is None or run.status not in _WAITING:  # canceled meanwhile: to be told so, which needs no GPU
                return False
            instance.report_engine_event(f"{why}: the run waits in the queue {self._queue} for another one.", run)
        send_run(self._outbox, run_id, self._queue)
        return True

    def note_end(self, status: str) -> None:
        """A run has ended here, with this status, and the process still works."""
        if status == dg.DagsterRunStatus.SUCCESS.value:
            if self._had_troubles():
                self._tell(GPU_WORKS)
                self._had_troubles = lambda: False
        elif status == dg.DagsterRunStatus.FAILURE.value:
            self._in_doubt = self._check is not None and not self._uses_one_gpu(self._check)

    def report_loss(self, reason: str) -> None:
        """Have the worker take no more runs; returns once it has stopped reading its queue."""
        self._tell(GPU_LOST, reason=reason)

    def _uses_one_gpu(self, check: GpuCheck) -> bool:
        """True if this process computes on the one GPU itself: ``device_loss`` would have said that it is lost."""
        torch = sys.modules.get("torch")
        return check.gpus.count == 1 and torch is not None and torch.cuda.is_initialized()

    def _tell(self, command: str, **arguments: Any) -> None:
        for _ in range(TELL_ATTEMPTS):
            try:
                answers = ask_workers(
                    self._outbox, command, seconds=TELL_SECONDS, arguments=arguments, worker=self._node
                )
            except BROKER_ERRORS:
                logger.exception("Cannot tell worker %s: %s", self._node, command)
                self._wait(TELL_SECONDS)
                continue
            if answers:
                return
        logger.error("Worker %s did not answer to %s", self._node, command)
