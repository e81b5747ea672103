"""Which worker holds which run, asked of the workers themselves, and which runs still wait in Redis.

A worker that is killed, hung or cut off does not answer; that is the only trustworthy sign of a lost host. See
``orchestration.fleet.run_launcher`` and ``lost_launches`` for what follows from a missing answer.
"""

import json
import logging
import time
from collections.abc import Callable, Collection

from celery import Celery
from kombu.exceptions import OperationalError
from redis.exceptions import RedisError

from orchestration.fleet.launching.celery_app import ask_workers

logger = logging.getLogger(__name__)

ANSWER_SECONDS = 2.0
"""How long workers have to answer; they do so from their event loop, within milliseconds, also while they work."""

VALID_SECONDS = 4.0
"""One answer serves all runs of one pass of the run monitoring."""

BROKER_ERRORS = (OperationalError, RedisError, OSError)
"""What asking raises when Redis is away: nothing can be concluded about any worker then."""


class ActiveRunQuery:
    """Asks all workers which of a set of runs they hold; task ids are run ids."""

    def __init__(
        self,
        app: Celery,
        answer_seconds: float = ANSWER_SECONDS,
        valid_seconds: float = VALID_SECONDS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._answer_seconds = answer_seconds
        self._valid_seconds = valid_seconds
        self._clock = clock
        self._asked_at = float("-inf")
        self._asked_for: frozenset[str] = frozenset()
        self._holders: dict[str, str] = {}

    def holders(self, run_ids: Collection[str]) -> dict[str, str]:
        """Run id -> worker name, for those of ``run_ids`` that a worker executes or is about to.

        Answers a few seconds old are used again if they cover ``run_ids``.

        Raises:
            one of BROKER_ERRORS: Redis cannot be reached.
        """
        wanted = frozenset(run_ids)
        if not wanted <= self._asked_for or self._clock() - self._asked_at > self._valid_seconds:
            self._holders = self._ask(wanted)
            self._asked_for, self._asked_at = wanted, self._clock()
        return {run_id: worker for run_id, worker in self._holders.items() if run_id in wanted}

    def _ask(self, run_ids: frozenset[str]) -> dict[str, str]:
        # Not `control.inspect`: of two workers with one name (cloned hosts) it keeps only the last answer,
        # and the run of the other one would count as lost.
        answers = ask_workers(self._app, "query_task", seconds=self._answer_seconds, arguments={"ids": sorted(run_ids)})
        return {
            run_id: worker
            for answer in answers
            for worker, tasks in answer.items()
            for run_id, (state, _request) in tasks.items()
            if state in {"active", "reserved"}
        }

    def waiting(self, queues: Collection[str]) -> set[str]:
        """The run ids that wait in ``queues``, taken by no worker yet; what is no message of Celery's is left aside.

        Raises:
            one of BROKER_ERRORS: Redis cannot be reached.
        """
        with self._app.connection_for_read() as connection, connection.channel() as channel:
            messages = [message for queue in queues for message in channel.client.lrange(queue, 0, -1)]
        return {run_id for message in messages if (run_id := _run_id(message)) is not None}


def _run_id(message: bytes) -> str | None:
    """The run id of a message that waits in Redis; None if no worker could take the message."""
    try:
        return str(json.loads(message)["headers"]["id"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        logger.warning("A message in the queue is ignored: it is not one of Celery's (%r)", error)
        return None
