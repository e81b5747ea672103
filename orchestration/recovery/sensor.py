"""The sensor that finishes what a run left undone between storing its clip and closing its pending marker.

A marker whose clip is stored is the trace of such a run: the database was away, or the worker died. See
``orchestration.recovery.adoption`` for what is written again.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import dagster as dg

from libs.errors import StorageError, StorageUnavailableError
from libs.requests.lifecycle.accepted import CONTENT_ATTRIBUTE, AcceptedRequests, PendingMarker
from libs.requests.lifecycle.archive import REVIEW_ASSET
from libs.requests.lifecycle.states import CLIP_ASSET
from libs.storage.artifacts import ArtifactStore
from orchestration.jobs import ANIMATE
from orchestration.partitions import ANIMATION_REQUESTS, remember_variant_of_request
from orchestration.recovery.adoption import StoredArtifact, adopt, lacks_review, unrecorded_artifacts
from orchestration.requests.runs import RunsInProgress, asset_run
from orchestration.storage.resources import StorageResource

MARKERS_PER_TICK = 200
_SECONDS_PER_TICK = 20.0


@dataclass
class Recovery:
    """What one tick mended. ``after``: the request looked at last; the next tick begins behind it."""

    after: str = ""
    adopted: list[StoredArtifact] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    reviews: list[dg.RunRequest] = field(default_factory=list)


def finish_interrupted(instance: dg.DagsterInstance, store: ArtifactStore, after: str = "") -> Recovery:
    """Record stored clips whose pending marker is still there, ask for reviews they lack, close the markers.

    Args:
        instance: whose catalogue is completed.
        store: where clips and markers are.
        after: the request at which the last tick ended.
    """
    requests = AcceptedRequests(store.objects)
    recovery = Recovery(after)
    deadline = time.monotonic() + _SECONDS_PER_TICK
    progress: RunsInProgress | None = None
    for marker in _in_turn(list(requests.pending_markers()), after):
        if time.monotonic() > deadline:
            break
        recovery.after = marker.request_id
        try:
            accepted = requests.find(marker.request_id)
            clip = store.manifest(CLIP_ASSET, marker.request_id)
        except StorageUnavailableError:
            raise
        except StorageError:  # damaged: the nightly batch makes it again
            continue
        if accepted is None or clip is None or clip.attributes.get(CONTENT_ATTRIBUTE) != marker.content:
            continue
        progress = progress or RunsInProgress(instance)
        if accepted.pending_marker != marker or progress.cover(marker.request_id, None):
            continue
        instance.add_dynamic_partitions(str(ANIMATION_REQUESTS.name), [marker.request_id])
        remember_variant_of_request(instance, marker.request_id, accepted.request.model)
        recovery.adopted += adopt(instance, store, unrecorded_artifacts(instance, store, [marker.request_id]))
        if lacks_review(store, marker.request_id):
            key = f"review-{marker.request_id}-{clip.digest[:16]}"
            recovery.reviews.append(asset_run(marker.request_id, REVIEW_ASSET, key, priority=marker.priority))
        requests.clear_pending(marker.request_id, marker.content)
        recovery.finished.append(marker.request_id)
    return recovery


def _in_turn(markers: Sequence[PendingMarker], after: str) -> Iterator[PendingMarker]:
    """Those behind ``after`` first, going round; a bounded number."""
    in_order = sorted(markers, key=lambda marker: (marker.request_id <= after, marker.request_id))
    yield from in_order[:MARKERS_PER_TICK]


@dg.sensor(
    job=ANIMATE,
    minimum_interval_seconds=60,
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Records clips that were stored while the database was away, and asks for reviews they lack.",
)
def unrecorded_clips(context: dg.SensorEvaluationContext, storage: StorageResource) -> dg.SensorResult:
    """One look at pending markers; the cursor makes the next one go on where this one stopped."""
    recovery = finish_interrupted(context.instance, storage.artifacts(), context.cursor or "")
    for request_id in recovery.finished:
        context.log.info(f"{request_id}: its clip was stored, and is recorded now")
    return dg.SensorResult(
        run_requests=recovery.reviews,
        skip_reason=None if recovery.reviews else dg.SkipReason(f"nothing new; {len(recovery.finished)} recorded"),
        cursor=recovery.after,
    )
