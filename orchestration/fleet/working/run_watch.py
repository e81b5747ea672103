"""A thread beside a run that ends it when the run's status says so, and leaves the worker process warm.

Dagster turns SIGINT into ``DagsterExecutionInterruptedError`` at the next point where a step may be interrupted. The
status in Dagster's database is the truth: a cancel reaches a worker that was cut off from Redis, and a worker that was
hung, and whose run was given to another one meanwhile, drops its copy when it wakes up. See
``orchestration.fleet.run_launcher`` for who sets the status.
"""

import logging
import os
import signal
import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

import dagster as dg

from orchestration.crashes import RUN_ENDS

POLL_SECONDS = 1.5
PATIENCE_SECONDS = 30.0
"""How long a step may take to give way, e.g. inside one long kernel, before its process is given up."""

ENDED_FROM_OUTSIDE = frozenset({
    dg.DagsterRunStatus.CANCELING,
    dg.DagsterRunStatus.CANCELED,
    dg.DagsterRunStatus.FAILURE,
})  # fmt: skip

logger = logging.getLogger(__name__)


class RunWatch:
    """Context manager around the execution of a run in the main thread of this process."""

    def __init__(
        self,
        instance: dg.DagsterInstance,
        run_id: str,
        poll_seconds: float = POLL_SECONDS,
        patience_seconds: float = PATIENCE_SECONDS,
        give_up: Callable[[], None] | None = None,
    ) -> None:
        self._instance = instance
        self._run_id = run_id
        self._poll_seconds = poll_seconds
        self._patience_seconds = patience_seconds
        self._give_up = give_up or self._kill_this_process
        self._finished = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"watch-{run_id}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._finished.set()
        self._thread.join(timeout=self._poll_seconds + 5)

    def _watch(self) -> None:
        while not self._finished.wait(self._poll_seconds):
            if not self._is_ended_from_outside():
                continue
            # To the main thread itself, so that a blocking call there returns at once.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
            if not self._finished.wait(self._patience_seconds):
                self._give_up()
            return

    def _is_ended_from_outside(self) -> bool:
        try:
            run = self._instance.get_run_by_id(self._run_id)
        except Exception:  # the database is away: the run goes on, and the next try may succeed
            logger.exception("Cannot read the status of run %s", self._run_id)
            return False
        return run is None or run.status in ENDED_FROM_OUTSIDE

    def _kill_this_process(self) -> None:
        """End a run that does not give way, together with its process; the worker starts a new, cold one."""
        run = self._instance.get_run_by_id(self._run_id)
        if run is not None and run.status == dg.DagsterRunStatus.CANCELING:
            self._instance.report_run_canceled(
                run, RUN_ENDS["killed for a cancel"].message.format(seconds=self._patience_seconds)
            )
        os.kill(os.getpid(), signal.SIGKILL)
