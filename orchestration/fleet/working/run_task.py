"""What a worker process does with a run: execute it here, in this long-lived process, and always bring it to an end.

Based on what dagster-celery's own task does, with these additions: a run can be canceled and the process survives; a
retry policy does not keep an interrupted run alive; a run that cannot even be loaded fails instead of staying STARTING;
a process whose GPU was lost ends; a run that lost its GPU or the connection to a server counts as crashed, not as
wrong (``orchestration.crashes``); one whose worker was told to stop keeps its retries.
"""

import logging
import os
import signal
import sys
from collections.abc import Callable

import dagster as dg

from orchestration.crashes import RUN_ENDS, is_interruption, lost_server
from orchestration.dagster_internals import (
    DagsterEventType,
    DagsterExecutionInterruptedError,
    SerializableErrorInfo,
    capture_interrupts,
    execute_run_command_body,
    serializable_error_info_from_exc_info,
)
from orchestration.fleet.gpus.device_loss import device_loss
from orchestration.fleet.working.planned_stop import note_planned_stop
from orchestration.fleet.working.run_watch import RunWatch

_FAILED_STEPS = frozenset({DagsterEventType.STEP_UP_FOR_RETRY, DagsterEventType.STEP_FAILURE})

logger = logging.getLogger(__name__)


def execute_run(run_id: str, report_loss: Callable[[str], None] = lambda _: None) -> str:
    """Execute a launched run to its end and return its final status.

    Raises nothing on account of the run: its events and its status tell what happened. Does not return where the run
    has cost this process its GPU: ``report_loss`` is told what the GPU answers, the process ends, and Celery starts
    another one for the next run.
    """
    sigterm = signal.getsignal(signal.SIGTERM)
    try:
        # Outside of the steps an interrupt is remembered, not raised: no event is left half reported.
        with dg.DagsterInstance.get() as instance, capture_interrupts():
            _execute(instance, run_id)
            status = _status(instance, run_id)
    finally:
        # Dagster leaves SIGTERM as it found SIGINT, which Celery ignores in its processes.
        signal.signal(signal.SIGTERM, sigterm)
    if status == dg.DagsterRunStatus.FAILURE.value and (loss := device_loss()):
        logger.error("This process has lost its GPU and ends (%s)", loss)
        report_loss(loss)
        os.kill(os.getpid(), signal.SIGKILL)
    return status


def _execute(instance: dg.DagsterInstance, run_id: str) -> None:
    run = instance.get_run_by_id(run_id)
    if run is None:
        logger.warning("Run %s no longer exists: nothing to do", run_id)
        return
    if run.status == dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run, RUN_ENDS["canceled"].message)
        return
    if run.status not in {dg.DagsterRunStatus.STARTING, dg.DagsterRunStatus.NOT_STARTED}:
        instance.report_engine_event(f"A worker ignored this run, since its status was {run.status.value}.", run)
        return
    failure: SerializableErrorInfo | None = None
    with RunWatch(instance, run_id):
        try:
            execute_run_command_body(
                run_id=run_id,
                instance=instance,
                write_stream_fn=lambda event: _handle_event(instance, event, run_id),
                set_exit_code_on_failure=True,
            )
        except Exception:  # the run's code cannot be loaded here: nobody else would say so
            failure = serializable_error_info_from_exc_info(sys.exc_info())
    _bring_to_an_end(instance, run_id, failure)


def _handle_event(instance: dg.DagsterInstance, event: dg.DagsterEvent, run_id: str) -> None:
    """Called with each event of the run, in the main thread; raising ends the run's execution."""
    if event.event_type == DagsterEventType.RUN_START and _was_asked_to_cancel(instance, run_id):
        # The start has just overwritten the status CANCELING; say it again, for the watch to see.
        run = instance.get_run_by_id(run_id)
        assert run is not None
        instance.report_run_canceling(run)
    if event.event_type == DagsterEventType.STEP_FAILURE:
        _probe_after_failure(instance, event.step_failure_data.error, run_id)
    if event.event_type == DagsterEventType.STEP_UP_FOR_RETRY and is_interruption(event.step_retry_data.error):
        note_planned_stop(instance, run_id)
        raise DagsterExecutionInterruptedError()
    if event.event_type in _FAILED_STEPS and (loss := device_loss()):
        message = RUN_ENDS["GPU lost"].message.format(said=loss)
        instance.report_engine_event(message, instance.get_run_by_id(run_id))
        raise DagsterExecutionInterruptedError()  # no further attempt of this process can succeed


def _probe_after_failure(instance: dg.DagsterInstance, error: SerializableErrorInfo | None, run_id: str) -> None:
    if is_interruption(error):
        note_planned_stop(instance, run_id)
    elif said := lost_server(error):
        message = RUN_ENDS["server lost"].message.format(said=said)
        instance.report_engine_event(message, instance.get_run_by_id(run_id))
        raise DagsterExecutionInterruptedError()  # before Dagster calls it the asset's failure, which is never retried


def _was_asked_to_cancel(instance: dg.DagsterInstance, run_id: str) -> bool:
    asked = {DagsterEventType.RUN_CANCELING, DagsterEventType.RUN_CANCELED}
    return bool(instance.event_log_storage.get_logs_for_run(run_id, of_type=asked, limit=1))


def _bring_to_an_end(instance: dg.DagsterInstance, run_id: str, failure: SerializableErrorInfo | None) -> None:
    """Report the end of a run whose execution stopped without reporting one."""
    run = instance.get_run_by_id(run_id)
    if run is None or run.is_finished:
        return
    if run.status == dg.DagsterRunStatus.CANCELING:
        instance.report_run_canceled(run)
    elif failure is not None:
        end = RUN_ENDS["cannot be loaded"]
        instance.report_run_failed(run, end.message, end.failure(failure))
    else:
        end = RUN_ENDS["given up"]
        instance.report_run_failed(run, end.message, end.failure())


def _status(instance: dg.DagsterInstance, run_id: str) -> str:
    run = instance.get_run_by_id(run_id)
    return run.status.value if run else "DELETED"
