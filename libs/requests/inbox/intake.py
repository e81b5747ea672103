"""One scan of the inbox: which documents are accepted, refused, or not complete yet.

It is bounded in documents, requests and seconds, and carries on where the last one stopped, so that any number of
documents may wait. A document leaves the inbox one scan *after* it was accepted: by then its runs are launched, and
if a process dies in between, the next scan finds the document again and comes to the same result. Nothing that one
person puts there stops the requests of another: an error in one document does not affect the others, and of two
documents that want one id for different things the second is rejected. See ``orchestration.inbox.sensor`` for launching
runs.
"""

import hashlib
import time
import traceback
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import PurePosixPath

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from libs.errors import (
    ArtifactCorruptError,
    ArtifactMissingError,
    InputError,
    StorageError,
    StorageUnavailableError,
)
from libs.requests.documents.animation_request import AnimationRequest
from libs.requests.documents.batch import Submission, parse_submission
from libs.requests.documents.document_names import is_named_for
from libs.requests.inbox.accepted_media import MediaCopier
from libs.requests.inbox.inbox import Inbox, WaitingDocument, is_document_name, ordinary_suffix
from libs.requests.inbox.rejection import Rejection
from libs.requests.lifecycle.accepted import AcceptedRequest, AcceptedRequests, content_of
from libs.storage.backends.store import ObjectInfo

_MAX_REASONS = 20
MAX_SEEN = 1000
"""Bounds the state; what does not fit waits a little longer."""

_CLOCKS_DIFFER = 60.0
"""Seconds. A time further ahead is not that of a clock that is a little fast, and is ignored."""

_MANY = 100
"""Requests of one document for which it is cheaper to list the accepted ones than to ask for each."""


@dataclass(frozen=True)
class ScanLimits:
    """How much one scan may do, and how long what is incomplete may stay so.

    ``requests`` bounds what is accepted (and so the runs that Dagster has to launch before it looks at other sensors),
    ``documents`` what is read, ``seconds`` both, counted from the listing on; half as long again where nothing was
    accepted or refused by then. A document whose media are not there is refused after ``media_grace`` seconds; one that
    cannot be read may be half written, and is refused when it has not changed for ``settled_after`` seconds.
    """

    requests: int = 200
    documents: int = 500
    seconds: float = 25.0
    media_grace: float = 600.0
    settled_after: float = 5.0


class ScanState(BaseModel):
    """What the next scan must know; its size is bounded.

    ``after``: the document looked at last. ``finished``: accepted documents and the SHA-256 they had, to be archived.
    ``partial``: the document of which only the first requests were accepted so far. ``seen``: when a document was first
    seen to wait for media, in seconds since the epoch, where its own time is no help (copied with an old date).
    ``unsettled``: the same for what may still be written and is dated in the future, with what it looked like then.
    """

    model_config = ConfigDict(extra="forbid")

    after: str = ""
    finished: dict[str, str] = Field(default_factory=dict)
    partial: tuple[str, str, int] | None = None
    seen: dict[str, float] = Field(default_factory=dict)
    unsettled: dict[str, tuple[str, float]] = Field(default_factory=dict)

    @classmethod
    def load(cls, stored: str | None) -> "ScanState":
        """The state as it was stored; an empty one if there is none or it has another version."""
        try:
            return cls.model_validate_json(stored) if stored else cls()
        except ValidationError:
            return cls()


@dataclass
class ScanResult:
    """What one scan found. ``unreadable`` are documents that the store would not give, or whose ids it has something
    damaged for: left alone, tried again."""

    state: ScanState
    accepted: list[AcceptedRequest] = field(default_factory=list)
    rejected: list[Rejection] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class _Readable:
    """A document that says something valid."""

    document: WaitingDocument
    sha256: str
    submission: Submission

    @property
    def name(self) -> str:
        return self.document.name


