"""How far each request is, from the store alone: is there a clip, and is it of what was asked for last?

Two listings answer for any number of requests; documents are read only where a marker says that a request is pending
although there is one. See ``orchestration.requests.runs`` for runs, which only Dagster knows.
"""

import logging
from collections import defaultdict
from collections.abc import Container, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from libs.errors import StorageError, StorageUnavailableError
from libs.requests.lifecycle.accepted import CONTENT_ATTRIBUTE, AcceptedRequests, PendingMarker
from libs.storage.artifacts import ArtifactStore
from libs.storage.backends.keys import NEWEST_MANIFEST, manifest_key
from libs.storage.backends.store import ObjectInfo, ObjectStore

CLIP_ASSET = "animation"

_ASKED_ONE_BY_ONE = 100
_ASKED_AT_ONCE = 8
"""Requests to a bucket on their way together; a folder answers at once."""

_log = logging.getLogger(__name__)


class ClipState(StrEnum):
    """What the store has for a request."""

    STORED = "clip stored"
    OUTDATED = "older clip"
    MISSING = "no clip yet"


@dataclass(frozen=True)
class RequestState:
    """One request. ``content`` is what is pending, None where nothing was accepted or nothing is pending."""

    request_id: str
    clip: ClipState
    priority: int = 0
    content: str | None = None


class RequestStates:
    """Answers for the requests of ``store``."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store
        self._requests = AcceptedRequests(store.objects)

    def of(self, request_ids: Iterable[str]) -> list[RequestState]:
        """The state of each of ``request_ids``, in their order, whether they were accepted or not.

        Wrong markers that an interrupted writer left behind are removed.
        """
        markers: dict[str, list[PendingMarker]] = defaultdict(list)
        for marker in self._requests.pending_markers():
            markers[marker.request_id].append(marker)
        wanted = list(request_ids)
        clips = partitions_among(self._store.objects, CLIP_ASSET, wanted)
        return [self._state(request_id, markers.get(request_id, []), clips) for request_id in wanted]

    def _state(self, request_id: str, markers: list[PendingMarker], clips: Container[str]) -> RequestState:
        has_clip = request_id in clips
        if markers and (has_clip or len(markers) > 1):
            try:
                markers = self._valid_markers(request_id, markers, has_clip=has_clip)
            except StorageUnavailableError:
                raise
            except StorageError as error:  # one damaged request, or clip, must not hide the state of the others
                _log.warning("the clip of %s counts as pending: %s", request_id, error)
        if not markers:
            return RequestState(request_id, ClipState.STORED if has_clip else ClipState.MISSING)
        clip = ClipState.OUTDATED if has_clip else ClipState.MISSING
        return RequestState(request_id, clip, markers[0].priority, markers[0].content)

    def _valid_markers(self, request_id: str, markers: list[PendingMarker], *, has_clip: bool) -> list[PendingMarker]:
        """The markers that are valid: for the content accepted last, unless that is what the clip shows."""
        accepted = self._requests.find(request_id)
        manifest = self._store.manifest(CLIP_ASSET, request_id) if has_clip else None
        shown = manifest.attributes.get(CONTENT_ATTRIBUTE) if manifest else None
        valid = []
        for marker in markers:
            if accepted is None or accepted.pending_marker != marker:
                self._requests.remove_marker(marker)
            elif marker.content != shown:
                valid.append(marker)
            # else the clip is stored, and its run did not come to the end: see ``orchestration.recovery.sensor``
        return valid


def partitions_among(objects: ObjectStore, asset: str, partitions: Sequence[str]) -> dict[str, datetime]:
    """Find which of ``partitions`` are stored, and since when: a few are queried by name, many are listed."""
    if len(partitions) > _ASKED_ONE_BY_ONE:
        return stored_partitions(objects, asset)
    with ThreadPoolExecutor(_ASKED_AT_ONCE) as asking:
        found = asking.map(lambda partition: _newest_manifest(objects, asset, partition), partitions)
        return {partition: info.modified for partition, info in zip(partitions, found, strict=True) if info}


def _newest_manifest(objects: ObjectStore, asset: str, partition: str) -> ObjectInfo | None:
    try:
        key = manifest_key(asset, partition)
    except StorageError:  # something put there by hand: no artifact can have this name
        return None
    return objects.stat(key)


def stored_partitions(objects: ObjectStore, asset: str) -> dict[str, datetime]:
    """Request -> when its newest manifest of ``asset`` was written, by listing alone."""
    return {
        info.key.removeprefix(f"{asset}/").removesuffix(NEWEST_MANIFEST): info.modified
        for info in objects.list(f"{asset}/")
        if info.key.endswith(NEWEST_MANIFEST)
    }
