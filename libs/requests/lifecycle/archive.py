"""Requests that are done with: what is kept of them when they leave the list of registered ones.

    archive/<id>/<digest of the clip, 16 digits>.json      the request, and the manifests of everything made for it

The artifacts themselves stay where they are, so ``one-to-all fetch`` still finds an archived clip. See
``orchestration.housekeeping.archive`` for the list of registered requests, which is Dagster's.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from libs.errors import ArtifactCorruptError
from libs.messages.validation import field_path, what_was_expected
from libs.requests.lifecycle.accepted import AcceptedRequest, AcceptedRequests
from libs.requests.lifecycle.states import CLIP_ASSET, ClipState, RequestStates, stored_partitions
from libs.storage.artifacts import ArtifactStore
from libs.storage.manifest import Manifest

ARCHIVE_PREFIX = "archive"
REVIEW_ASSET = "animation_review"

REQUEST_ASSETS = (
    "animation_request",
    "request_media",
    "pose_options",
    "pose_tracks",
    "pose_conditioning",
    CLIP_ASSET,
    REVIEW_ASSET,
)
"""Everything that is made for a request."""

_DIGEST_DIGITS = 16


class ArchivedRequest(BaseModel):
    """Everything that says how a clip came about: the request, where it was accepted, and what each step stored."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal[1] = 1
    request_id: str
    archived: datetime
    accepted: AcceptedRequest | None
    artifacts: dict[str, Manifest]


class RequestArchive:
    """The archive in ``store``; any number of processes may share it."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store

    def finished(self, request_ids: Iterable[str], older_than: timedelta, now: datetime | None = None) -> list[str]:
        """Those whose newest content has a reviewed clip, both stored at least ``older_than`` ago; by listing alone."""
        limit = (now or datetime.now(UTC)) - older_than
        clips, reviews = (stored_partitions(self._store.objects, asset) for asset in (CLIP_ASSET, REVIEW_ASSET))
        return [
            state.request_id
            for state in RequestStates(self._store).of(request_ids)
            if state.clip == ClipState.STORED
            and state.request_id in reviews
            and max(clips[state.request_id], reviews[state.request_id]) < limit
        ]

    def is_pending(self, request_id: str) -> bool:
        """True while the request's newest content is pending, e.g. since somebody submitted it again."""
        requests = AcceptedRequests(self._store.objects)
        accepted = requests.find(request_id)
        return accepted is not None and requests.is_pending(accepted)

    def record(self, request_id: str, now: datetime | None = None) -> ArchivedRequest:
        """Write down what is stored of a finished request; the same clip archived again replaces its own record."""
        found = {asset: self._store.manifest(asset, request_id) for asset in REQUEST_ASSETS}
        record = ArchivedRequest(
            request_id=request_id,
            archived=now or datetime.now(UTC),
            accepted=AcceptedRequests(self._store.objects).find(request_id),
            artifacts={asset: manifest for asset, manifest in found.items() if manifest},
        )
        digest = record.artifacts[CLIP_ASSET].digest[:_DIGEST_DIGITS]
        key = f"{ARCHIVE_PREFIX}/{request_id}/{digest}.json"
        self._store.objects.put_bytes(key, record.model_dump_json(indent=2).encode(), "application/json")
        return record

    def records(self, request_id: str) -> list[ArchivedRequest]:
        """Everything that was ever archived of ``request_id``, the oldest first.

        Raises:
            ArtifactCorruptError: a record is damaged, or was written by a newer version.
        """
        objects = self._store.objects
        found = [self._read(info.key) for info in objects.list(f"{ARCHIVE_PREFIX}/{request_id}/")]
        return sorted(found, key=lambda record: record.archived)

    def _read(self, key: str) -> ArchivedRequest:
        try:
            return ArchivedRequest.model_validate_json(self._store.objects.get_bytes(key))
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            reason = f"{field_path(problem['loc']) or 'text'}: {what_was_expected(problem)}"
            raise ArtifactCorruptError(
                f"{self._store.objects.uri(key)}: not a readable record of an archived request ({reason}); restore "
                "it; if it is deleted, the clips it names are no longer kept from being pruned"
            ) from None
