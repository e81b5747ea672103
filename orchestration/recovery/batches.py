"""Stopping a nightly batch: its runs that wait or go on, and those that the daemon has yet to launch.

A note in the store says that the batch is stopped; a run of it that starts later ends at once. Its requests count as
canceled (``libs.requests.lifecycle.cancellations``) until they are submitted or tried again. Another note, which the
schedule writes before the first launch, says what the newest batch consists of: so those that were never launched are
known.
"""

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import dagster as dg
from pydantic import BaseModel, ConfigDict, ValidationError

from libs.errors import ArtifactMissingError, InputError
from libs.requests.lifecycle.accepted import AcceptedRequests
from libs.requests.lifecycle.cancellations import Cancellation, Cancellations
from libs.requests.lifecycle.states import CLIP_ASSET, stored_partitions
from libs.storage.backends.store import ObjectStore
from orchestration.dagster_internals import PARTITION_NAME_TAG
from orchestration.policies import BATCH_TAG
from orchestration.requests.runs import UNFINISHED, RunsInProgress, all_runs

_log = logging.getLogger(__name__)

_STOPPED_PREFIX = "requests/stopped_batches"
_NEWEST_BATCH_KEY = "requests/newest_batch.json"


class PlannedBatch(BaseModel):
    """What the schedule last asked Dagster to launch."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal[1] = 1
    batch: str
    requests: tuple[str, ...]


@dataclass(frozen=True)
class StoppedBatch:
    """What stopping a batch did.

    Attributes:
        batch: its name.
        requests: those whose runs were canceled.
        not_launched: those that had no run yet; they count as canceled, too.
        not_canceled: those whose run could not be canceled.
    """

    batch: str
    requests: tuple[str, ...]
    not_launched: tuple[str, ...]
    not_canceled: tuple[str, ...]


def batch_of(scheduled: datetime) -> str:
    """The name of the nightly batch that begins at ``scheduled``, by the day in its own time zone."""
    return f"nightly-{scheduled:%Y-%m-%d}"


def note_plan(objects: ObjectStore, batch: str, request_ids: Iterable[str]) -> None:
    """Note what ``batch`` consists of, before the first of its runs is launched; replaces the note of the last one."""
    plan = PlannedBatch(batch=batch, requests=tuple(request_ids))
    objects.put_bytes(_NEWEST_BATCH_KEY, plan.model_dump_json().encode(), "application/json")


def stop_batch(instance: dg.DagsterInstance, objects: ObjectStore, batch: str) -> StoppedBatch:
    """Cancel every queued or running run of ``batch``, and let no further run of it begin.

    Raises:
        InputError: there never was such a batch; the message names those there are.
    """
    planned = _plan_of(objects, batch)
    if planned is None and not instance.get_run_ids(dg.RunsFilter(tags={BATCH_TAG: batch}), limit=1):
        known = sorted({run.tags[BATCH_TAG] for run in _recent_batch_runs(instance)}, reverse=True)
        there_are = f"the newest are {', '.join(known[:5])}" if known else "there is none yet"
        raise InputError(f"there is no batch {batch!r}: {there_are}")
    note = json.dumps({"schema_version": 1, "batch": batch, "stopped": datetime.now(UTC).isoformat()})
    objects.put_bytes(stopped_key(batch), note.encode(), "application/json")
    not_launched = _cancel_the_unlaunched(instance, objects, planned) if planned else ()
    canceled: list[str] = []
    refused: list[str] = []
    for run in list(all_runs(instance, dg.RunsFilter(statuses=UNFINISHED, tags={BATCH_TAG: batch}))):
        request_id = run.tags.get(PARTITION_NAME_TAG, run.run_id)
        (canceled if instance.run_coordinator.cancel_run(run.run_id) else refused).append(request_id)
    return StoppedBatch(batch, tuple(canceled), not_launched, tuple(refused))


def _plan_of(objects: ObjectStore, batch: str) -> PlannedBatch | None:
    """What the schedule noted of ``batch``; None where it noted nothing, or a newer one since."""
    try:
        plan = PlannedBatch.model_validate_json(objects.get_bytes(_NEWEST_BATCH_KEY))
    except (ArtifactMissingError, ValidationError):
        return None
    return plan if plan.batch == batch else None


def _cancel_the_unlaunched(
    instance: dg.DagsterInstance, objects: ObjectStore, planned: PlannedBatch
) -> tuple[str, ...]:
    """Note as canceled what has no run of the batch and waits for its clip; what other runs make is left alone."""
    of_batch = dg.RunsFilter(tags={BATCH_TAG: planned.batch})
    launched = {run.tags.get(PARTITION_NAME_TAG) for run in all_runs(instance, of_batch)}
    done = stored_partitions(objects, CLIP_ASSET).keys() - {
        marker.request_id for marker in AcceptedRequests(objects).pending_markers()
    }
    progress = RunsInProgress(instance)
    cancellations = Cancellations(objects)
    noted = []
    for request_id in planned.requests:
        if request_id in launched or request_id in done or progress.cover(request_id, None):
            continue
        cancellations.remember(_canceled_with(planned.batch, request_id))
        noted.append(request_id)
    return tuple(noted)


def _canceled_with(batch: str, request_id: str) -> Cancellation:
    return Cancellation(request_id=request_id, canceled=datetime.now(UTC), by=f"the stop of {batch}")


def stopped_at(objects: ObjectStore, batch: str) -> str | None:
    """The time at which ``batch`` was stopped, as text; None if it was not, or if the note is damaged."""
    try:
        note = objects.get_bytes(stopped_key(batch))
    except ArtifactMissingError:
        return None
    try:
        return str(json.loads(note)["stopped"])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        _log.warning(
            "%s is damaged (%r) and counts as none: if the batch %s is to stay stopped, run `one-to-all stop-batch %s` "
            "again",
            objects.uri(stopped_key(batch)),
            error,
            batch,
            batch,
        )
        return None


def require_not_stopped(objects: ObjectStore, batch: str | None, request_id: str) -> None:
    """Let a run of a stopped batch end before it does anything; its request counts as canceled.

    Raises:
        InputError: ``batch`` was stopped.
    """
    if batch is not None and (stopped := stopped_at(objects, batch)):
        Cancellations(objects).remember(_canceled_with(batch, request_id))
        raise InputError(f"the batch {batch} was stopped at {stopped}; submit the request again to make its clip")


def _recent_batch_runs(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    return [run for run in instance.get_runs(limit=1000) if BATCH_TAG in run.tags]


def stopped_key(batch: str) -> str:
    """The key of the note that ``batch`` was stopped."""
    return f"{_STOPPED_PREFIX}/{batch}.json"
