"""What the command line wants to know of runs: a protocol, which ``orchestration.requests.control`` implements."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol


class RunPhase(StrEnum):
    """How far a run is."""

    QUEUED = "queued"
    RUNNING = "running"
    FAILED = "failed"
    CANCELED = "canceled"
    ENDED = "ended"


@dataclass(frozen=True)
class RunReport:
    """The newest run that makes the clip of a request.

    ``ahead``: queued runs before it. ``doing``: what it is at, e.g. ``sampling, chunk 2 of 4, 43 %, 3 min left``.
    ``reason``: why it failed. ``changed``: when it came into its phase. ``percent``, ``seconds_left``: of the stage it
    is at, where the stage has reported them. ``run_id``: Dagster's name of the run.
    """

    phase: RunPhase
    changed: datetime
    ahead: int = 0
    doing: str = ""
    reason: str = ""
    percent: int | None = None
    seconds_left: float | None = None
    run_id: str = ""


@dataclass(frozen=True)
class CanceledRuns:
    """What canceling did: runs that end, and runs that could not be told to."""

    canceled: int = 0
    refused: tuple[str, ...] = ()


class RequestRuns(Protocol):
    """The runs of requests, as Dagster's instance knows them."""

    def reports(self, missing: Iterable[str], shown: Iterable[str] = ()) -> Mapping[str, RunReport]:
        """Runs in progress of all requests, and of those ``missing`` a clip the newest that ended.

        What exactly a run is at is told for those that are ``shown``.
        """

    def stale(self, request_ids: Iterable[str]) -> Mapping[str, Sequence[str]]:
        """Why the clips of ``request_ids`` are not what would be made now; nothing of those that are."""

    def cancel(self, request_id: str) -> CanceledRuns:
        """End the runs of ``request_id`` that wait or go on."""
