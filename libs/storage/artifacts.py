"""Artifacts: the files an asset made, stored under its name and partition, loaded through a verified local cache.

Every file is stored under a key that contains its digest and is never changed afterwards; the manifest that names the
files is written last. So a reader sees the complete artifact of before or after, whatever happens to writers.
See ``orchestration.storage.io_manager`` for Dagster's side, ``libs.storage.backends`` for buckets and folders.
"""

import logging
import mimetypes
import shlex
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from libs.errors import ArtifactCorruptError, ArtifactMissingError, StorageError
from libs.storage.backends import keys
from libs.storage.backends.sha256 import sha256_of_file
from libs.storage.backends.store import ObjectStore
from libs.storage.cache import ArtifactCache
from libs.storage.manifest import Manifest, StoredFile, content_digest, describe, parse_manifest

IMMUTABLE = "public, max-age=31536000, immutable"
"""Cache header of what is never changed: keep it for a year."""

TRUSTED_FOR = timedelta(days=1)
"""How long after its upload a file that no manifest may name yet is relied upon (``orphans``)."""

_log = logging.getLogger(__name__)

for _suffix, _content_type in {".npz": "application/x-npz", ".webp": "image/webp", ".md": "text/markdown"}.items():
    mimetypes.add_type(_content_type, _suffix)


@dataclass(frozen=True)
class LocalFile:
    """One file on its way into the store; ``changed`` is its modification time in nanoseconds when it was hashed."""

    path: Path
    size: int
    sha256: str
    changed: int

    @property
    def content_type(self) -> str:
        """MIME type by suffix."""
        return mimetypes.guess_type(self.path.name)[0] or "application/octet-stream"


class ArtifactFiles:
    """A folder of finished files to publish, hashed once, when first asked for.

    All files below the folder belong to it, hidden ones (temporary files) apart. ``attributes`` are JSON values for the
    manifest. ``previews`` are names of small pictures that everybody may see. ``main`` is the name of the file that a
    person wants.
    """

    def __init__(
        self,
        folder: Path,
        *,
        attributes: Mapping[str, Any] | None = None,
        previews: Iterable[str] = (),
        main: str | None = None,
    ) -> None:
        self.folder = folder
        self.attributes = dict(attributes or {})
        self.previews = tuple(previews)
        self.main = main

    @cached_property
    def files(self) -> dict[str, LocalFile]:
        """Name (relative path with slashes) -> file, sorted by name.

        Raises:
            StorageError: there are none, or a name cannot be part of a key.
        """
        found: dict[str, LocalFile] = {}
        for path in sorted(self.folder.rglob("*")):
            name = path.relative_to(self.folder).as_posix()
            if path.is_file() and not any(part.startswith(".") for part in name.split("/")):
                status = path.stat()
                found[keys.check_file_name(name)] = LocalFile(
                    path, status.st_size, sha256_of_file(path), status.st_mtime_ns
                )
        if not found:
            raise StorageError(f"{self.folder} holds no files to store")
        return dict(sorted(found.items()))

    @property
    def digest(self) -> str:
        """SHA-256 over all names and contents: equal for equal content, wherever and whenever it was made."""
        return content_digest((name, file.sha256) for name, file in self.files.items())

    @property
    def data_digest(self) -> str:
        """Digest of the files without previews, which are drawn from the others: another picture encoder changes no
        data."""
        data = {name: file for name, file in self.files.items() if name not in self.previews}
        return content_digest((name, file.sha256) for name, file in (data or self.files).items())


@dataclass(frozen=True)
class LocalArtifact:
    """A verified local copy of an artifact. ``folder`` belongs to the cache: read it, do not write into it."""

    manifest: Manifest
    folder: Path

    def path(self, name: str) -> Path:
        """The file called ``name``.

        Raises:
            ArtifactMissingError: the artifact has no such file; the message names those it has.
        """
        return self.folder / self.manifest.file(name).name


