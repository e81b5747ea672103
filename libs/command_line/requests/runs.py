"""Access of commands to the runs of requests, provided by whoever starts the command line.

``orchestration.command_line`` hands in Dagster's instance; without it, commands report what the store knows.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from libs.requests.lifecycle.run_reports import RequestRuns


class RunsOrReason(NamedTuple):
    """The runs, or why they cannot be asked for."""

    runs: RequestRuns | None
    reason: str = ""


def _nobody() -> RunsOrReason:
    return RunsOrReason(None, "this command was started without Dagster")


_open: Callable[[], RunsOrReason] = _nobody


@contextmanager
def provided_runs(opener: Callable[[], RunsOrReason]) -> Iterator[None]:
    """Within it, commands find runs by ``opener``, which is called when one is needed."""
    global _open  # noqa: PLW0603 - one command line, one process
    before, _open = _open, opener
    try:
        yield
    finally:
        _open = before


def open_runs() -> RunsOrReason:
    """The runs of requests, or the reason why they cannot be read."""
    return _open()
