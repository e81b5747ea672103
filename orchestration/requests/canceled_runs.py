"""Requests that were canceled, by the command or in Dagster's UI: the runs' own records tell, the store remembers.

The records survive a daemon that was away when somebody pressed the button; the store survives the pruning of old runs.
See ``orchestration.requests.control`` for canceling.
"""

from collections.abc import Iterable
from datetime import UTC, datetime

import dagster as dg

from libs.errors import StorageError, StorageUnavailableError
from libs.requests.lifecycle.accepted import AcceptedRequest, AcceptedRequests
from libs.requests.lifecycle.cancellations import Cancellation, Cancellations
from libs.requests.lifecycle.states import RequestState
from libs.storage.backends.store import ObjectStore
from orchestration.dagster_internals import PARTITION_NAME_TAG
from orchestration.policies import DROPPED_TAG
from orchestration.requests.runs import all_runs, makes_a_clip

_NEWEST = 20
"""Runs of one request that are looked at to find the newest that makes its clip."""


def canceled_requests(instance: dg.DagsterInstance, objects: ObjectStore, missing: Iterable[RequestState]) -> set[str]:
    """Those of the requests ``missing`` a clip that were canceled, and not submitted again since.

    A cancel that only Dagster knew of is remembered in the store.
    """
    ids = {state.request_id for state in missing}
    if not ids:
        return set()
    requests, cancellations = AcceptedRequests(objects), Cancellations(objects)
    noted = cancellations.among(ids)
    canceled = {name for name, noted_ in noted.items() if noted_.holds_for(_find(requests, name))}
    with_canceled_run = {
        run.tags[PARTITION_NAME_TAG]
        for run in all_runs(instance, dg.RunsFilter(statuses=[dg.DagsterRunStatus.CANCELED]))
        if makes_a_clip(run) and DROPPED_TAG not in run.tags
    }
    for request_id in (ids & with_canceled_run) - canceled:
        record = newest_clip_run(instance, request_id)
        if record is None or record.dagster_run.status != dg.DagsterRunStatus.CANCELED:
            continue
        found = Cancellation(
            request_id=request_id,
            canceled=ended_at(record),
            by="the Dagster UI",
            run_id=record.dagster_run.run_id,
        )
        if found.holds_for(_find(requests, request_id)):
            cancellations.remember(found)
            canceled.add(request_id)
    return canceled


def newest_clip_run(instance: dg.DagsterInstance, request_id: str) -> dg.RunRecord | None:
    """The record of the newest run that makes the clip of ``request_id``; not one dropped for another."""
    of_request = dg.RunsFilter(tags={PARTITION_NAME_TAG: request_id})
    records = instance.get_run_records(of_request, limit=_NEWEST)
    clip_runs = (record for record in records if makes_a_clip(record.dagster_run))
    return next((record for record in clip_runs if DROPPED_TAG not in record.dagster_run.tags), None)


def ended_at(record: dg.RunRecord) -> datetime:
    """The time at which the run ended, or else changed last."""
    if record.end_time:
        return datetime.fromtimestamp(record.end_time, UTC)
    updated = record.update_timestamp
    return updated.astimezone(UTC) if updated.tzinfo else updated.replace(tzinfo=UTC)


def _find(requests: AcceptedRequests, request_id: str) -> AcceptedRequest | None:
    try:
        return requests.find(request_id)
    except StorageUnavailableError:
        raise
    except StorageError:
        return None
