"""Stopping a nightly batch: its runs that wait or go on, and those that the daemon has yet to launch.

A note in the store says that the batch is stopped; a run of it that starts later ends at once. Its requests count as
canceled (``libs.requests.lifecycle.cancellations``) until they are submitted or tried again.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg
from dagster._core.storage.tags import PARTITION_NAME_TAG

from libs.errors import ArtifactMissingError, InputError
from libs.requests.lifecycle.cancellations import Cancellation, Cancellations
from libs.storage.backends.store import ObjectStore
from orchestration.policies import BATCH_TAG
from orchestration.requests.runs import UNFINISHED, all_runs

_STOPPED_PREFIX = "requests/stopped_batches"


@dataclass(frozen=True)
class StoppedBatch:
    """What stopping a batch did. ``requests``: those whose runs were canceled."""

    batch: str
    requests: tuple[str, ...]
    not_canceled: tuple[str, ...]


def batch_of(scheduled: datetime) -> str:
    """The name of the nightly batch that begins at ``scheduled``, by the day in its own time zone."""
    return f"nightly-{scheduled:%Y-%m-%d}"


def stop_batch(instance: dg.DagsterInstance, objects: ObjectStore, batch: str) -> StoppedBatch:
    """Cancel every queued or running run of ``batch``, and let none of it begin any more.

    Raises:
        InputError: no run of that batch was ever launched; the message names the batches there are.
    """
    if not instance.get_run_ids(dg.RunsFilter(tags={BATCH_TAG: batch}), limit=1):
        known = sorted({run.tags[BATCH_TAG] for run in _recent_batch_runs(instance)}, reverse=True)
        there_are = f"the newest are {', '.join(known[:5])}" if known else "there is none yet"
        raise InputError(f"there is no batch {batch!r}: {there_are}")
    note = json.dumps({"schema_version": 1, "batch": batch, "stopped": datetime.now(UTC).isoformat()})
    objects.put_bytes(_stopped_key(batch), note.encode(), "application/json")
    canceled: list[str] = []
    refused: list[str] = []
    for run in list(all_runs(instance, dg.RunsFilter(statuses=UNFINISHED, tags={BATCH_TAG: batch}))):
        request_id = run.tags.get(PARTITION_NAME_TAG, run.run_id)
        (canceled if instance.run_coordinator.cancel_run(run.run_id) else refused).append(request_id)
    return StoppedBatch(batch, tuple(canceled), tuple(refused))


def stopped_at(objects: ObjectStore, batch: str) -> str | None:
    """When ``batch`` was stopped, as text; None when it was not."""
    try:
        return str(json.loads(objects.get_bytes(_stopped_key(batch)))["stopped"])
    except ArtifactMissingError:
        return None


def require_not_stopped(objects: ObjectStore, batch: str | None, request_id: str) -> None:
    """Let a run of a stopped batch end before it does anything; its request counts as canceled.

    Raises:
        InputError: ``batch`` was stopped.
    """
    if batch is not None and (stopped := stopped_at(objects, batch)):
        by = f"the stop of {batch}"
        Cancellations(objects).remember(Cancellation(request_id=request_id, canceled=datetime.now(UTC), by=by))
        raise InputError(f"the batch {batch} was stopped at {stopped}; submit the request again to make its clip")


def _recent_batch_runs(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    return [run for run in instance.get_runs(limit=1000) if BATCH_TAG in run.tags]


def _stopped_key(batch: str) -> str:
    return f"{_STOPPED_PREFIX}/{batch}.json"
