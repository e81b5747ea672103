"""The inbox: where people put requests and media, below ``inbox/`` of the bucket (or the folder in its place).

A document is any YAML or JSON file below ``inbox/``; it leaves the inbox when it is accepted (``requests/documents/``)
or refused (``inbox/rejected/``, with the reason beside it). Everything else is media and stays. What does not belong
here: what a document may say (``animation_request``, ``batch``), what is kept of an accepted request (``accepted``).
"""

import hashlib
import heapq
import logging
import mimetypes
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory

from libs.errors import ArtifactMissingError, InputError, StorageError
from libs.requests.document import MAX_DOCUMENT_BYTES
from libs.storage.keys import check_key
from libs.storage.objects import ObjectInfo, ObjectStore
from libs.storage.sha256 import sha256_of_file

INBOX_PREFIX = "inbox"
ACCEPTED_DOCUMENTS_PREFIX = "requests/documents"
DOCUMENT_SUFFIXES = (".yaml", ".yml", ".json")
ERROR_SUFFIX = ".error.txt"

_REJECTED = f"{INBOX_PREFIX}/rejected/"
_LARGEST_MOVED = 50 * MAX_DOCUMENT_BYTES
"""Bytes. What is larger is somebody's data (a capture of motion); moving it would take longer than a sensor may."""

_LONGEST_NAME = 200
"""Bytes of a document's file name; a file system takes 255, with what is added where it is refused."""

_ORDINARY_SUFFIX = re.compile(r"\.[a-z0-9]{1,10}")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WaitingDocument:
    """A document in the inbox; ``name`` is its path below ``inbox/``."""

    name: str
    size: int
    modified: datetime


@dataclass(frozen=True)
class Rejection:
    """A refused document, by its path below ``inbox/``, and why."""

    name: str
    reason: str