class InboxScanner:
    """Takes documents from ``inbox`` and keeps what they ask for in ``requests``."""

    def __init__(
        self, inbox: Inbox, requests: AcceptedRequests, default_model: str, limits: ScanLimits | None = None
    ) -> None:
        self.inbox = inbox
        self.requests = requests
        self._default_model = default_model
        self._copier = MediaCopier(inbox.objects)
        self.limits = limits or ScanLimits()

    def scan(self, state: ScanState, now: datetime) -> ScanResult:
        """Scan the inbox once.

        Args:
            state: what the scan before left.
            now: the time, with its zone.

        Raises:
            StorageUnavailableError: the store did not answer; scan again with the same ``state``.
        """
        return _Scan(self, state, now).run()

    def accept_waiting(self, request_id: str) -> AcceptedRequest | None:
        """Accept the document named ``request_id`` at once, for a run that a person started; None if none waits.

        A batch of that name is left to :meth:`scan`: its other requests need their partitions and runs.

        Raises:
            InputError: the document is wrong, or a file it names is not there; it stays in the inbox.
        """
        document = self.inbox.waiting_document(request_id)
        if document is None:
            return None
        try:
            entry = self.parse(document)
        except ArtifactMissingError:  # the sensor took it meanwhile
            return None
        if [request.id for request in entry.submission.requests] != [request_id]:
            return None
        media = self.inbox.media(_paths(entry.submission.requests))
        for path, field_name in _missing(entry.submission, media).items():
            raise InputError(f"{document.name}: {self.inbox.missing_media(field_name, path)}")
        accepted = self.accept(entry.submission.requests[0], media, entry)
        self.inbox.archive_document(document.name, entry.sha256)
        return accepted

    def parse(self, document: WaitingDocument) -> _Readable:
        """Read a document.

        Raises:
            InputError: the document is invalid.
            ArtifactMissingError: it is gone.
        """
        content = self.inbox.read(document)
        submission = parse_submission(content, source=document.name)
        stem = document.name.rpartition("/")[2].rpartition(".")[0]
        if submission.name is not None and not is_named_for(stem, submission.name):
            field_name = "id" if submission.requests[0].id == submission.name else "batch"
            raise InputError(
                f"{document.name}: {field_name}: is {submission.name!r}, but the document is named for {stem!r}; "
                f"rename the document to {submission.name}{PurePosixPath(document.name).suffix}, or write "
                f"`{field_name}: NAME` with the name it has"
            )
        return _Readable(document, hashlib.sha256(content).hexdigest(), submission)

    def accept(self, request: AnimationRequest, media: dict[str, ObjectInfo], entry: _Readable) -> AcceptedRequest:
        """Accept one request of a document, with the media as they are now.

        Raises:
            ArtifactMissingError: a file went, or changed, meanwhile.
        """
        copies = {path: self._copier.copy(media[path], ordinary_suffix(path)) for path in _media_of(request)}
        return self.requests.accept(
            request,
            copies,
            document=entry.name,
            default_model=self._default_model,
            arrival=entry.document.arrival,
        )


