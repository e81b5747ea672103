"""Dagster's PostgreSQL storage with a limit to how long it waits for an answer.

The driver waits for ever for a server that took the connection and says nothing: a hung host, a proxy, a network that
swallows packets. A run whose event is being written would hold its GPU until somebody notices. With a limit such a
server counts as one that is away (``lost_servers``). What does not belong here: what is stored.
"""

import select
from collections.abc import Callable
from typing import Any, Self, cast

import dagster as dg
import psycopg2
import psycopg2.extensions
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage
from dagster_postgres.storage import pg_config
from dagster_postgres.utils import get_token_provider_from_config, pg_url_from_config

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 120
"""For a statement; longer than any of Dagster's takes, but for migrations of large databases."""

_CONNECTED = frozenset({
    psycopg2.extensions.STATUS_READY,
    psycopg2.extensions.STATUS_BEGIN,
    psycopg2.extensions.STATUS_PREPARED,
})  # fmt: skip
_READY = {psycopg2.extensions.POLL_READ: select.POLLIN, psycopg2.extensions.POLL_WRITE: select.POLLOUT}


class BoundedPostgresStorage(DagsterPostgresStorage):
    """Takes the configuration of Dagster's own, and ``answer_seconds``."""

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """As in ``dagster.yaml``."""
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
        while (state := connection.poll()) != psycopg2.extensions.POLL_OK:
            is_new = connection.status not in _CONNECTED
            seconds = connect_seconds if is_new else answer_seconds
            poller = select.poll()
            poller.register(connection.fileno(), _READY[state])
            if not poller.poll(seconds * 1000):
                doing = "took the connection" if is_new else "took the statement"
                raise psycopg2.OperationalError(f"the database {doing} and has not answered for {seconds:g} s")

    return wait