class Inbox:
    """Documents and media of the inbox, and the ways in and out."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def documents(self, after: str = "", limit: int | None = None) -> list[WaitingDocument]:
        """The documents that wait, by name; at most ``limit``, beginning behind ``after`` and going round.

        Going round means that documents which must wait never keep the others from their turn. Memory is bounded by
        ``limit``, however full the inbox is.
        """
        waiting = (_waiting_document(info) for info in self._objects.list(f"{INBOX_PREFIX}/") if _is_document(info))

        def turn(document: WaitingDocument) -> tuple[bool, str]:
            return (document.name <= after, document.name)

        return sorted(waiting, key=turn) if limit is None else heapq.nsmallest(limit, waiting, key=turn)

    def waiting_document(self, request_id: str) -> WaitingDocument | None:
        """The document named for ``request_id`` that waits directly in ``inbox/``.

        Raises:
            InputError: there is more than one.
        """
        keys = [f"{INBOX_PREFIX}/{request_id}{suffix}" for suffix in DOCUMENT_SUFFIXES]
        found = [info for info in map(self._objects.head, keys) if info is not None]
        if len(found) > 1:
            names = ", ".join(info.key for info in found)
            raise InputError(f"{request_id!r} has more than one request document: {names}; keep one of them")
        return _waiting_document(found[0]) if found else None

    def read(self, document: WaitingDocument) -> bytes:
        """The document's text.

        Raises:
            InputError: it is too large to be a request.
            ArtifactMissingError: it is gone.
        """
        if document.size > MAX_DOCUMENT_BYTES:
            raise InputError(
                f"{document.name}: has {document.size} bytes; a request document may have at most {MAX_DOCUMENT_BYTES}"
            )
        return self._objects.get_bytes(f"{INBOX_PREFIX}/{document.name}")

    def file_away(self, name: str, sha256: str) -> bool:
        """Move an accepted document out of the inbox; False when it is gone, or is no longer what was accepted."""
        key = f"{INBOX_PREFIX}/{name}"
        try:
            content = self._objects.get_bytes(key)
        except ArtifactMissingError:
            return False
        if hashlib.sha256(content).hexdigest() != sha256:
            return False
        self._objects.put_bytes(f"{ACCEPTED_DOCUMENTS_PREFIX}/{name}", content, _content_type(name))
        for outdated in (f"{_REJECTED}{name}", f"{_REJECTED}{name}{ERROR_SUFFIX}", key):
            self._objects.delete(outdated)
        return True

    def reject(self, document: WaitingDocument, reason: str) -> None:
        """Move a document to ``inbox/rejected/`` and write ``reason`` beside it, for the person who sent it."""
        target = f"{_REJECTED}{document.name}"
        text = (
            f"{document.name} was not accepted:\n\n{reason}\n\n"
            f"The document is now {self._objects.uri(target)}.\n"
            f"Put a corrected one into {INBOX_PREFIX}/ again.\n"
        )
        self._objects.put_bytes(f"{target}{ERROR_SUFFIX}", text.encode("utf-8", "backslashreplace"), "text/plain")
        with TemporaryDirectory() as folder:  # by way of a file: nobody knows how large it is
            copy = Path(folder) / "document"
            self._objects.get_file(f"{INBOX_PREFIX}/{document.name}", copy)
            self._objects.put_file(target, copy, sha256_of_file(copy), _content_type(document.name))
        self._objects.delete(f"{INBOX_PREFIX}/{document.name}")

    def rejections(self) -> Iterator[Rejection]:
        """All refused documents that are still there, with the reason's first line."""
        for info in self._objects.list(f"{_REJECTED}"):
            if info.key.endswith(ERROR_SUFFIX):
                name = info.key.removeprefix(f"{_REJECTED}").removesuffix(ERROR_SUFFIX)
                lines = self._objects.get_bytes(info.key).decode("utf-8", "replace").split("\n\n")
                yield Rejection(name, lines[1] if len(lines) > 1 else "")

    def media(self, paths: Iterable[str]) -> dict[str, ObjectInfo]:
        """Those of the media ``paths`` that are in the inbox, from one look at all of it."""
        wanted = {f"{INBOX_PREFIX}/{path}" for path in paths}
        if not wanted:
            return {}
        found = (info for info in self._objects.list(f"{INBOX_PREFIX}/") if info.key in wanted)
        return {info.key.removeprefix(f"{INBOX_PREFIX}/"): info for info in found}

    def all_media(self) -> Iterator[tuple[str, ObjectInfo]]:
        """Path below ``inbox/`` and description of every media file, from one look at all of it."""
        for info in self._objects.list(f"{INBOX_PREFIX}/"):
            path = info.key.removeprefix(f"{INBOX_PREFIX}/")
            if not info.key.startswith(_REJECTED) and PurePosixPath(path).suffix.lower() not in DOCUMENT_SUFFIXES:
                yield path, info

    def media_digest(self, path: str, read_up_to: int | None = None) -> str | None:
        """SHA-256 of the media file ``path`` as it is now; None when it is not there.

        Read through where nobody recorded its digest, which another program that put it into a bucket does not. Of a
        file with more than ``read_up_to`` bytes, size and time are the answer then.
        """
        key = f"{INBOX_PREFIX}/{path}"
        info = self._objects.head(key)
        if info is None or info.sha256 is not None:
            return info.sha256 if info else None
        if read_up_to is not None and info.size > read_up_to:
            return f"{info.size} bytes of {info.modified:%Y-%m-%d %H:%M:%S}"
        with TemporaryDirectory(prefix="media-digest-") as folder:
            copy = Path(folder) / "object"
            try:
                self._objects.get_file(key, copy)
            except ArtifactMissingError:  # taken back meanwhile
                return None
            return sha256_of_file(copy)

    def media_uri(self, path: str) -> str:
        """The address of the media file ``path``."""
        return self._objects.uri(f"{INBOX_PREFIX}/{path}")

    def fetch_media(self, field: str, path: str, destination: Path) -> Path:
        """Copy the media file ``path`` that a request's ``field`` names to ``destination``.

        The copy keeps the suffix if it is an ordinary one (of ``clip.mp4 (1)`` nothing is kept).

        Raises:
            InputError: there is no such file.
        """
        key = f"{INBOX_PREFIX}/{path}"
        if not self._objects.exists(key):
            raise InputError(self.missing_media(field, path))
        suffix = PurePosixPath(path).suffix.lower()
        target = destination.with_suffix(suffix if _ORDINARY_SUFFIX.fullmatch(suffix) else "")
        self._objects.get_file(key, target)
        return target

    def missing_media(self, field: str, path: str) -> str:
        """How to say that the file ``path`` of a request's ``field`` is not there."""
        return f"{field}: there is no file {path!r} in the inbox (looked for {self.media_uri(path)})"

    def put(self, name: str, file: Path) -> bool:
        """Store a file as ``inbox/<name>``; False when exactly these bytes were there already."""
        sha256 = sha256_of_file(file)
        key = f"{INBOX_PREFIX}/{name}"
        stored = self._objects.head(key)
        if stored is not None and (stored.size, stored.sha256) == (file.stat().st_size, sha256):
            return False
        self._objects.put_file(key, file, sha256, _content_type(name))
        return True

    def put_folder(self, folder: Path) -> None:
        """Store every file of ``folder`` in the inbox, media before the documents that name them."""
        files = [path for path in sorted(folder.iterdir()) if path.is_file()]
        for path in sorted(files, key=lambda path: path.suffix in DOCUMENT_SUFFIXES):
            self.put(path.name, path)


def _is_document(info: ObjectInfo) -> bool:
    key, path = info.key, PurePosixPath(info.key)
    if path.suffix.lower() not in DOCUMENT_SUFFIXES or path.name.startswith(".") or key.startswith(_REJECTED):
        return False
    if info.size > _LARGEST_MOVED:
        _log.warning("%r in the inbox is left alone: with %d bytes it is no request", key, info.size)
        return False
    try:
        check_key(key)
        fits = len(path.name.encode()) <= _LONGEST_NAME
    except (StorageError, UnicodeError):  # it can be neither read nor moved
        fits = False
    if not fits:
        _log.warning("%r in the inbox is ignored: its name cannot be a key", key)
        return False
    return True


def _waiting_document(info: ObjectInfo) -> WaitingDocument:
    return WaitingDocument(info.key.removeprefix(f"{INBOX_PREFIX}/"), info.size, info.modified)


def _content_type(name: str) -> str:
    return mimetypes.guess_type(name)[0] or "application/octet-stream"
