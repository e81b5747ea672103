"""The inbox: where people put requests and media, below ``inbox/`` of the bucket (or the folder in its place).

A document is any YAML or JSON file below ``inbox/``; it leaves the inbox when it is accepted (``requests/documents/``)
or refused (``inbox/rejected/``, with the reason beside it). Everything else is media and stays. Symbolic links are
never followed: what lies outside the inbox is nobody's request and nobody's media. See
``libs.requests.documents`` for what a document may say, ``libs.requests.lifecycle.accepted`` for accepted requests.
"""

import hashlib
import logging
import mimetypes
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from urllib.parse import unquote

from libs.errors import ArtifactMissingError, InputError, StorageError, StorageUnavailableError
from libs.messages.printable import shell_word
from libs.requests.documents.document import MAX_DOCUMENT_BYTES
from libs.requests.inbox.rejection import ERROR_SUFFIX, RECORD_SUFFIX, Rejection, parse_record, parse_text
from libs.storage.backends.keys import check_key
from libs.storage.backends.sha256 import sha256_of_file
from libs.storage.backends.store import ObjectInfo, ObjectStore
from libs.storage.claims import claimed, claimed_together

INBOX_PREFIX = "inbox"
ACCEPTED_DOCUMENTS_PREFIX = "requests/documents"
DOCUMENT_SUFFIXES = (".yaml", ".yml", ".json")

_REJECTED = f"{INBOX_PREFIX}/rejected/"
_LARGEST_MOVED = 50 * MAX_DOCUMENT_BYTES
"""Bytes. What is larger is somebody's data (a capture of motion); moving it would take longer than a sensor may."""

_LONGEST_NAME = 200
"""Bytes of a document's file name; a file system takes 255, with what is added where it is refused."""

REJECTED_SKIPPED = 1000
"""Number of rejected documents that a listing skips; if there are more, a new listing begins after them."""

_ASKED_ONE_BY_ONE = 100
"""Media that are asked for by name; the answer for more of them comes from one listing."""

_ORDINARY_SUFFIX = re.compile(r"\.[a-z0-9]{1,10}")

_CLAIM_SECONDS = 10.0
"""So long a file waits for another process that puts one under the same name."""

_REMOVED_AT_ONCE = 50
"""Documents removed under one claim; who wants to replace one of them waits for a second or two."""

_LAST_CHARACTER = "\U0010ffff"
_DIGITS_IN_NAME = 12
_SHOWN = 60

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class WaitingDocument:
    """A document in the inbox; ``name`` is its path below ``inbox/``."""

    name: str
    size: int
    modified: datetime
    version: str | None = None

    @property
    def arrival(self) -> str:
        """Tells this arrival of the document from a later one under the same name, with the same content or not."""
        return f"{self.name} {self.size} {self.modified.isoformat()} {self.version}"


