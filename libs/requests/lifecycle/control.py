"""Cancel a request, or try it again: for the command line and the studio alike.

See ``libs.requests.lifecycle.run_reports`` for ending runs, ``orchestration.requests.retries`` for launching them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum

from libs.errors import InputError
from libs.requests.lifecycle.accepted import AcceptedRequests
from libs.requests.lifecycle.cancellations import Cancellation, Cancellations, Retries
from libs.requests.lifecycle.run_reports import CanceledRuns, RequestRuns, RunPhase, RunReport
from libs.requests.lifecycle.states import ClipState, RequestStates
from libs.storage.artifacts import ArtifactStore


@dataclass(frozen=True)
class CancelResult:
    """What canceling a request did.

    Attributes:
        is_stored: its clip is stored already, and nothing was done.
        runs: what became of its runs; None where Dagster could not be asked, so that a run in progress goes on.
    """

    is_stored: bool = False
    runs: CanceledRuns | None = None

    @property
    def is_complete(self) -> bool:
        """Whether nothing goes on."""
        return self.is_stored or (self.runs is not None and not self.runs.refused)


class RetryResult(StrEnum):
    """What trying a request again brings about."""

    IN_PROGRESS = "is being made already"
    STORED = "already made"
    TONIGHT = "tonight"
    NOW = "runs now"


def cancel_request(store: ArtifactStore, runs: RequestRuns | None, request_id: str, by: str) -> CancelResult:
    """Make no clip of ``request_id`` until it is submitted or tried again, and end its runs.

    Args:
        store: has the request.
        runs: its runs; None where Dagster cannot be asked.
        request_id: a known request.
        by: who cancels it, for people.
    """
    (state,) = RequestStates(store).of([request_id])
    if state.clip == ClipState.STORED:
        return CancelResult(is_stored=True)
    note = Cancellation(request_id=request_id, canceled=datetime.now(UTC), by=by, content=state.content, run_id=None)
    Cancellations(store.objects).remember(note)
    Retries(store.objects).done(request_id)
    return CancelResult(runs=runs.cancel(request_id) if runs is not None else None)


def retry_request(
    store: ArtifactStore, reports: Mapping[str, RunReport], request_id: str, *, tonight: bool = False
) -> RetryResult:
    """Make the clip of a request that failed or was canceled: at the next scan of the inbox, or with the night's batch.

    Args:
        store: has the request.
        reports: runs in progress.
        request_id: a known request.
        tonight: with the next nightly batch.

    Raises:
        InputError: nothing was accepted for it.
    """
    report = reports.get(request_id)
    if report is not None and report.phase in {RunPhase.QUEUED, RunPhase.RUNNING}:
        return RetryResult.IN_PROGRESS
    (state,) = RequestStates(store).of([request_id])
    if state.clip == ClipState.STORED:
        return RetryResult.STORED
    requests = AcceptedRequests(store.objects)
    accepted = requests.find(request_id)
    if accepted is None:
        raise InputError(f"{request_id}: nothing was accepted for it; submit it")
    requests.resubmit(accepted)
    Cancellations(store.objects).forget(request_id)
    if tonight:
        return RetryResult.TONIGHT
    Retries(store.objects).ask(request_id)
    return RetryResult.NOW
