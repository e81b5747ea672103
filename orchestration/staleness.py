"""Staleness: which assets of a partition are out of date (``unfinished_assets``), and why clips are (``stale_clips``).

A clip is stale where, anywhere on the way from the inputs to it, something was made of another version of its input
than is there now, or by an earlier version of the software. ``unfinished_assets`` asks Dagster's own resolver, which
queries the database dozens of times for each partition. ``stale_clips`` answers for many requests with a few queries
for each asset.
See ``orchestration.inbox.input_watch`` and ``orchestration.models.lora_watch`` for noticing that a file was replaced.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import dagster as dg

from libs.errors import InputError
from libs.requests.lifecycle.states import CLIP_ASSET
from orchestration.dagster_internals import (
    CODE_VERSION_TAG,
    NULL_EVENT_POINTER,
    CachingStaleStatusResolver,
    LoadingContextForTest,
    StaleStatus,
    get_input_event_pointer_tag,
)
from orchestration.models.models_in_use import ModelVersion
from orchestration.partitions import variant_of_request
from orchestration.policies import CODE_VERSIONS
from orchestration.storage.observed import DATA_VERSION_TAG, FileVersion

INPUTS: Mapping[str, tuple[str, ...]] = {
    "animation_request": ("request_document",),
    "request_media": ("reference_picture", "driving_video"),
    "pose_options": ("requested_poses",),
    "pose_tracks": ("request_media", "pose_networks"),
    "pose_conditioning": ("pose_tracks", "request_media", "pose_options"),
    CLIP_ASSET: ("pose_conditioning", "request_media", "animation_request", "animation_model"),
}
"""Asset -> what it is made of, from the inputs to the clip; the same as in the asset graph."""

CODE_OF_ASSETS: Mapping[str, str] = {
    asset: CODE_VERSIONS.get(asset, CODE_VERSIONS["animation_request"]) for asset in INPUTS
}
"""Asset -> the code version that it has now."""

_EXTERNAL = {name for inputs in INPUTS.values() for name in inputs} - INPUTS.keys()
_RECORDS_AT_ONCE = 1000
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class _Replaced:
    """``asset`` was ``before`` when something was made of it, and is ``now`` since."""

    asset: str
    before: str
    now: str


def unfinished_assets(
    definitions: dg.Definitions, instance: dg.DagsterInstance, keys: Iterable[dg.AssetKey], partition: str
) -> list[dg.AssetKey]:
    """Those of ``keys`` that are missing or stale for ``partition``, and everything downstream of them among ``keys``.

    The resolver is Dagster's own, which also answers the UI; it has no public name in the pinned version.
    """
    graph = definitions.resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    candidates = [key for key in graph.toposorted_asset_keys if key in set(keys)]
    unfinished: list[dg.AssetKey] = []
    for key in candidates:
        parents_unfinished = any(parent in unfinished for parent in graph.get(key).parent_keys)
        if parents_unfinished or resolver.get_status(key, partition) != StaleStatus.FRESH:
            unfinished.append(key)
    return unfinished


def stale_clips(instance: dg.DagsterInstance, request_ids: Iterable[str]) -> dict[str, list[str]]:
    """Request -> why its stored clip is not what would be made now; requests whose clip is current are left out."""
    found: dict[str, list[str]] = {}
    for some in _batches(request_ids):
        found |= _stale_among(instance, set(some))
    return found


def _stale_among(instance: dg.DagsterInstance, requests: set[str]) -> dict[str, list[str]]:
    latest = {asset: _latest_ids(instance, asset, requests) for asset in [*INPUTS, *_EXTERNAL]}
    moved: dict[str, set[tuple[str, int]]] = defaultdict(set)
    reasons: dict[str, list[str]] = defaultdict(list)
    for asset, inputs in INPUTS.items():
        for record in _records(instance, asset, latest[asset].values()):
            request_id, tags = str(record.partition_key), _tags(record)
            if tags.get(CODE_VERSION_TAG, CODE_OF_ASSETS[asset]) != CODE_OF_ASSETS[asset]:
                reasons[request_id].append(f"{asset.replace('_', ' ')} made by an earlier version of the software")
            for name in inputs:
                pointer = tags.get(get_input_event_pointer_tag(dg.AssetKey(name)), NULL_EVENT_POINTER)
                if pointer != NULL_EVENT_POINTER and latest[name].get(request_id, 0) > int(pointer):
                    moved[name].add((request_id, int(pointer)))
    for name, pairs in moved.items():
        for request_id, replaced in _replaced(instance, name, pairs, latest[name]):
            for reason in _in_words(instance, request_id, replaced):
                if reason not in reasons[request_id]:
                    reasons[request_id].append(reason)
    return _roots(reasons)


def _latest_ids(instance: dg.DagsterInstance, asset: str, requests: set[str]) -> Mapping[str, int]:
    return instance.event_log_storage.get_latest_storage_id_by_partition(dg.AssetKey(asset), _kind(asset), requests)


def _kind(asset: str) -> dg.DagsterEventType:
    is_external = asset in _EXTERNAL
    return dg.DagsterEventType.ASSET_OBSERVATION if is_external else dg.DagsterEventType.ASSET_MATERIALIZATION


def _records(instance: dg.DagsterInstance, asset: str, storage_ids: Iterable[int]) -> Iterator[dg.EventLogRecord]:
    fetch = instance.fetch_observations if asset in _EXTERNAL else instance.fetch_materializations
    for some in _batches(storage_ids):
        wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), storage_ids=some)
        yield from fetch(wanted, limit=len(some)).records


def _tags(record: dg.EventLogRecord) -> Mapping[str, str]:
    event = record.asset_materialization or record.event_log_entry.asset_observation
    return event.tags or {} if event else {}


def _replaced(
    instance: dg.DagsterInstance, asset: str, pairs: set[tuple[str, int]], latest: Mapping[str, int]
) -> Iterator[tuple[str, _Replaced]]:
    """Those of ``pairs`` (a request, the event something was made of) whose input has another version since.

    Dagster points to the newest event of an asset, whichever partition that is of: where runs are side by side, often
    another request's. What was there then is the request's own newest event up to that one.
    """
    ids = {storage_id for request_id, before in pairs for storage_id in (before, latest[request_id])}
    events = {record.storage_id: record for record in _records(instance, asset, ids)}
    for request_id, before in sorted(pairs):
        seen = events.get(before)
        if seen is not None and seen.partition_key != request_id:
            seen = _event_up_to(instance, asset, request_id, before)
        then, now = _version(seen), _version(events.get(latest[request_id]))
        if then is not None and now is not None and then != now:
            yield request_id, _Replaced(asset, then, now)


def _version(record: dg.EventLogRecord | None) -> str | None:
    return _tags(record).get(DATA_VERSION_TAG) if record else None


def _event_up_to(
    instance: dg.DagsterInstance, asset: str, request_id: str, storage_id: int
) -> dg.EventLogRecord | None:
    """The request's newest event of ``asset`` that is not after ``storage_id``."""
    fetch = instance.fetch_observations if asset in _EXTERNAL else instance.fetch_materializations
    wanted = dg.AssetRecordsFilter(
        asset_key=dg.AssetKey(asset), asset_partitions=[request_id], before_storage_id=storage_id
    )
    return next(iter(fetch(wanted, limit=1).records), None)


