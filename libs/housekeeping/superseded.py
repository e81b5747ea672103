"""Older contents of artifacts: what newer ones replaced long ago, found and removed.

A content counts as replaced when the next one was published, so whatever was the newest within the last days stays.
See ``prunable`` for those that stored clips and archive records refer to, which stay.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

from libs.housekeeping.inspection import (
    OTHER_PREFIXES,
    artifact_key,
    folder_of_manifest,
    is_manifest_key,
    read_manifests,
)
from libs.housekeeping.orphans import remove_orphans, require_safe_age
from libs.storage.backends import keys
from libs.storage.backends.store import ObjectInfo, ObjectStore
from libs.storage.manifest import Manifest, describe

_FEWEST_DOCUMENTS = 3
"""The newest manifest, and in the history its copy and an older one."""


@dataclass(frozen=True)
class SupersededContent:
    """One older content: its manifest in the history, and when the next one was published."""

    manifest: Manifest
    replaced: datetime

    @property
    def name(self) -> str:
        """Asset, partition and content, for people."""
        return f"{describe(self.manifest.asset, self.manifest.partition)}, content {self.manifest.digest[:16]}"


@dataclass(frozen=True)
class Superseded:
    """One content that may go, and the objects that go with it: files (and their previews) that no other names.

    A file that several such contents name is counted for the first of them.
    """

    content: SupersededContent
    files: tuple[ObjectInfo, ...]

    @property
    def bytes(self) -> int:
        """Room that removing it gives back."""
        return sum(info.size for info in self.files)


MayGo = Callable[[list[SupersededContent]], Iterable[SupersededContent]]
"""Of the contents that were replaced long ago, those that nothing refers to."""


def find_superseded(
    objects: ObjectStore, older_than: timedelta, may_go: MayGo = list, now: datetime | None = None
) -> list[Superseded]:
    """The contents that were replaced at least ``older_than`` ago; by listing, and reading where there may be some.

    A partition with a manifest that cannot be read, or without a newest one, is left alone.

    Raises:
        InputError: ``older_than`` is too short to be safe (``orphans``).
        StorageError, StorageUnavailableError: the store refused, or did not answer.
    """
    limit = (now or datetime.now(UTC)) - require_safe_age(older_than)
    listed = {info.key: info for info in objects.list() if info.key.split("/")[0] not in OTHER_PREFIXES}
    manifests_by_folder: dict[str, dict[str, ObjectInfo]] = defaultdict(dict)
    for key in filter(is_manifest_key, listed):
        manifests_by_folder[folder_of_manifest(key)][key] = listed[key]
    manifests: list[Manifest] = []
    replaced: list[SupersededContent] = []
    for documents in manifests_by_folder.values():
        if len(documents) >= _FEWEST_DOCUMENTS and min(info.modified for info in documents.values()) < limit:
            beside, found = _replaced_in(objects, documents, limit)
            manifests += beside
            replaced += found
    going = list(may_go(replaced)) if replaced else []
    gone = {_identity(content.manifest) for content in going}
    wanted = {file.key for manifest in manifests if _identity(manifest) not in gone for file in manifest.files}
    previews: dict[str, list[ObjectInfo]] = defaultdict(list)
    for key, info in listed.items():
        previews[artifact_key(key)].append(info)
    return list(_with_files(going, previews, wanted))


def remove_superseded(
    objects: ObjectStore, found: Iterable[Superseded], older_than: timedelta, now: datetime | None = None
) -> list[Superseded]:
    """Remove them, and say which went, each with the objects that really did.

    The manifest goes first: a process that is killed leaves orphans, which the next run finds, and never a manifest
    that names what is gone. A content that was published again since it was found stays, and so does a file that
    another manifest names by now, or that was stored again.

    Raises:
        InputError: ``older_than`` is too short.
        StorageError, StorageUnavailableError: the store refused, or did not answer.
    """
    require_safe_age(older_than)
    removed = []
    for (asset, partition), group in groupby(found, key=_folder):
        going = []
        for superseded in group:
            if _is_as_found(objects, superseded.content):
                objects.delete(keys.manifest_history_key(asset, partition, superseded.content.manifest.digest))
                going.append(superseded)
        prefix = f"{keys.artifact_prefix(asset, partition)}/manifest"  # of the newest one, and of the history
        left, unreadable = read_manifests(objects, [info.key for info in objects.list(prefix)])
        wanted = {file.key for manifest in left.values() for file in manifest.files}
        for superseded in going:
            unwanted = [info for info in superseded.files if not unreadable and artifact_key(info.key) not in wanted]
            files = remove_orphans(objects, unwanted, older_than, now)
            for info in files:
                objects.delete(keys.suspect_key(info.key))  # a suspect record without its object is meaningless
            removed.append(Superseded(superseded.content, tuple(files)))
    return removed


def _replaced_in(
    objects: ObjectStore, documents: dict[str, ObjectInfo], limit: datetime
) -> tuple[list[Manifest], list[SupersededContent]]:
    """All manifests of one partition, and which of them were replaced before ``limit``."""
    manifests, unreadable = read_manifests(objects, documents)
    newest = next((manifest for key, manifest in manifests.items() if key.endswith(keys.NEWEST_MANIFEST)), None)
    if newest is None or unreadable:
        return [], []
    # The later of both times: a host's clock may be slow, and in a bucket that was restored all objects are young.
    stored = {key: max(manifest.created, documents[key].modified) for key, manifest in manifests.items()}
    found = []
    for key, manifest in manifests.items():
        later = [
            stored[other] for other in manifests if stored[other] > stored[key] or other.endswith(keys.NEWEST_MANIFEST)
        ]
        replaced = max(min(later), stored[key])
        if manifest.digest != newest.digest and replaced < limit:
            found.append(SupersededContent(manifest, replaced))
    return list(manifests.values()), found


def _with_files(
    going: list[SupersededContent], beside: dict[str, list[ObjectInfo]], wanted: set[str]
) -> Iterator[Superseded]:
    taken = set(wanted)
    for content in going:
        manifest = content.manifest
        files: list[ObjectInfo] = []
        for file in manifest.files:
            own = keys.file_key(manifest.asset, manifest.partition, file.sha256, file.name)
            if file.key == own and own not in taken:  # never what a manifest names elsewhere
                files += beside.get(own, [])
                taken.add(own)
        yield Superseded(content, tuple(files))


def _is_as_found(objects: ObjectStore, content: SupersededContent) -> bool:
    """True while another content is the newest, and this one was not published again."""
    asset, partition, digest = _identity(content.manifest)
    history, newest = keys.manifest_history_key(asset, partition, digest), keys.manifest_key(asset, partition)
    manifests, _ = read_manifests(objects, [history, newest])
    return manifests.get(history) == content.manifest and newest in manifests and manifests[newest].digest != digest


def _identity(manifest: Manifest) -> tuple[str, str | None, str]:
    return (manifest.asset, manifest.partition, manifest.digest)


def _folder(superseded: Superseded) -> tuple[str, str | None]:
    return (superseded.content.manifest.asset, superseded.content.manifest.partition)
