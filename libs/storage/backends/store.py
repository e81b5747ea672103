"""The interface of an object store: what a bucket and a folder have in common.

An object appears whole or not at all.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol


@dataclass(frozen=True)
class ObjectInfo:
    """One stored object. ``size`` in bytes; ``sha256`` is None in listings and where it is not recorded.

    ``version`` changes with the content: a bucket's ETag; inode and time of change of a file, which change also when
    the same bytes are written again.
    """

    key: str
    size: int
    modified: datetime
    sha256: str | None = None
    content_type: str | None = None
    version: str | None = None


class ObjectStore(Protocol):
    """Named byte strings. All methods raise ``StorageError`` for bad keys, missing buckets and refused access, and
    ``StorageUnavailableError`` where trying again may help.
    """

    def put_file(
        self, key: str, path: Path, sha256: str, content_type: str, cache_control: str | None = None
    ) -> ObjectInfo:
        """Store a file's bytes under ``key``, replacing what is there; ``sha256`` is the digest of the file."""

    def put_bytes(self, key: str, data: bytes, content_type: str = "application/octet-stream") -> ObjectInfo:
        """Store ``data`` under ``key``, replacing what is there."""

    def get_file(self, key: str, destination: Path) -> None:
        """Write the object's bytes to ``destination``, atomically.

        Raises:
            ArtifactMissingError: there is no such object.
        """

    def get_bytes(self, key: str) -> bytes:
        """The object's bytes; for small objects.

        Raises:
            ArtifactMissingError: there is no such object.
        """

    def head(self, key: str) -> ObjectInfo | None:
        """Size, time and digest without the bytes; None when there is no such object."""

    def stat(self, key: str) -> ObjectInfo | None:
        """What is known of the object without reading it: in a folder no digest; None when there is no such object."""

    def exists(self, key: str) -> bool:
        """True when there is such an object."""

    def list(self, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
        """All objects whose key starts with ``prefix`` (any string, not only whole folders), sorted by key.

        Only those with a key behind ``start_after``, where it is given.
        """

    def folders(self, prefix: str) -> Iterator[str]:
        """Names of the folders directly below ``prefix`` (no slash at its end), sorted; nothing in them is listed."""

    def links(self, prefix: str = "") -> Iterator[str]:
        """Keys below ``prefix`` where a symbolic link lies, which is never followed; a bucket has none."""

    def copy(self, source: ObjectInfo, target: str) -> ObjectInfo:
        """Store the bytes of ``source`` under the key ``target`` as well, within the store.

        Raises:
            ArtifactMissingError: the object no longer exists or has another version.
        """

    def delete(self, key: str) -> None:
        """Remove the object; no error when there is none."""

    def delete_version(self, info: ObjectInfo) -> bool:
        """Remove the object if it is still the one that ``info`` describes; False if it is gone or was replaced.

        Where :meth:`deletes_exact_versions`, what came after it is never removed. Others are asked first: what is
        stored between question and deletion, some milliseconds, goes with it. Whoever writes there as well can be kept
        out by a claim (``libs.storage.claims``).
        """

    def deletes_exact_versions(self) -> bool:
        """True for a folder, and for a bucket whose server heeds the condition of a conditional delete."""

    def uri(self, key: str) -> str:
        """The object's address, for people and lineage."""
