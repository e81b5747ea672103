"""The one place where an error of ``libs`` becomes a Dagster failure.

A step that raises a ``retryable`` error is tried again (``STEP_RETRIES``); all others are final, since the same input
would fail again. See ``libs.errors`` for what is retryable, ``orchestration.crashes`` for runs that are made again.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from libs.errors import OneToAllError
from libs.storage.backends.disk_errors import disk_in_trouble

STEP_RETRIES = dg.RetryPolicy(max_retries=3, delay=5, backoff=dg.Backoff.EXPONENTIAL, jitter=dg.Jitter.PLUS_MINUS)
"""For steps that talk to a store or a hub: 5, 10 and 20 seconds, then the error stands."""


@contextmanager
def failures_explained() -> Iterator[None]:
    """Turn an :class:`OneToAllError` into ``dg.Failure`` with its message first and the right ``allow_retries``.

    A disk that is full, wherever it was written to, is explained as well, and tried again.
    """
    try:
        yield
    except OneToAllError as error:
        raise dg.Failure(
            description=str(error),
            metadata={"error": type(error).__name__},
            allow_retries=error.retryable,
        ) from error
    except OSError as error:
        advice = disk_in_trouble(error)
        if advice is None:
            raise
        # Dagster would retry this as well, and then say no more than that it did.
        raise dg.Failure(description=advice, metadata={"error": type(error).__name__}, allow_retries=True) from error