class Inbox:
    """Documents and media of the inbox, and the ways in and out."""

    def __init__(self, objects: ObjectStore) -> None:
        self.objects = self._objects = objects

    def documents(self, after: str = "", limit: int | None = None) -> list[WaitingDocument]:
        """The documents that wait, by name; at most ``limit``, beginning behind ``after`` and going round.

        Going round means that documents which must wait never keep the others from their turn. No more is listed than
        that takes, however full the inbox is.
        """
        waiting = (_waiting_document(info) for info in self._going_round(after) if _is_document(info))
        return list(islice(waiting, limit))

    def links(self) -> list[str]:
        """Names below ``inbox/`` where a symbolic link lies instead of a file or folder."""
        keys = self._objects.links(f"{INBOX_PREFIX}/")
        return [key.removeprefix(f"{INBOX_PREFIX}/") for key in keys if not key.startswith(_REJECTED)]

    def waiting_document(self, request_id: str) -> WaitingDocument | None:
        """The document named for ``request_id`` that waits directly in ``inbox/``.

        Raises:
            InputError: there is more than one.
        """
        keys = [f"{INBOX_PREFIX}/{request_id}{suffix}" for suffix in DOCUMENT_SUFFIXES]
        found = [info for info in map(self._objects.stat, keys) if info is not None]
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

    def archive_document(self, name: str, sha256: str) -> bool:
        """Move an accepted document out of the inbox; False when it is gone, or is no longer what was accepted.

        One that was put there under the same name meanwhile stays, and waits for the next scan.
        """
        copied = self.copy_accepted(name, sha256)
        return copied is not None and self._remove(copied)

    def copy_accepted(self, name: str, sha256: str) -> ObjectInfo | None:
        """Copy an accepted document to where they are kept; what is to be removed then.

        None when it is gone, or is no longer what was accepted.
        """
        key = f"{INBOX_PREFIX}/{name}"
        found = self._objects.stat(key)
        try:
            content = self._objects.get_bytes(key)
        except ArtifactMissingError:
            return None
        if found is None or hashlib.sha256(content).hexdigest() != sha256:
            return None
        self._put_document(f"{ACCEPTED_DOCUMENTS_PREFIX}/", name, content)
        for suffix in ("", ERROR_SUFFIX, RECORD_SUFFIX):
            self._objects.delete(f"{_rejected(name)}{suffix}")
        return found

    def withdraw(self, document: WaitingDocument) -> bool:
        """Take a document back before it is accepted; False where it is gone, or another one lies there by now."""
        found = self._objects.stat(f"{INBOX_PREFIX}/{document.name}")
        if found is None or (document.version is not None and found.version != document.version):
            return False
        return self._remove(found)

    def reject(self, document: WaitingDocument, reason: str) -> Rejection:
        """Move a document to ``inbox/rejected/`` and write ``reason`` beside it, for the person who sent it.

        Raises:
            ArtifactMissingError: it is gone, or another one lies there under its name, which stays.
        """
        key = f"{INBOX_PREFIX}/{document.name}"
        found = self._objects.stat(key)
        if found is None or (document.version is not None and found.version != document.version):
            raise ArtifactMissingError(f"{self._objects.uri(key)} is no longer what was read")
        with TemporaryDirectory() as folder:  # by way of a file: its size is unknown
            copy = Path(folder) / "document"
            self._objects.get_file(key, copy)
            file = _for_a_shell(self._objects.uri(_rejected(document.name)))
            rejection = self._put_rejection(document.name, reason, file)
            self._put_document(_REJECTED, document.name, copy)
        self._remove(found)
        return rejection

    def remove(self, documents: Sequence[ObjectInfo]) -> dict[str, Exception]:
        """Remove documents; those under whose name another one lies by now, or is being put, stay for the next scan.

        Returns:
            What went wrong, by name; the others are removed all the same.

        Raises:
            StorageUnavailableError: the store did not answer.
        """
        problems: dict[str, Exception] = {}
        for first in range(0, len(documents), _REMOVED_AT_ONCE):
            some = documents[first : first + _REMOVED_AT_ONCE]
            with self._to_itself(some) as keys:
                for info in some:
                    try:
                        if info.key in keys:
                            self._objects.delete_version(info)
                    except StorageUnavailableError:
                        raise
                    except Exception as error:  # one document stops no other
                        problems[info.key.removeprefix(f"{INBOX_PREFIX}/")] = error
        return problems

    def _remove(self, info: ObjectInfo) -> bool:
        """As :meth:`remove` for one of them; False where it stays."""
        with self._to_itself([info]) as keys:
            return info.key in keys and self._objects.delete_version(info)

    @contextmanager
    def _to_itself(self, documents: Sequence[ObjectInfo]) -> Iterator[set[str]]:
        """Keys of the documents that nobody is about to replace; all, where the store removes exact versions."""
        keys = {info.key for info in documents}
        if self._objects.deletes_exact_versions():
            yield keys
            return
        with claimed_together(self._objects, keys) as own:
            yield own

    def reject_link(self, name: str, reason: str) -> Rejection:
        """Remove a link that lies where a document should, and say why; what it points to is never looked at."""
        rejection = self._put_rejection(name, reason, None)
        self._objects.delete(f"{INBOX_PREFIX}/{name}")
        return rejection

    def _put_rejection(self, name: str, reason: str, file: str | None) -> Rejection:
        """Store the text for people, then the record beside it."""
        rejection = Rejection(name, reason, datetime.now(UTC), file)
        text = rejection.text(INBOX_PREFIX).encode("utf-8", "backslashreplace")
        place = self._put_document(_REJECTED, f"{name}{ERROR_SUFFIX}", text).removesuffix(ERROR_SUFFIX)
        try:
            self._objects.put_bytes(f"{place}{RECORD_SUFFIX}", rejection.to_json().encode(), "application/json")
        except StorageUnavailableError:
            raise
        except StorageError as error:  # a folder of that name is in the way: the text says it all
            _log.warning("%s", error)
        return rejection

    def _put_document(self, prefix: str, name: str, content: bytes | Path) -> str:
        """Store a document below ``prefix``; under another name where a folder has this one. Returns its key.

        A folder may have any name, also that of a document which comes after it.
        """
        beside = f"{hashlib.sha256(name.encode()).hexdigest()[:_DIGITS_IN_NAME]}-{PurePosixPath(name).name}"
        for target in (name, beside):
            try:
                if isinstance(content, Path):
                    digest = sha256_of_file(content)
                    self._objects.put_file(f"{prefix}{target}", content, digest, _content_type(name))
                else:
                    self._objects.put_bytes(f"{prefix}{target}", content, _content_type(name))
            except StorageUnavailableError:
                raise
            except StorageError:
                if target == beside:
                    raise
            else:
                return f"{prefix}{target}"
        raise AssertionError("one of both is stored, or the last error is raised")

    def rejections(self) -> list[Rejection]:
        """All refused documents that are still there, the newest first."""
        return self.newest_rejections(None)[0]

    def newest_rejections(self, limit: int | None) -> tuple[list[Rejection], int]:
        """The ``limit`` newest of :meth:`rejections`, and how many older ones there are; only these are read."""
        listed = {info.key: info for info in self._objects.list(_REJECTED)}
        reasons = [info for key, info in listed.items() if key.endswith(ERROR_SUFFIX)]
        reasons.sort(key=lambda info: info.modified, reverse=True)
        found = []
        for info in reasons[:limit]:
            place = info.key.removesuffix(ERROR_SUFFIX)
            name = place.removeprefix(_REJECTED)
            record = listed.get(f"{place}{RECORD_SUFFIX}")
            # An earlier version may have refused it once more since: then the text is the newer one.
            is_current = record is not None and record.modified >= info.modified
            try:
                rejection = parse_record(self._objects.get_bytes(record.key)) if record and is_current else None
                found.append(rejection or parse_text(self._objects.get_bytes(info.key), name, info.modified))
            except ArtifactMissingError:  # corrected since it was listed
                continue
            except StorageUnavailableError:
                raise
            except StorageError as error:  # put there by hand, under a name that cannot be a key
                found.append(Rejection(name, str(error), info.modified))
        return found, len(reasons[limit:]) if limit is not None else 0

    def media(self, paths: Iterable[str]) -> dict[str, ObjectInfo]:
        """Those of the media ``paths`` that are in the inbox; a few are asked for by name, many are listed.

        A name is found however its letters are composed: the same ``é`` is one character on Linux and Windows and,
        in names that come from a Mac, two. The key of what was found is the name as it is stored.
        """
        wanted = [path for path in dict.fromkeys(paths) if self.problem_of_name(path) is None]
        if len(wanted) <= _ASKED_ONE_BY_ONE:
            found = {path: info for path in wanted if (info := self._media_by_name(path))}
        else:
            found = self._media_by_listing(wanted)
        if any(not path.isascii() for path in wanted if path not in found):
            found |= self._media_by_listing([path for path in wanted if path not in found])
        return found

    @staticmethod
    def problem_of_name(path: str) -> str | None:
        """Why no file of the inbox can be called ``path``; None when one can."""
        try:
            check_key(f"{INBOX_PREFIX}/{path}")
        except StorageError as error:
            return f"no file of the inbox can have this name: {error}"
        return None

    def _media_by_name(self, path: str) -> ObjectInfo | None:
        for spelling in spellings(path):
            if self.problem_of_name(spelling) is None and (info := self._objects.stat(_key(spelling))):
                return info
        return None

    def _media_by_listing(self, paths: Iterable[str]) -> dict[str, ObjectInfo]:
        wanted = {_key(path) for path in paths}
        composed = {_composed(key) for key in wanted}
        listed = {info.key: info for info in self._objects.list(f"{INBOX_PREFIX}/") if _composed(info.key) in composed}
        by_composed = {_composed(key): info for key, info in listed.items()}
        found = {key: listed.get(key) or by_composed.get(_composed(key)) for key in wanted}
        return {key.removeprefix(f"{INBOX_PREFIX}/"): info for key, info in found.items() if info}

    def all_media(self) -> Iterator[tuple[str, ObjectInfo]]:
        """Path below ``inbox/`` and description of every media file, from one listing of all of it."""
        for info in self._objects.list(f"{INBOX_PREFIX}/"):
            path = info.key.removeprefix(f"{INBOX_PREFIX}/")
            if not info.key.startswith(_REJECTED) and PurePosixPath(path).suffix.lower() not in DOCUMENT_SUFFIXES:
                yield path, info

    def media_digest(self, path: str, read_up_to: int | None = None) -> str | None:
        """SHA-256 of the media file ``path`` as it is now; None when it is not there.

        Read completely where its digest is not recorded: in a folder, and if another program put it into a bucket. Of
        a file with more than ``read_up_to`` bytes, size and time are the answer then.
        """
        info = self.media([path]).get(path)
        if info is None or info.sha256 is not None:
            return info.sha256 if info else None
        if read_up_to is not None and info.size > read_up_to:
            return f"{info.size} bytes of {info.modified:%Y-%m-%d %H:%M:%S}"
        return self.digest_of(info)

    def digest_of(self, info: ObjectInfo) -> str | None:
        """SHA-256 of what is stored under a key, computed if it is not recorded; None if it is gone."""
        described = self._objects.head(info.key)
        if described is None or described.sha256 is not None:
            return described.sha256 if described else None
        with TemporaryDirectory(prefix="media-digest-") as folder:
            copy = Path(folder) / "object"
            try:
                self._objects.get_file(info.key, copy)
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
        info = self.media([path]).get(path)
        if info is None:
            raise InputError(self.missing_media(field, path))
        target = destination.with_suffix(ordinary_suffix(path))
        self._objects.get_file(info.key, target)
        return target

    def missing_media(self, field: str, path: str) -> str:
        """How to say that the file ``path`` of a request's ``field`` is not there, or cannot be."""
        if problem := self.problem_of_name(path):
            return f"{field}: {path[:_SHOWN]!r}: {problem}"
        missing = f"{field}: there is no file {path!r} in the inbox (looked for {_for_a_shell(self.media_uri(path))})"
        if any(PurePosixPath(path).is_relative_to(link) for link in self.links()):
            missing += "; a symbolic link lies there, which is not followed: put the file itself there"
        return missing

    def _going_round(self, after: str) -> Iterator[ObjectInfo]:
        """What lies in the inbox, without what was refused: behind ``after`` first, then up to it."""
        last = _key(after)
        yield from self._behind(last if after else "")
        for info in self._behind("") if after else ():
            if info.key > last:
                return
            yield info

    def _behind(self, key: str) -> Iterator[ObjectInfo]:
        passed_over = 0
        for info in self._objects.list(f"{INBOX_PREFIX}/", start_after=key):
            if not info.key.startswith(_REJECTED):
                yield info
            elif (passed_over := passed_over + 1) > REJECTED_SKIPPED:
                yield from self._behind(f"{_REJECTED}{_LAST_CHARACTER}")
                return

    def put(self, name: str, file: Path) -> bool:
        """Store a file as ``inbox/<name>``; False when exactly these bytes were there already."""
        sha256 = sha256_of_file(file)
        key = f"{INBOX_PREFIX}/{name}"
        stored = self._objects.head(key)
        if stored is not None and (stored.size, stored.sha256) == (file.stat().st_size, sha256):
            return False
        self._objects.put_file(key, file, sha256, _content_type(name))
        return True

    def put_if_unchanged(self, name: str, file: Path, version: str | None) -> bool | None:
        """Store a file like :meth:`put`, if ``inbox/<name>`` still has this ``version``; otherwise return None.

        What is gone since then is no hindrance. Of several processes that put the same name at once, one does.
        """
        key = _key(name)
        with claimed(self._objects, key, _CLAIM_SECONDS) as alone:
            if alone and self.version_of(name) in {version, None}:
                return self.put(name, file)
        stored = self._objects.head(key)
        is_same = stored is not None and stored.size == file.stat().st_size and stored.sha256 == sha256_of_file(file)
        return False if is_same else None

    def version_of(self, name: str) -> str | None:
        """The version of the file that is ``inbox/<name>`` now; None if there is none."""
        info = self._objects.stat(_key(name))
        return None if info is None else info.version or info.modified.isoformat()

    def put_folder(self, folder: Path) -> None:
        """Store every file of ``folder`` in the inbox, media before the documents that name them."""
        files = [path for path in sorted(folder.iterdir()) if path.is_file()]
        for path in sorted(files, key=lambda path: path.suffix in DOCUMENT_SUFFIXES):
            self.put(path.name, path)