class ArtifactStore:
    """Artifacts in ``objects``, with verified copies below ``cache_dir``; any number of processes may share both."""

    def __init__(self, objects: ObjectStore, cache_dir: Path) -> None:
        self.objects = objects
        self.cache = ArtifactCache(cache_dir)

    def publish(
        self, asset: str, partition: str | None, files: ArtifactFiles, attributes: Mapping[str, Any] | None = None
    ) -> Manifest:
        """Store all files, then the manifest that makes them the newest artifact of ``asset`` and ``partition``.

        A file whose content was stored within the last day is not sent again. If anything fails, the artifact published
        before stays as it is, and calling again carries on. ``attributes`` (JSON values) join those of ``files``.

        Raises:
            StorageError: a name cannot be a key, a file changed while it was sent, or the store refused.
            StorageUnavailableError: the store did not answer.
        """
        stored = []
        for name, file in files.files.items():
            key = keys.file_key(asset, partition, file.sha256, name)
            self._upload(key, file)
            entry = {"name": name, "size": file.size, "sha256": file.sha256, "content_type": file.content_type}
            stored.append(StoredFile(**entry, key=key))
        manifest = Manifest(
            asset=asset,
            partition=partition,
            files=tuple(stored),
            digest=files.digest,
            attributes={**files.attributes, **(attributes or {})},
            created=datetime.now(UTC),
        )
        document = manifest.to_json()
        history = keys.manifest_history_key(asset, partition, manifest.digest)
        self.objects.put_bytes(history, document, "application/json")
        self.objects.put_bytes(keys.manifest_key(asset, partition), document, "application/json")
        for file in files.files.values():
            self.cache.add(file.path, file.sha256)
        return manifest

    def manifest(self, asset: str, partition: str | None, digest: str | None = None) -> Manifest | None:
        """The newest manifest, or that of the content ``digest``; None when nothing is stored.

        Raises:
            StorageError: it is damaged, or was written by a newer version.
        """
        key = keys.manifest_key(asset, partition)
        if digest is not None:
            key = keys.manifest_history_key(asset, partition, digest)
        try:
            data = self.objects.get_bytes(key)
        except ArtifactMissingError:
            newest = None if digest is None else self.manifest(asset, partition)
            is_meant = newest is not None and key == keys.manifest_history_key(asset, partition, newest.digest)
            return newest if is_meant else None  # its copy in the history may be lost
        return parse_manifest(data, self.objects.uri(key))

    def fetch(self, asset: str, partition: str | None, digest: str | None = None) -> LocalArtifact:
        """A verified local copy of the newest artifact, or of the one whose content is ``digest``.

        Raises:
            ArtifactMissingError: nothing is stored; the message says how to make it.
            ArtifactCorruptError: an object is gone or does not have its digest; the message says how to repair it.
            StorageUnavailableError: the store did not answer.
        """
        manifest = self._require_manifest(asset, partition, digest)
        return LocalArtifact(manifest, self.cache.artifact(manifest, self._downloader(manifest)))

    def history(self, asset: str, partition: str | None) -> list[Manifest]:
        """The manifests of all contents that were ever published, the oldest first.

        Raises:
            StorageError: one of them is damaged.
        """
        prefix = f"{keys.artifact_prefix(asset, partition)}/manifests/"
        found = (parse_manifest(self.objects.get_bytes(info.key), info.key) for info in self.objects.list(prefix))
        return sorted(found, key=lambda manifest: manifest.created)

    def open_file(self, asset: str, partition: str | None, name: str, digest: str | None = None) -> BinaryIO:
        """One file of the newest artifact, or of that with content ``digest``, verified and open for reading.

        The others are not fetched.

        Raises:
            ArtifactMissingError: nothing is stored, or the artifact has no such file.
            ArtifactCorruptError, StorageUnavailableError: as :meth:`fetch`.
        """
        manifest = self._require_manifest(asset, partition, digest)
        return self.cache.file(manifest.file(name), self._downloader(manifest)).open("rb")

    def _require_manifest(self, asset: str, partition: str | None, digest: str | None) -> Manifest:
        manifest = self.manifest(asset, partition, digest)
        if manifest is None:
            place = self.objects.uri(keys.manifest_key(asset, partition))
            content = "" if digest is None else f" with content {digest}"
            raise ArtifactMissingError(
                f"{describe(asset, partition)}: nothing is stored{content} (looked for {place}); "
                f"run: {materialize_command(asset, partition)}"
            )
        return manifest

    def _upload(self, key: str, file: LocalFile) -> None:
        stored = self.objects.head(key)
        suspect = keys.suspect_key(key)
        is_suspect = stored is not None and self.objects.exists(suspect)
        is_young = stored is not None and datetime.now(UTC) - stored.modified < TRUSTED_FOR
        is_same = stored is not None and (stored.size, stored.sha256) == (file.size, file.sha256)
        if is_same and is_young and not is_suspect:
            _log.debug("%s is stored already", key)
            return
        self._require_unchanged(file)
        self.objects.put_file(key, file.path, file.sha256, file.content_type, IMMUTABLE)
        self._require_unchanged(file)
        if is_suspect:
            self.objects.delete(suspect)

    @staticmethod
    def _require_unchanged(file: LocalFile) -> None:
        status = file.path.stat()
        if (status.st_size, status.st_mtime_ns) != (file.size, file.changed):
            raise StorageError(f"{file.path} changed after it was hashed; write files before handing them over")

    def _downloader(self, manifest: Manifest) -> Callable[[StoredFile, Path], None]:
        def download(file: StoredFile, destination: Path) -> None:
            for attempt in range(2):  # the second time rules out a fault of the way here
                try:
                    self.objects.get_file(file.key, destination)
                except ArtifactMissingError as error:
                    raise self._corrupt(manifest, file, "is gone") from error
                if sha256_of_file(destination) == file.sha256:
                    return
                _log.warning("%s: wrong digest after download %d", self.objects.uri(file.key), attempt + 1)
            self._mark_suspect(file)
            raise self._corrupt(manifest, file, f"does not have the recorded digest {file.sha256[:16]}…")

        return download

    def _mark_suspect(self, file: StoredFile) -> None:
        """Leave a mark, so that publishing the same content again replaces the object instead of trusting it."""
        try:
            self.objects.put_bytes(keys.suspect_key(file.key), b"", "text/plain")
        except StorageError as error:  # reading may be all we are allowed to do
            _log.warning("%s cannot be marked as corrupt: %s", file.key, error)

    def _corrupt(self, manifest: Manifest, file: StoredFile, problem: str) -> ArtifactCorruptError:
        return ArtifactCorruptError(
            f"{describe(manifest.asset, manifest.partition)}: {file.name} {problem} (object "
            f"{self.objects.uri(file.key)}); run: {materialize_command(manifest.asset, manifest.partition)}"
        )


def materialize_command(asset: str, partition: str | None) -> str:
    """The command that makes an artifact again, to be pasted into a shell at the repository's root."""
    selected = f"dagster asset materialize -m orchestration.definitions --select {shlex.quote(asset)}"
    return selected if partition is None else f"{selected} --partition {shlex.quote(partition)}"