def _in_words(instance: dg.DagsterInstance, request_id: str, replaced: _Replaced) -> Iterator[str]:
    match replaced.asset:
        case "reference_picture":
            yield f"picture {FileVersion.parse(replaced.now).path} replaced"
        case "driving_video":
            yield f"video {FileVersion.parse(replaced.now).path} replaced"
        case "pose_networks":
            yield f"pose networks of model {_model(instance, request_id)} changed"
        case "animation_model":
            before, now = ModelVersion.parse(replaced.before), ModelVersion.parse(replaced.now)
            if before.files != now.files:
                yield f"model {_model(instance, request_id)} changed"
            for lora in {one.path: one for one in before.loras + now.loras}.values():
                if (lora in before.loras) != (lora in now.loras):
                    yield f"LoRA {lora.path.rpartition('/')[2].removesuffix('.safetensors')} changed"
        case "request_document" | "requested_poses":
            yield _REQUEST_CHANGED
        case made_here:
            yield f"{made_here.replace('_', ' ')}{_MADE_AGAIN}"


_REQUEST_CHANGED = "the request was changed since"
_MADE_AGAIN = " made again since"


def _roots(reasons: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """Only the causes: what was made again from a replaced picture is not a further cause."""
    found = {}
    for request_id, told in reasons.items():
        roots = [reason for reason in told if not reason.endswith(_MADE_AGAIN)]
        found[request_id] = roots or list(told)
    return found


def _batches(items: Iterable[_Item]) -> Iterator[list[_Item]]:
    remaining = iter(items)
    while some := list(islice(remaining, _RECORDS_AT_ONCE)):
        yield some


def _model(instance: dg.DagsterInstance, request_id: str) -> str:
    try:
        return variant_of_request(instance, request_id)
    except InputError:
        return "of the request"