def ordinary_suffix(path: str) -> str:
    """The suffix that a copy of ``path`` keeps, in lower case; empty if it is not an ordinary one."""
    suffix = PurePosixPath(path).suffix.lower()
    return suffix if _ORDINARY_SUFFIX.fullmatch(suffix) else ""


def spellings(path: str) -> list[str]:
    """``path`` with its letters composed in each way that systems write them in, each once, itself first."""
    return list(dict.fromkeys((path, unicodedata.normalize("NFC", path), unicodedata.normalize("NFD", path))))


def is_document_name(name: str) -> bool:
    """True for what is a document by its name, a path below ``inbox/``."""
    path = PurePosixPath(name)
    return path.suffix.lower() in DOCUMENT_SUFFIXES and not path.name.startswith(".")


def _key(path: str) -> str:
    return f"{INBOX_PREFIX}/{path}"


def _rejected(name: str) -> str:
    return f"{_REJECTED}{name}"


def _composed(key: str) -> str:
    return unicodedata.normalize("NFC", key)


def _is_document(info: ObjectInfo) -> bool:
    key, path = info.key, PurePosixPath(info.key)
    if not is_document_name(key):
        return False
    if info.size > _LARGEST_MOVED:
        _log.warning("%r in the inbox is ignored: with %d bytes it is not a request", key, info.size)
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


def _for_a_shell(uri: str) -> str:
    """The address of a stored file as a shell takes it: a path where it is one."""
    return shell_word(unquote(uri.removeprefix("file://")) if uri.startswith("file://") else uri)


def _waiting_document(info: ObjectInfo) -> WaitingDocument:
    return WaitingDocument(info.key.removeprefix(f"{INBOX_PREFIX}/"), info.size, info.modified, info.version)


def _content_type(name: str) -> str:
    return mimetypes.guess_type(name)[0] or "application/octet-stream"
