"""Bringing Dagster's database and the store together, after either was restored from a backup.

Whatever their ages: every accepted request that is not archived gets its partition, what is stored is recorded, and
what is neither stored nor pending is pending again. ``one-to-all restore`` is the command.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field

import dagster as dg

from libs.errors import StorageError, StorageUnavailableError
from libs.requests.lifecycle.accepted import CONTENT_ATTRIBUTE, AcceptedRequest, AcceptedRequests
from libs.requests.lifecycle.archive import ARCHIVE_PREFIX
from libs.requests.lifecycle.states import CLIP_ASSET, stored_partitions
from libs.storage.artifacts import ArtifactStore
from orchestration.dagster_internals import PARTITION_NAME_TAG
from orchestration.partitions import ANIMATION_REQUESTS, remember_variants_of_requests
from orchestration.policies import CONTENT_TAG, DROPPED_TAG
from orchestration.recovery.adoption import (
    StoredArtifact,
    adopt,
    lacks_review,
    unrecorded_artifacts,
    unrecorded_model_files,
)
from orchestration.requests.runs import UNFINISHED, RunsInProgress, all_runs, makes_a_clip


@dataclass
class Mended:
    """What was recorded, and the clips whose review the sensor ``unrecorded_clips`` is asked to launch."""

    adopted: list[StoredArtifact] = field(default_factory=list)
    without_review: list[str] = field(default_factory=list)


@dataclass
class Restoration:
    """What a restoration does, by request.

    Attributes:
        registered: they get their partition back.
        adopted: stored artifacts that are recorded in the catalogue.
        without_review: stored clips that get a review.
        reopened: neither clip nor pending marker was there; they are pending again.
        dropped: queued runs (run id, request) for clips that are stored already.
        damaged: accepted requests that cannot be read, with the reason; left alone.
    """

    registered: list[str] = field(default_factory=list)
    adopted: list[StoredArtifact] = field(default_factory=list)
    without_review: list[str] = field(default_factory=list)
    reopened: list[str] = field(default_factory=list)
    dropped: list[tuple[str, str]] = field(default_factory=list)
    damaged: list[str] = field(default_factory=list)


def mend(instance: dg.DagsterInstance, store: ArtifactStore) -> Mended:
    """Record every stored artifact that the catalogue lacks; mark clips without a review, which then get one.

    Requests that a run is busy with are left alone.
    """
    busy = RunsInProgress(instance)
    registered = set(instance.get_dynamic_partitions(str(ANIMATION_REQUESTS.name)))
    idle = [request_id for request_id in registered if not busy.cover(request_id, None)]
    mended = Mended(adopt(instance, store, unrecorded_artifacts(instance, store, idle)))
    mended.adopted += adopt(instance, store, unrecorded_model_files(instance, store))  # then what is stale is known
    mended.without_review = _ask_for_reviews(store, idle, apply=True)
    return mended


def restore(instance: dg.DagsterInstance, store: ArtifactStore, *, apply: bool) -> Restoration:
    """Bring database and store together.

    No worker may be at work: a run in progress whose clip is stored counts as one that the backup remembers.

    Args:
        instance: Dagster's database, restored or empty.
        store: the bucket, restored or as it was.
        apply: False only says what would be done.

    Raises:
        StorageUnavailableError: the store did not answer; do it again, what was done is not done twice.
    """
    result = Restoration()
    at_work = _check_requests(instance, store, result)
    ids = [accepted.request.id for accepted in at_work]
    if apply:
        instance.add_dynamic_partitions(str(ANIMATION_REQUESTS.name), result.registered)
        models = {accepted.request.id: accepted.request.model for accepted in at_work}
        remember_variants_of_requests(instance, models)
        for accepted in at_work:
            if accepted.request.id in result.reopened:
                AcceptedRequests(store.objects).mark_pending(accepted)
    busy = _drop_runs_of_stored_clips(instance, store, result, apply=apply)
    idle = [request_id for request_id in ids if request_id not in busy]
    for unrecorded in (unrecorded_artifacts(instance, store, idle), unrecorded_model_files(instance, store)):
        if apply:
            result.adopted += adopt(instance, store, unrecorded)
        else:
            result.adopted += [StoredArtifact(found.asset, str(found.partition)) for found in unrecorded]
    result.without_review = _ask_for_reviews(store, idle, apply=apply)
    return result


def _check_requests(instance: dg.DagsterInstance, store: ArtifactStore, result: Restoration) -> list[AcceptedRequest]:
    """The accepted requests that are not archived; notes in ``result`` what they lack."""
    requests = AcceptedRequests(store.objects)
    clips = stored_partitions(store.objects, CLIP_ASSET)
    pending = {marker.request_id for marker in requests.pending_markers()}
    registered = set(instance.get_dynamic_partitions(str(ANIMATION_REQUESTS.name)))
    archived = _archived(store) - pending - registered
    at_work = []
    for request_id in sorted(set(requests.ids()) - archived):
        try:
            accepted = requests.find(request_id)
            shown = _content_shown(store, request_id) if request_id in clips else None
        except StorageUnavailableError:
            raise
        except StorageError as error:
            result.damaged.append(f"{request_id}: {error}")
            continue
        if accepted is None:
            continue
        at_work.append(accepted)
        if request_id not in registered:
            result.registered.append(request_id)
        if request_id not in pending and shown != accepted.content:
            result.reopened.append(request_id)
    return at_work


def _drop_runs_of_stored_clips(
    instance: dg.DagsterInstance, store: ArtifactStore, result: Restoration, *, apply: bool
) -> set[str]:
    """Cancel unfinished runs whose clip is stored; returns the requests that other runs are for."""
    busy = set()
    for run in list(all_runs(instance, dg.RunsFilter(statuses=UNFINISHED))):
        request_id, content = run.tags.get(PARTITION_NAME_TAG), run.tags.get(CONTENT_TAG)
        if request_id is None:
            continue
        if content is None or not makes_a_clip(run) or not _shows(store, request_id, content):
            busy.add(request_id)
            continue
        result.dropped.append((run.run_id, request_id))
        if apply:
            instance.add_run_tags(run.run_id, {DROPPED_TAG: "restored"})  # no person canceled it
            instance.report_run_canceled(run, message="Its clip is stored already: found by a restoration.")
    return busy


def _ask_for_reviews(store: ArtifactStore, request_ids: Iterable[str], *, apply: bool) -> list[str]:
    """Clips of ``request_ids`` without a review: their markers make the sensor ``unrecorded_clips`` launch it."""
    requests = AcceptedRequests(store.objects)
    found = []
    for request_id in request_ids:
        try:
            accepted = requests.find(request_id)
            lacking = accepted is not None and _content_shown(store, request_id) == accepted.content
            if accepted is None or not lacking or not lacks_review(store, request_id):
                continue
        except StorageUnavailableError:
            raise
        except StorageError:
            continue
        found.append(request_id)
        if apply:
            requests.mark_pending(accepted)
    return found


def _shows(store: ArtifactStore, request_id: str, content: str) -> bool:
    """True when a clip of ``content`` is stored; a damaged one has to be made again."""
    try:
        return _content_shown(store, request_id) == content
    except StorageUnavailableError:
        raise
    except StorageError:
        return False


def _content_shown(store: ArtifactStore, request_id: str) -> str | None:
    clip = store.manifest(CLIP_ASSET, request_id)
    return None if clip is None else clip.attributes.get(CONTENT_ATTRIBUTE)


def _archived(store: ArtifactStore) -> set[str]:
    """Requests with an archive record; what was submitted again since is told by its pending marker."""
    return {info.key.split("/")[1] for info in store.objects.list(f"{ARCHIVE_PREFIX}/") if info.key.count("/") >= 2}