class _Scan:
    """One scan: what it found so far, and how much more it may do."""

    def __init__(self, scanner: InboxScanner, state: ScanState, now: datetime) -> None:
        self._scanner = scanner
        self._inbox = scanner.inbox
        self._requests = scanner.requests
        self._limits = scanner.limits
        self._before = state
        self._now = now
        self._room = self._limits.requests
        self._requests_read = 0
        self._claims: dict[str, tuple[str, str]] = {}
        self._media: dict[str, ObjectInfo] = {}
        self._duplicates: set[str] = set()
        self._ids: set[str] | None = None
        oldest = now.timestamp() - 2 * self._limits.media_grace
        self._found = ScanResult(
            ScanState(
                after=state.after,
                seen={name: since for name, since in state.seen.items() if since > oldest},
                unsettled={name: seen for name, seen in state.unsettled.items() if seen[1] > oldest},
            )
        )

    def run(self) -> ScanResult:
        """Archive what was accepted before, then read, refuse and accept for as long as there is room and time."""
        self._archive_finished()
        self._reject_links()
        documents = self._in_turn()
        started = time.monotonic()
        for number, document in enumerate(documents):
            if self._is_full() or (number and self._is_late(time.monotonic() - started)):
                break
            if document.name not in self._found.state.finished:  # else it is still to be moved away
                self._take_guarded(document, started + self._limits.seconds)
        else:
            if len(documents) < self._limits.documents:  # all of them had their turn: the next scan starts over
                self._found.state.after = ""
        return self._found

    def _is_full(self) -> bool:
        return self._room <= 0 or self._requests_read >= self._limits.requests

    def _is_late(self, seconds: float) -> bool:
        found_any = bool(self._found.accepted or self._found.rejected)
        return seconds > self._limits.seconds * (1.0 if found_any else 1.5)

    def _archive_finished(self) -> None:
        deadline = time.monotonic() + self._limits.seconds / 2
        copied = []
        for name, sha256 in self._before.finished.items():
            if time.monotonic() > deadline:
                self._found.state.finished[name] = sha256  # the next scan goes on
                continue
            try:
                document = self._inbox.copy_accepted(name, sha256)
            except StorageUnavailableError:
                raise
            except Exception as error:  # one document stops no other
                self._found.unreadable.append(f"{name}: {error}")
            else:
                copied += [document] if document else []
        for name, problem in self._inbox.remove(copied).items():
            self._found.unreadable.append(f"{name}: {problem}")

    def _reject_links(self) -> None:
        """What a link points to may be anybody's, so it is not even read; the person hears of it."""
        for name in filter(is_document_name, self._inbox.links()):
            reason = "it is a symbolic link, which is not followed; put the document itself into the inbox"
            try:
                self._found.rejected.append(self._inbox.reject_link(name, reason))
            except StorageUnavailableError:
                raise
            except Exception as error:
                self._found.unreadable.append(f"{name}: {error}")

    def _in_turn(self) -> list[WaitingDocument]:
        """The documents of this scan; one that was begun comes first."""
        documents = self._inbox.documents(self._before.after, self._limits.documents)
        begun = self._before.partial[0] if self._before.partial else None
        return sorted(documents, key=lambda document: document.name != begun)

    def _take_guarded(self, document: WaitingDocument, deadline: float) -> None:
        """Take one document; an error is reported for it, and the others continue.

        Raises:
            StorageUnavailableError: the store did not answer.
        """
        try:
            self._take(document, deadline)
        except StorageUnavailableError:
            raise
        except ArtifactMissingError:  # taken back since it was listed
            pass
        except InputError as error:
            self._reject(document, str(error))
        except StorageError as error:
            if _is_in_the_way(error):
                self._reject(document, f"it cannot be kept: {error}; use another id or name")
            else:
                self._found.unreadable.append(f"{document.name}: {error}")
        except Exception:  # unexpected
            reason = (
                f"{document.name}: it cannot be read because of an unexpected error; the sensor's log has "
                "the details. Simplify the document, or show it to whoever runs this service"
            )
            self._reject(document, reason, traceback.format_exc())
        if self._found.state.partial is None or self._found.state.partial[0] != document.name:
            self._found.state.after = document.name

    def _take(self, document: WaitingDocument, deadline: float) -> None:
        try:
            entry = self._scanner.parse(document)
        except InputError:
            if self._is_settled(document.name, document.modified, document.arrival):
                raise
            self._found.waiting.append(document.name)
            return
        self._requests_read += len(entry.submission.requests)
        paths = _paths(entry.submission.requests)
        self._media |= self._inbox.media(path for path in paths if path not in self._media)
        if self._must_wait(entry):
            self._found.waiting.append(document.name)
        else:
            self._require_own_ids(entry)
            self._accept(entry, deadline)

    def _must_wait(self, entry: _Readable) -> bool:
        """True when the document is not accepted in this scan: its media are still on their way.

        Raises:
            InputError: they never came, or never can.
        """
        missing = _missing(entry.submission, self._media)
        if not missing:
            return self._still_arriving(entry)
        impossible = [path for path in missing if self._inbox.problem_of_name(path)]
        if not impossible and self._waited(entry.document) < self._limits.media_grace:
            return True
        self._found.state.seen.pop(entry.name, None)
        named = impossible or list(missing)
        lines = [self._inbox.missing_media(missing[path], path) for path in named[:_MAX_REASONS]]
        if len(named) > _MAX_REASONS:
            lines.append(f"and {len(named) - _MAX_REASONS} more")
        if not impossible:
            lines.append(f"It waited {self._limits.media_grace / 60:.0f} minutes for that.")
        raise InputError("\n".join(lines))

    def _waited(self, document: WaitingDocument) -> float:
        """Seconds that the document has waited for its media."""
        age = self._age(document.modified)
        if -_CLOCKS_DIFFER < age < self._limits.media_grace:
            return age
        first_seen = self._before.seen.get(document.name, self._now.timestamp())
        if len(self._found.state.seen) < MAX_SEEN:
            self._found.state.seen[document.name] = first_seen
        return self._now.timestamp() - first_seen

    def _still_arriving(self, entry: _Readable) -> bool:
        """True when one of the media, all of which are there, is younger than the document and may still grow."""
        media = [self._media[path] for path in _paths(entry.submission.requests)]
        newest = max(info.modified for info in media)
        if newest <= entry.document.modified and self._age(entry.document.modified) > -_CLOCKS_DIFFER:
            return False
        description = repr([(info.key, info.size, info.modified, info.version) for info in media])
        return not self._is_settled(entry.name, newest, description)

    def _is_settled(self, name: str, modified: datetime, description: str) -> bool:
        """True when what belongs to the document ``name``, described as this, has not changed for some seconds.

        Its time says so, unless it lies in the future (a camera's clock): then it must have been seen like this before.
        """
        age = self._age(modified)
        if age > -_CLOCKS_DIFFER:
            return age >= self._limits.settled_after
        digest = hashlib.sha256(description.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        known, since = self._found.state.unsettled.get(name, ("", 0.0))
        if known != digest:
            since = self._now.timestamp()
        if self._now.timestamp() - since >= self._limits.settled_after:
            self._found.state.unsettled.pop(name, None)
            return True
        if len(self._found.state.unsettled) < MAX_SEEN:
            self._found.state.unsettled[name] = (digest, since)
        return False

    def _age(self, modified: datetime) -> float:
        return (self._now - modified).total_seconds()

    def _require_own_ids(self, entry: _Readable) -> None:
        """Let the document have its ids, unless another one that was there in time asked for something else by them.

        Of documents that lie in the inbox together the first one counts. One that was written after a request was
        accepted is meant to replace it.

        Raises:
            InputError: an id is taken.
        """
        lines = [line for request in entry.submission.requests if (line := self._taken(request, entry))]
        if lines:
            more = [f"and {len(lines) - _MAX_REASONS} more"] if len(lines) > _MAX_REASONS else []
            raise InputError("\n".join([*lines[:_MAX_REASONS], *more]))
        for request in entry.submission.requests:
            self._claims.setdefault(request.id, (entry.name, content_of(request, {})))

    def _taken(self, request: AnimationRequest, entry: _Readable) -> str | None:
        """Why the document cannot have the id of ``request``; None where it can."""
        if request.id in self._claims:
            first, content = self._claims[request.id]
            if first == entry.name or content == content_of(request, {}):
                return None
        else:
            accepted = self._accepted_before(request, entry)
            if accepted is None:
                return None
            if _asks_for_the_same(request, accepted):
                self._duplicates.add(request.id)
                return None
            first = accepted.document
        return (
            f"id: {request.id!r} is taken: {first}, which was here as well, asks for something else by that id; give "
            "this request another id, or put the document into the inbox again if it is to replace the other one"
        )

    def _accepted_before(self, request: AnimationRequest, entry: _Readable) -> AcceptedRequest | None:
        """What another document got accepted under the id of ``request`` while this one lay in the inbox."""
        if self._begun(entry):  # it was asked when it was begun
            return None
        if len(entry.submission.requests) > _MANY:
            self._ids = set(self._requests.ids()) if self._ids is None else self._ids
            if request.id not in self._ids:
                return None
        try:
            accepted = self._requests.find(request.id)
        except ArtifactCorruptError:  # accepting it says so
            return None
        if accepted is None or accepted.document == entry.name or entry.document.modified > accepted.accepted:
            return None
        return accepted

    def _begun(self, entry: _Readable) -> int:
        """How many of the document's requests were accepted by the scans before."""
        partial = self._before.partial
        return partial[2] if partial and partial[:2] == (entry.name, entry.sha256) else 0

    def _accept(self, entry: _Readable, deadline: float) -> None:
        """Accept as many of the document's requests as there is room and time for."""
        requests = entry.submission.requests
        begun = done = self._begun(entry)
        for request in requests[begun : begun + self._room]:
            if self._claims[request.id][0] == entry.name and request.id not in self._duplicates:
                try:
                    self._found.accepted.append(self._scanner.accept(request, self._media, entry))
                except ArtifactCorruptError as error:  # what was accepted before under this id
                    self._found.unreadable.append(f"{entry.name}: {error}")
                    self._room -= done - begun
                    for left in requests[done:]:
                        self._claims.pop(left.id, None)
                    return
            done += 1
            if time.monotonic() > deadline:
                break
        self._room -= done - begun
        if done < len(requests):
            self._found.state.partial = (entry.name, entry.sha256, done)
        else:
            self._found.state.finished[entry.name] = entry.sha256

    def _reject(self, document: WaitingDocument, reason: str, details: str | None = None) -> None:
        try:
            rejection = self._inbox.reject(document, reason)
        except ArtifactMissingError:  # taken back meanwhile
            return
        except StorageUnavailableError:
            raise
        except Exception as error:  # one document stops no other
            self._found.unreadable.append(f"{document.name}: {error}")
            return
        self._found.rejected.append(replace(rejection, traceback=details))


def _media_of(request: AnimationRequest) -> dict[str, str]:
    """Path -> the field that names it."""
    return {request.driver: "driver", request.reference: "reference"}


def _paths(requests: Iterable[AnimationRequest]) -> list[str]:
    """The media of all ``requests``, each once."""
    return list(dict.fromkeys(path for request in requests for path in _media_of(request)))


def _missing(submission: Submission, media: Mapping[str, ObjectInfo]) -> dict[str, str]:
    """Path -> field of each media file that is not among ``media``."""
    named = {path: name for request in submission.requests for path, name in _media_of(request).items()}
    return {path: name for path, name in named.items() if path not in media}


def _asks_for_the_same(request: AnimationRequest, accepted: AcceptedRequest) -> bool:
    return request.resolve(accepted.request.model).clip_fields() == accepted.request.clip_fields()


def _is_in_the_way(error: StorageError) -> bool:
    """True for a folder where a file should be, or the other way round."""
    return isinstance(error.__cause__, IsADirectoryError | NotADirectoryError | FileExistsError)
