"""Dagster's PostgreSQL storage, prepared for a server that is away or does not answer.

A statement waits for its answer for a limited time. The driver itself waits for ever for a server that took the
connection and does not answer: a hung host, a proxy, a network that swallows packets. A run whose event is being
written would hold its GPU until somebody notices. With a limit such a server counts as one that is away (``crashes``).

The limits of pools are asked for until they are known: without them Dagster's daemon launches every queued run.
"""

import logging
import select
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self, TypeVar, cast

import dagster as dg
import psycopg2
import psycopg2.extensions
from dagster_postgres import DagsterPostgresStorage, PostgresEventLogStorage
from dagster_postgres.storage import pg_config
from dagster_postgres.utils import get_token_provider_from_config, pg_url_from_config

from orchestration.crashes import lost_server
from orchestration.dagster_internals import (
    ConcurrencyKeyInfo,
    ConfigurableClassData,
    EventLogStorage,
    PoolLimit,
    serializable_error_info_from_exc_info,
)

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 120
"""For a statement; longer than any of Dagster's takes, but for migrations of large databases."""

ASK_AGAIN_SECONDS = 1.0

_CONNECTED = frozenset({
    psycopg2.extensions.STATUS_READY,
    psycopg2.extensions.STATUS_BEGIN,
    psycopg2.extensions.STATUS_PREPARED,
})  # fmt: skip
_READY = {psycopg2.extensions.POLL_READ: select.POLLIN, psycopg2.extensions.POLL_WRITE: select.POLLOUT}


_Answer = TypeVar("_Answer")

_logger = logging.getLogger(__name__)


def until_answered(ask: Callable[[], _Answer]) -> _Answer:
    """Return the answer of ``ask``, repeated for as long as the server is away; other errors are raised."""
    while True:
        try:
            return ask()
        except Exception:
            said = lost_server(serializable_error_info_from_exc_info(sys.exc_info()))
            if said is None:
                raise
        _logger.warning("the limits of pools are not known, and are asked for again: %s", said)
        time.sleep(ASK_AGAIN_SECONDS)


class KnownLimitsEventLogStorage(PostgresEventLogStorage):
    """Event log whose questions about pools wait for the database, however long it is away.

    Dagster's daemon asks them before it launches queued runs. It takes an error for "no limits": the whole queue would
    go to the workers at once, where neither priorities nor ``stop-batch`` reach it.
    """

    def get_concurrency_keys(self) -> set[str]:
        """Names of the pools that have a limit."""
        return until_answered(super().get_concurrency_keys)

    def get_pool_limits(self) -> Sequence[PoolLimit]:
        """Limits of all pools."""
        return until_answered(super().get_pool_limits)

    def get_concurrency_infos(self, concurrency_keys: Sequence[str]) -> Mapping[str, ConcurrencyKeyInfo]:
        """Limits of these pools, and what occupies them."""
        ask = super().get_concurrency_infos
        return until_answered(lambda: ask(concurrency_keys))

    def initialize_concurrency_limit_to_default(self, concurrency_key: str) -> bool:
        """Give a pool the default limit; True if the database can store it."""
        ask = super().initialize_concurrency_limit_to_default
        return until_answered(lambda: ask(concurrency_key))


class BoundedPostgresStorage(DagsterPostgresStorage):
    """Takes the configuration of Dagster's own, and ``answer_seconds``."""

    def __init__(
        self, *, postgres_url: str, should_autocreate_tables: bool, inst_data: Any = None, token_provider: Any = None
    ) -> None:
        """Create the storage like Dagster's, which makes the tables."""
        super().__init__(postgres_url, should_autocreate_tables, inst_data, token_provider)
        self._known_limits = KnownLimitsEventLogStorage(
            postgres_url, should_autocreate_tables=False, token_provider=token_provider
        )

    @property
    def event_log_storage(self) -> EventLogStorage:
        """The one that knows the limits of pools."""
        return self._known_limits

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """The configuration as it is written in ``dagster.yaml``."""
        answer_seconds = dg.Field(dg.IntSource, is_required=False, default_value=ANSWER_SECONDS)
        return {**cast("dict[str, Any]", pg_config()), "answer_seconds": answer_seconds}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> Self:
        """Called by Dagster when it reads ``dagster.yaml``; the limit holds for all of this process's connections."""
        psycopg2.extensions.set_wait_callback(waiting_at_most(config_value["answer_seconds"]))
        return cls(
            inst_data=inst_data,
            postgres_url=pg_url_from_config(config_value),
            should_autocreate_tables=config_value.get("should_autocreate_tables", True),
            token_provider=get_token_provider_from_config(config_value),
        )


def waiting_at_most(answer_seconds: float, connect_seconds: float = CONNECT_SECONDS) -> Callable[[Any], None]:
    """A wait callback of psycopg2 that gives a connection up when nothing comes for so long."""

    def wait(connection: Any) -> None:
        while (state := _poll(connection)) != psycopg2.extensions.POLL_OK:
            is_new = connection.status not in _CONNECTED
            seconds = connect_seconds if is_new else answer_seconds
            poller = select.poll()
            poller.register(connection.fileno(), _READY[state])
            if not poller.poll(seconds * 1000):
                doing = "took the connection" if is_new else "took the statement"
                raise psycopg2.OperationalError(f"the database {doing} and has not answered for {seconds:g} s")

    return wait


def _poll(connection: Any) -> int:
    """Ask libpq for the connection's state; a refused connection is an error that names the server."""
    try:
        state: int = connection.poll()
    except psycopg2.OperationalError as error:
        if connection.status in _CONNECTED:
            raise
        # waiting this way, libpq says "Connection refused" alone
        server = psycopg2.extensions.parse_dsn(connection.dsn)
        address = f'"{server.get("host", "")}", port {server.get("port", "5432")}'
        raise psycopg2.OperationalError(f"connection to server at {address} failed: {error}") from error
    return state
