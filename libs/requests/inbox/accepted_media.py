"""The media of accepted requests: what they were when the request was accepted, and the copies that are kept of them.

    requests/media/<sha256><suffix>             a copy, shared by all requests that were accepted with these bytes
    requests/media/version-<digest><suffix>     likewise, of a file in a bucket whose digest is not recorded

A file in the inbox may be replaced by another person's file of the same name after a request was
accepted with it. So a request is made from the copy. A file too large to be copied while the inbox is read stays where
it is; what it was is written down, and a run that finds anything else there stops. See ``inbox`` for finding media in
the inbox, ``libs.housekeeping.media_copies`` for removing copies.
"""

import hashlib
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from libs.errors import ArtifactMissingError, InputError, StorageError, StorageUnavailableError
from libs.requests.inbox.inbox import INBOX_PREFIX, Inbox, ordinary_suffix
from libs.storage.backends.sha256 import sha256_of_file
from libs.storage.backends.store import ObjectInfo, ObjectStore

MEDIA_PREFIX = "requests/media"

COPIED_UP_TO = 1 << 30
"""Bytes. A scan of the inbox copies two such files in a few seconds; larger ones stay in the inbox."""

MINIMUM_COPY_AGE = timedelta(days=2)
"""A copy is older than the request that is accepted with it, and no scan takes that long."""

_SETTLED = timedelta(seconds=2)
_DIGESTS_REMEMBERED = 10_000
_DIGITS = 40
_digests: dict[tuple[str, str, int], str] = {}
"""Of files in a folder, by address, version and size: one video may serve thousands of requests."""


class AcceptedMedium(BaseModel):
    """One picture or video as it was when a request was accepted.

    ``key`` is where its bytes lie: a copy of them, or, of a large file, its place in the inbox. ``sha256`` is None
    where it is unknown; ``version`` is the store's name for the content in the inbox.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    key: str
    size: int
    sha256: str | None = None
    version: str | None = None

    @property
    def is_copy(self) -> bool:
        """True where the bytes are the request's own."""
        return self.key.startswith(f"{MEDIA_PREFIX}/")

    def differs_from(self, other: "AcceptedMedium") -> bool:
        """True where the two are known to have other bytes."""
        if self.sha256 and other.sha256:
            return self.sha256 != other.sha256
        return self.size != other.size or (bool(self.version and other.version) and self.version != other.version)

    def __str__(self) -> str:
        digest = f", SHA-256 {self.sha256[:16]}…" if self.sha256 else ""
        return f"{self.size} bytes{digest}"


class MediaCopier:
    """Copies media of the inbox in ``objects``, so that a request keeps the files it was accepted with."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects
        self._copied: dict[tuple[str, str | None], AcceptedMedium] = {}

    def copy(self, info: ObjectInfo, suffix: str) -> AcceptedMedium:
        """Copy a file of the inbox, unless its copy is there or it is too large; what a request is accepted with.

        Raises:
            ArtifactMissingError: the file went, or changed, meanwhile.
        """
        known = self._copied.get((info.key, info.version))
        if known is None:
            known = self._copied[info.key, info.version] = self._copy(info, suffix)
        return known

    def _copy(self, info: ObjectInfo, suffix: str) -> AcceptedMedium:
        if info.size > COPIED_UP_TO:
            return AcceptedMedium(key=info.key, size=info.size, sha256=info.sha256, version=info.version)
        sha256 = self._digest(info)
        name = sha256 or f"version-{_digest_of_version(info)}"
        target = f"{MEDIA_PREFIX}/{name}{suffix}"
        there = self._objects.stat(target)
        if there is None or there.size != info.size:
            try:
                copied = self._objects.copy(info, target)
            except (ArtifactMissingError, StorageUnavailableError):
                raise
            except StorageError:  # a server that does not copy: the file stays where it is
                return AcceptedMedium(key=info.key, size=info.size, sha256=sha256, version=info.version)
            if copied.size != info.size or (sha256 and copied.sha256 and copied.sha256 != sha256):
                self._objects.delete(target)
                raise ArtifactMissingError(f"{self._objects.uri(info.key)} changed while it was copied")
        return AcceptedMedium(key=target, size=info.size, sha256=sha256, version=info.version)

    def _digest(self, info: ObjectInfo) -> str | None:
        """What is recorded in a bucket, or computed in a folder."""
        if info.sha256:
            return info.sha256
        identity = (self._objects.uri(info.key), info.version or "", info.size)
        if identity not in _digests:
            described = self._objects.head(info.key)
            if described is None or described.version != info.version:
                raise ArtifactMissingError(f"{self._objects.uri(info.key)} changed while it was read")
            if described.sha256 is None:
                return None
            if datetime.now(UTC) - info.modified < _SETTLED:  # it may change again within one tick of the disk's clock
                return described.sha256
            if len(_digests) >= _DIGESTS_REMEMBERED:
                _digests.clear()
            _digests[identity] = described.sha256
        return _digests[identity]


class AcceptedMedia:
    """The media that a request was accepted with, for the run that makes its clip."""

    def __init__(self, objects: ObjectStore, media: dict[str, AcceptedMedium]) -> None:
        self._objects = objects
        self._media = media

    def fetch_media(self, field: str, path: str, destination: Path) -> Path:
        """Copy the file ``path`` that a request's ``field`` names to ``destination``, as it was when accepted.

        Raises:
            InputError: something else lies there by now, or nothing.
        """
        medium = self._media[path]
        target = destination.with_suffix(ordinary_suffix(path))
        key = medium.key
        if medium.is_copy and not self._objects.exists(key):  # housekeeping took it, long after the clip was stored
            found = Inbox(self._objects).media([path]).get(path)
            key = found.key if found else f"{INBOX_PREFIX}/{path}"
        if key != medium.key or not medium.is_copy:
            self._require_same(field, path, medium, key)
        try:
            self._objects.get_file(key, target)
        except ArtifactMissingError:
            raise InputError(_replaced(field, path, medium, "there is no longer a file of that name")) from None
        if medium.sha256 is not None:
            digest = sha256_of_file(target)
            if digest != medium.sha256:
                target.unlink()
                raise InputError(_replaced(field, path, medium, f"its SHA-256 is {digest[:16]}… now"))
        elif not medium.is_copy:
            self._require_same(field, path, medium, key)  # it may have been replaced while it was copied
        return target

    def _require_same(self, field: str, path: str, medium: AcceptedMedium, key: str) -> None:
        now = self._objects.stat(key)
        if now is None:
            raise InputError(_replaced(field, path, medium, "there is no longer a file of that name"))
        if now.size != medium.size:
            raise InputError(_replaced(field, path, medium, f"a file of {now.size} bytes lies there now"))
        if medium.sha256 is None and now.version != medium.version:
            changed = f"{now.modified:%Y-%m-%d %H:%M} UTC"
            raise InputError(_replaced(field, path, medium, f"a file of {changed} lies there now"))


def _replaced(field: str, path: str, medium: AcceptedMedium, found: str) -> str:
    return (
        f"{field}: {path!r} is not the file that this request was accepted with ({medium}): {found}. Put that file "
        "back, or submit the request again with the file that is meant"
    )


def _digest_of_version(info: ObjectInfo) -> str:
    identity = f"{info.key} {info.version} {info.size} {info.modified.isoformat()}"
    return hashlib.sha256(identity.encode("utf-8", "surrogatepass")).hexdigest()[:_DIGITS]
