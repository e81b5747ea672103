"""Older contents that are no longer referred to, neither by a remaining clip nor by the record of an archived request.

What a clip that stays was made from stays with it, however old: the poses, and the copies of its picture and video, so
that tracing it finds them. See ``superseded`` for ages, files and removal.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from pydantic import ValidationError

from libs.errors import InputError, StorageError, StorageUnavailableError
from libs.housekeeping.inspection import inspect
from libs.housekeeping.orphans import remove_orphans
from libs.housekeeping.superseded import Superseded, SupersededContent, find_superseded, remove_superseded
from libs.provenance.record import ClipOrigin, parse_provenance
from libs.provenance.run_record import PROVENANCE_FILE
from libs.requests.lifecycle.archive import REQUEST_ASSETS, RequestArchive
from libs.requests.lifecycle.states import CLIP_ASSET
from libs.storage.artifacts import ArtifactStore
from libs.storage.backends.store import ObjectInfo
from libs.storage.manifest import Manifest

_MADE_FROM = ("request_media", "pose_conditioning")
"""What the origin of a clip names by digest."""

IsNeeded = Callable[[Manifest], bool]
"""True for a content that must stay for a reason that the store does not know."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Pruned:
    """What may go, or went: older contents, and files that no manifest names (killed runs, an interrupted removal)."""

    superseded: list[Superseded]
    orphans: list[ObjectInfo]

    @property
    def bytes(self) -> int:
        """Room that it takes, or took."""
        return sum(content.bytes for content in self.superseded) + sum(info.size for info in self.orphans)


def find_prunable(
    store: ArtifactStore, older_than: timedelta, is_needed: IsNeeded = lambda _: False, now: datetime | None = None
) -> Pruned:
    """Contents that were replaced at least ``older_than`` ago, of all assets, and orphans of that age; nothing goes.

    Contents that ``is_needed`` names stay, as do those that a clip that stays or an archive record refers to.

    Raises:
        InputError: ``older_than`` is too short to be safe.
        StorageError, StorageUnavailableError: the store refused, or did not answer.
    """

    def may_go(found: list[SupersededContent]) -> list[SupersededContent]:
        return _unreferenced(store, [content for content in found if not is_needed(content.manifest)])

    superseded = find_superseded(store.objects, older_than, may_go, now)
    limit = (now or datetime.now(UTC)) - older_than
    orphans = [info for info in inspect(store.objects).orphans if info.modified < limit]
    return Pruned(superseded, orphans)


def remove_prunable(store: ArtifactStore, found: Pruned, older_than: timedelta, now: datetime | None = None) -> Pruned:
    """Remove what :func:`find_prunable` found, where it still is as it was; what really went.

    Raises:
        InputError, StorageError, StorageUnavailableError: as there.
    """
    return Pruned(
        remove_superseded(store.objects, found.superseded, older_than, now),
        remove_orphans(store.objects, found.orphans, older_than, now),
    )


def _unreferenced(store: ArtifactStore, found: list[SupersededContent]) -> list[SupersededContent]:
    of_requests: dict[str | None, list[SupersededContent]] = {}
    unreferenced = []
    for content in found:
        if content.manifest.asset in REQUEST_ASSETS and content.manifest.partition is not None:
            of_requests.setdefault(content.manifest.partition, []).append(content)
        else:
            unreferenced.append(content)
    for request_id, candidates in of_requests.items():
        try:
            referred = _referred_to(store, str(request_id), [content.manifest for content in candidates])
        except StorageUnavailableError:
            raise
        except (StorageError, InputError, ValidationError) as error:  # what cannot be read may name any of them
            _log.warning("older contents of %s stay: %s", request_id, error)
        else:
            unreferenced += [content for content in candidates if _identity(content.manifest) not in referred]
    return unreferenced


def _referred_to(store: ArtifactStore, request_id: str, candidates: list[Manifest]) -> set[tuple[str, str]]:
    """Asset and digest of what must stay, among it those of one request's ``candidates`` that must."""
    archived = {
        (asset, manifest.digest)
        for record in RequestArchive(store).records(request_id)
        for asset, manifest in record.artifacts.items()
    }
    if not any(manifest.asset in _MADE_FROM for manifest in candidates):
        return archived
    going = {_identity(manifest) for manifest in candidates} - archived
    clips = [clip for clip in store.history(CLIP_ASSET, request_id) if _identity(clip) not in going]
    origins = [origin for clip in clips for origin in _origin(store, clip)]
    return archived | {_identity(manifest) for manifest in candidates if _made_into(manifest, origins)}


def _origin(store: ArtifactStore, clip: Manifest) -> list[ClipOrigin]:
    """The artifacts a clip was made from; none for a clip without a record of them."""
    if all(file.name != PROVENANCE_FILE for file in clip.files):
        return []
    key = clip.file(PROVENANCE_FILE).key
    return [parse_provenance(store.objects.get_bytes(key), store.objects.uri(key)).clip]


def _made_into(manifest: Manifest, origins: list[ClipOrigin]) -> bool:
    if manifest.asset == "pose_conditioning":
        return any(origin.pose_conditioning == manifest.digest for origin in origins)
    media = {part.sha256 for origin in origins for part in (origin.reference, origin.driver)}
    return manifest.asset == "request_media" and any(file.sha256 in media for file in manifest.files)


def _identity(manifest: Manifest) -> tuple[str, str]:
    return (manifest.asset, manifest.digest)
