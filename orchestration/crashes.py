"""What ended a run, and whether it counts as a crash: a crashed run is made again, and goes on at its last chunk.

``RUN_ENDS`` is the table; each row names the module that notices it. A failure of a step is final where ``libs`` has
explained it: a wrong request stays wrong. ``RUN_RETRIES`` is what ``dagster.yaml`` and ``infra/dagster.prod.yaml`` tell
Dagster about crashes. See ``orchestration.failures`` for a step that is tried again within its run.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from orchestration.dagster_internals import (
    DagsterExecutionInterruptedError,
    JobFailureData,
    RunFailureReason,
    SerializableErrorInfo,
)

RUN_RETRIES: Mapping[str, bool | int] = {
    "enabled": True,
    "max_retries": 2,
    "retry_on_asset_or_op_failure": False,  # crashes only
}
"""``run_retries`` of every Dagster instance: how often a crashed run is made again."""

RunEndName = Literal[
    "worker died",
    "worker silent",
    "message lost",
    "never started",
    "GPU lost",
    "server lost",
    "given up",
    "cannot be loaded",
    "worker stopped",
    "killed for a cancel",
    "canceled",
    "step failed",
]


@dataclass(frozen=True)
class RunEnd:
    """One way for a run to end without success.

    Attributes:
        seen_by: the module that notices it.
        message: what the run's events say; fields in braces are filled in where it is noticed.
        is_crash: Dagster makes the run again.
        spends_a_retry: of ``RUN_RETRIES``; a planned stop spends none.
        reason: what Dagster is told where this project reports the failure; None where Dagster reports it.
    """

    seen_by: str
    message: str
    is_crash: bool = True
    spends_a_retry: bool = True
    reason: RunFailureReason | None = None

    def failure(self, error: SerializableErrorInfo | None = None) -> JobFailureData:
        """What ``report_run_failed`` takes."""
        return JobFailureData(error=error, failure_reason=self.reason)


_MONITORING = "dagster._daemon.monitoring"
_LAUNCHER = "orchestration.fleet.run_launcher"
_TASK = "orchestration.fleet.working.run_task"

RUN_ENDS: Mapping[RunEndName, RunEnd] = {
    "worker died": RunEnd(_LAUNCHER, "The worker's process died (Celery: {state})."),
    "worker silent": RunEnd(_LAUNCHER, "No worker has known the run for {seconds:.0f} s: its host is lost or hung."),
    "message lost": RunEnd(
        "orchestration.fleet.launching.lost_launches",
        "No worker took the run, and it no longer waits in its queue: its message was lost with a worker.",
        reason=RunFailureReason.UNEXPECTED_TERMINATION,
    ),
    "never started": RunEnd(_MONITORING, "as Dagster words it, after start_timeout_seconds"),
    "GPU lost": RunEnd(
        _TASK, "The worker's process lost its GPU ({said}): it ends, and another one makes this run again."
    ),
    "server lost": RunEnd(
        _TASK, "The run lost the connection to a server ({said}): it counts as crashed, and is made again."
    ),
    "given up": RunEnd(
        _TASK,
        "The run's execution was given up here: it is made again.",
        reason=RunFailureReason.UNEXPECTED_TERMINATION,
    ),
    "cannot be loaded": RunEnd(_TASK, "The worker could not execute the run.", reason=RunFailureReason.RUN_EXCEPTION),
    "worker stopped": RunEnd(
        "orchestration.fleet.working.planned_stop",
        "The worker of this run was told to stop: the run is made again, without spending a retry.",
        spends_a_retry=False,
    ),
    "killed for a cancel": RunEnd(
        "orchestration.fleet.working.run_watch",
        "The step did not stop within {seconds:.0f} s; its process was killed.",
        is_crash=False,
        spends_a_retry=False,
    ),
    "canceled": RunEnd(_TASK, "Canceled before its execution began.", is_crash=False, spends_a_retry=False),
    "step failed": RunEnd("orchestration.failures", "{description}", is_crash=False, spends_a_retry=False),
}
"""Name -> what it means for the run."""

_LOST_CONNECTIONS = {
    # sqlalchemy's DatabaseError itself is a driver that lost its connection; its subclasses DataError, IntegrityError
    # and ProgrammingError are mistakes, and not listed.
    "sqlalchemy.exc": {
        "DatabaseError",
        "DBAPIError",
        "InterfaceError",
        "OperationalError",
        "PendingRollbackError",
        "ResourceClosedError",
        "TimeoutError",
    },
    "psycopg2": {"DatabaseError", "InterfaceError", "OperationalError"},
    "psycopg2.errors": {
        "AdminShutdown",
        "CannotConnectNow",
        "ConnectionDoesNotExist",
        "ConnectionException",
        "ConnectionFailure",
        "CrashShutdown",
        "DiskFull",
        "IdleSessionTimeout",
        "ReadOnlySqlTransaction",
        "SqlclientUnableToEstablishSqlconnection",
        "SqlserverRejectedEstablishmentOfSqlconnection",
        "TooManyConnections",
    },
    "dagster_postgres.utils": {"DagsterPostgresException"},
    "redis.exceptions": {"BusyLoadingError", "ConnectionError", "MaxConnectionsError", "ReadOnlyError", "TimeoutError"},
    "kombu.exceptions": {"OperationalError"},
    "botocore.exceptions": {
        "ConnectionClosedError",
        "ConnectionError",
        "ConnectTimeoutError",
        "EndpointConnectionError",
        "ProxyConnectionError",
        "ReadTimeoutError",
        "ResponseStreamingError",
        "SSLError",
    },
}
"""Module -> names of its errors that are not caused by the step. Dagster's error info holds only names."""

_EXPLAINED = "libs.errors."


def lost_server(error: SerializableErrorInfo | None) -> str | None:
    """What the driver said, in one line, where a lost connection is among ``error`` and its causes; otherwise None.

    Dagster writes a run's events between the lines of an asset. While its database is away, the driver's error surfaces
    there, and it looks like the asset's.

    None as well where ``libs`` has explained the failure: that is what the asset says of its own work.
    """
    chain = list(_chain(error))
    if any(_qualified_name(one).startswith(_EXPLAINED) for one in chain):
        return None
    return next((_first_line(one) for one in chain if _is_lost_connection(one)), None)


def is_interruption(error: SerializableErrorInfo | None) -> bool:
    """True if ``error`` or what caused it is an interrupt: a step's retry policy asks for a retry of that, too."""
    while error is not None:
        if error.cls_name == DagsterExecutionInterruptedError.__name__:
            return True
        error = error.cause
    return False


def _chain(error: SerializableErrorInfo | None) -> Iterator[SerializableErrorInfo]:
    if error is None:
        return
    yield error
    yield from _chain(error.cause)
    if error.context is not error.cause:
        yield from _chain(error.context)


def _is_lost_connection(error: SerializableErrorInfo) -> bool:
    module, _, name = _qualified_name(error).rpartition(".")
    return name in _LOST_CONNECTIONS.get(module, ())


def _qualified_name(error: SerializableErrorInfo) -> str:
    """Module and class: ``message`` begins with them, as a traceback's last line does."""
    return _first_line(error).partition(":")[0]


def _first_line(error: SerializableErrorInfo) -> str:
    return (error.message.splitlines() or [""])[0].strip()
