"""What is stored against what the manifests say: missing, corrupt and orphaned objects.

Removes nothing; what it finds corrupt it notes below ``suspect/``, so that the next upload replaces it.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from libs.errors import ArtifactMissingError, StorageError
from libs.storage.artifacts import materialize_command
from libs.storage.backends import keys
from libs.storage.backends.sha256 import sha256_of_file
from libs.storage.backends.store import ObjectInfo, ObjectStore
from libs.storage.manifest import Manifest, StoredFile, describe, parse_manifest
from libs.storage.previews import PREVIEWS_PREFIX

OTHER_PREFIXES = (keys.CHUNKS_PREFIX, "archive", "inbox", "requests", "suspect")
"""Known, and no part of any artifact: looked after elsewhere."""

_MANIFEST = re.compile(r"(?P<asset>.+)/(?P<partition>[^/]+)/(manifest|manifests/[0-9a-f]{16})\.json")
_FILE = re.compile(r"(?P<asset>.+?)/(?P<partition>[^/]+)/(?P<digest>[0-9a-f]{16})/(?P<name>.+)")

Report = Callable[[int, int], None]
"""Called with the bytes read so far, and all there are to read."""


class ProblemKind(StrEnum):
    """What is wrong with a stored object."""

    MISSING = "missing"
    CORRUPT = "corrupt"
    UNREADABLE = "unreadable manifest"


@dataclass(frozen=True)
class Problem:
    """One object that is not what a manifest says. ``newest`` is False where only older contents need it."""

    kind: ProblemKind
    key: str
    asset: str
    partition: str | None
    detail: str
    newest: bool

    @property
    def command(self) -> str:
        """The command that makes the artifact again."""
        return materialize_command(self.asset, self.partition)

    def __str__(self) -> str:
        age = "" if self.newest else " (older content)"
        return f"{describe(self.asset, self.partition)}{age}: {self.detail} (object {self.key})"


@dataclass(frozen=True)
class Inspection:
    """The result: counts, problems, objects that no manifest names, and objects of other programs."""

    objects: int
    bytes: int
    manifests: int
    bytes_read: int
    problems: tuple[Problem, ...]
    orphans: tuple[ObjectInfo, ...]
    unknown: tuple[ObjectInfo, ...]


def inspect(objects: ObjectStore, *, full: bool = False, report: Report | None = None) -> Inspection:
    """Compare all objects with all manifests, history included; with ``full``, read and hash every artifact file.

    What is written meanwhile may look like an orphan for a moment, never like a problem. A corrupt object is marked,
    so that publishing the same content replaces it.

    Raises:
        StorageError, StorageUnavailableError: the store refused, or did not answer.
    """
    everything = list(objects.list())
    listed = {info.key: info for info in everything if info.key.split("/")[0] not in OTHER_PREFIXES}
    manifests, unreadable = read_manifests(objects, listed)
    wanted = _wanted_files(manifests)
    problems = [_unreadable(key, error) for key, error in unreadable.items()]
    found: list[tuple[StoredFile, Manifest, bool]] = []
    for file, manifest, newest in wanted.values():
        info = listed.get(file.key) or objects.head(file.key)  # stored after the list was made
        if info is None:
            problems.append(_problem(ProblemKind.MISSING, file, manifest, newest, f"{file.name} is gone"))
        elif info.size != file.size:
            detail = f"{file.name} has {info.size} bytes instead of {file.size}"
            problems.append(_problem(ProblemKind.CORRUPT, file, manifest, newest, detail))
        else:
            found.append((file, manifest, newest))
    if full:
        problems += _read_files(objects, found, report)
    rest = [info for key, info in listed.items() if key not in manifests and key not in unreadable]
    # A manifest that cannot be read may name the files in its folder.
    undecided = tuple(f"{folder_of_manifest(key)}/" for key in unreadable)
    unnamed = [info for info in rest if artifact_key(info.key) not in wanted]
    return Inspection(
        objects=len(everything),
        bytes=sum(info.size for info in everything),
        manifests=len(manifests),
        bytes_read=sum(file.size for file, _, _ in found) if full else 0,
        problems=tuple(sorted(problems, key=lambda problem: (not problem.newest, problem.key))),
        orphans=tuple(
            info
            for info in unnamed
            if _FILE.fullmatch(artifact_key(info.key)) and not artifact_key(info.key).startswith(undecided)
        ),
        unknown=tuple(info for info in unnamed if not _FILE.fullmatch(artifact_key(info.key))),
    )


def read_manifests(objects: ObjectStore, listed: Iterable[str]) -> tuple[dict[str, Manifest], dict[str, StorageError]]:
    """Those of the keys ``listed`` that hold manifests, by key, and the errors of those that cannot be read."""
    manifests: dict[str, Manifest] = {}
    unreadable: dict[str, StorageError] = {}
    for key in filter(is_manifest_key, listed):
        try:
            data = objects.get_bytes(key)
        except ArtifactMissingError:
            continue  # removed since it was listed
        as_file = _FILE.fullmatch(key)
        if as_file and sha256(data).hexdigest().startswith(as_file["digest"]):
            continue  # a file of an artifact that happens to be called like a manifest
        try:
            manifests[key] = _stored_in_place(parse_manifest(data, objects.uri(key)), key)
        except StorageError as error:
            unreadable[key] = error
    return manifests, unreadable


def _stored_in_place(manifest: Manifest, key: str) -> Manifest:
    newest = keys.manifest_key(manifest.asset, manifest.partition)
    if key not in {newest, keys.manifest_history_key(manifest.asset, manifest.partition, manifest.digest)}:
        raise StorageError(f"{key}: this is the manifest of {describe(manifest.asset, manifest.partition)}")
    return manifest


def _wanted_files(manifests: dict[str, Manifest]) -> dict[str, tuple[StoredFile, Manifest, bool]]:
    """Key of a file -> the file, a manifest that names it, and whether that is the newest of its partition."""
    wanted: dict[str, tuple[StoredFile, Manifest, bool]] = {}
    for key in sorted(manifests, key=lambda key: key.endswith(keys.NEWEST_MANIFEST)):  # the newest win
        for file in manifests[key].files:
            wanted[file.key] = (file, manifests[key], key.endswith(keys.NEWEST_MANIFEST))
    return wanted


def _read_files(
    objects: ObjectStore, files: list[tuple[StoredFile, Manifest, bool]], report: Report | None
) -> list[Problem]:
    """Fetch each file to a temporary folder and hash it there: memory stays bounded, and so does the room on disk."""
    problems = []
    done, total = 0, sum(file.size for file, _, _ in files)
    with TemporaryDirectory(prefix="storage-check-") as folder:
        copy = Path(folder) / "copy"
        for file, manifest, newest in files:
            try:
                objects.get_file(file.key, copy)
                intact = sha256_of_file(copy) == file.sha256
            except ArtifactMissingError:
                problems.append(_problem(ProblemKind.MISSING, file, manifest, newest, f"{file.name} is gone"))
            else:
                if not intact:
                    detail = f"{file.name} does not have the recorded digest {file.sha256[:16]}…"
                    problems.append(_problem(ProblemKind.CORRUPT, file, manifest, newest, detail))
                    objects.put_bytes(keys.suspect_key(file.key), b"", "text/plain")
            done += file.size
            if report:
                report(done, total)
    return problems


def _problem(kind: ProblemKind, file: StoredFile, manifest: Manifest, newest: bool, detail: str) -> Problem:
    return Problem(kind, file.key, manifest.asset, manifest.partition, detail, newest)


def _unreadable(key: str, error: StorageError) -> Problem:
    asset, _, partition = folder_of_manifest(key).rpartition("/")
    return Problem(
        ProblemKind.UNREADABLE,
        key,
        asset,
        None if partition == keys.UNPARTITIONED else partition,
        str(error),
        newest=key.endswith(keys.NEWEST_MANIFEST),
    )


def folder_of_manifest(manifest_key: str) -> str:
    """Asset and partition as they stand in a manifest's key.

    Raises:
        ValueError: it is no manifest's key (``is_manifest_key``).
    """
    match = _MANIFEST.fullmatch(manifest_key)
    if match is None:
        raise ValueError(f"{manifest_key} is no manifest's key")
    return f"{match['asset']}/{match['partition']}"


def is_manifest_key(key: str) -> bool:
    """True where a manifest may lie at ``key``; a file of an artifact may be called like one."""
    return _MANIFEST.fullmatch(key) is not None


def artifact_key(key: str) -> str:
    """The key whose fate decides over ``key``: a preview belongs to the file it is a copy of."""
    return key.removeprefix(f"{PREVIEWS_PREFIX}/")
