"""Whether a step failed because a server of the fleet did not answer: PostgreSQL, Redis, or the bucket below Dagster.

Dagster writes a run's events between the lines of an asset. While its database is away, the driver's error surfaces
there, and it looks like the asset's own. Such a run has crashed: it is retried, and goes on at its last chunk. What
does not belong here: errors that ``libs`` explains (``StorageUnavailableError``), which have a retry policy.
"""

from collections.abc import Iterator

from orchestration.dagster_internals import SerializableErrorInfo

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
"""Module -> names of its errors that say nothing about what a step did. Of Dagster's error info only names are left."""

_EXPLAINED = "libs.errors."


def lost_server(error: SerializableErrorInfo | None) -> str | None:
    """What the driver said, in one line, where a lost connection is among ``error`` and its causes; otherwise None.

    None as well where ``libs`` has explained the failure: that is what the asset says of its own work.
    """
    chain = list(_chain(error))
    if any(_qualified_name(one).startswith(_EXPLAINED) for one in chain):
        return None
    return next((_first_line(one) for one in chain if _is_lost_connection(one)), None)


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
