"""One look at the inbox: which documents are accepted, refused, or not complete yet.

The look is bounded in documents, requests and seconds, and carries on where the last one stopped, so that any number of
documents may wait. A document leaves the inbox one look *after* it was accepted: by then its runs are launched, and
whatever died in between, the next look finds the document again and comes to the same result. What does not belong
here: launching anything (``orchestration.sensors.inbox``).
"""

import hashlib
import time
from dataclasses import dataclass, field
from datetime import datetime

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from libs.errors import ArtifactCorruptError, ArtifactMissingError, InputError, StorageError, StorageUnavailableError
from libs.requests.accepted import AcceptedRequest, AcceptedRequests
from libs.requests.animation_request import AnimationRequest
from libs.requests.batch import Submission, parse_submission
from libs.requests.inbox import Inbox, Rejection, WaitingDocument
from libs.storage.objects import ObjectInfo

_MAX_REASONS = 20
_MAX_SEEN = 1000
"""Bounds the state; what finds no place in it waits a little longer."""


@dataclass(frozen=True)
class IntakeLimits:
    """How much one look may do, and how long what is incomplete may stay so.

    ``requests`` bounds what is accepted (and so the runs that Dagster has to launch before it looks at other sensors),
    ``documents`` what is read, ``seconds`` both. A document whose media are not
    there is refused after ``media_grace`` seconds; one that cannot be read may be half written, and is refused when it
    has not changed for ``settled_after`` seconds.
    """

    requests: int = 200
    documents: int = 500
    seconds: float = 25.0
    media_grace: float = 600.0
    settled_after: float = 5.0


class IntakeState(BaseModel):
    """What the next look must know; small, whatever the inbox holds.

    ``after``: the document looked at last. ``finished``: accepted documents and the SHA-256 they had, to be filed away.
    ``partial``: the document of which only the first requests were accepted so far. ``seen``: when a document was first
    seen to wait for media, in seconds since the epoch, where its own time is no help (copied with an old date).
    """

    model_config = ConfigDict(extra="forbid")

    after: str = ""
    finished: dict[str, str] = Field(default_factory=dict)
    partial: tuple[str, str, int] | None = None
    seen: dict[str, float] = Field(default_factory=dict)

    @classmethod
    def load(cls, stored: str | None) -> "IntakeState":
        """The state as it was stored; an empty one where there is none, or one of another version."""
        try:
            return cls.model_validate_json(stored) if stored else cls()
        except ValidationError:
            return cls()


@dataclass
class Intake:
    """What one look found. ``unreadable`` are documents that the store would not give, or whose ids it has something
    damaged for: left alone, tried again."""

    state: IntakeState
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


class InboxIntake:
    """Takes documents from ``inbox`` and keeps what they ask for in ``requests``."""

    def __init__(
        self, inbox: Inbox, requests: AcceptedRequests, default_model: str, limits: IntakeLimits | None = None
    ) -> None:
        self._inbox = inbox
        self._requests = requests
        self._default_model = default_model
        self._limits = limits or IntakeLimits()

    def look(self, state: IntakeState, now: datetime) -> Intake:
        """One look at the inbox.

        Args:
            state: what the look before left.
            now: the time, with its zone.

        Raises:
            StorageUnavailableError: the store did not answer; look again with the same ``state``.
        """
        deadline = time.monotonic() + self._limits.seconds
        intake = Intake(IntakeState(after=state.after, seen=self._still_of_use(state.seen, now)))
        for name, sha256 in state.finished.items():
            if time.monotonic() > deadline:
                intake.state.finished[name] = sha256  # the next look goes on
            else:
                self._file_away(name, sha256, intake)
        readable = self._read_some(state, intake, now, deadline)
        media = self._inbox.media(
            path for entry in readable for request in entry.submission.requests for path in _media_of(request)
        )
        room = self._limits.requests
        for entry in readable:
            if room <= 0 or (time.monotonic() > deadline and intake.accepted):
                break
            if self._must_wait(entry, media, state, intake, now):
                intake.state.after = entry.document.name
                continue
            room -= self._accept(entry, media, state, intake, room, deadline)
        return intake

    def accept_waiting(self, request_id: str) -> AcceptedRequest | None:
        """Accept the document named ``request_id`` at once, for a run that a person started; None if none waits.

        A batch of that name is left to :meth:`look`: its other requests need their partitions and runs.

        Raises:
            InputError: the document is wrong, or a file it names is not there; it stays in the inbox.
        """
        document = self._inbox.waiting_document(request_id)
        if document is None:
            return None
        try:
            entry = self._parse(document)
        except ArtifactMissingError:  # the sensor took it meanwhile
            return None
        if [request.id for request in entry.submission.requests] != [request_id]:
            return None
        media = self._inbox.media(path for request in entry.submission.requests for path in _media_of(request))
        if missing := self._missing(entry.submission, media):
            raise InputError(f"{document.name}: {missing[0]}")
        accepted = self._accept_one(entry.submission.requests[0], media, document.name)
        self._inbox.file_away(document.name, entry.sha256)
        return accepted

    def _file_away(self, name: str, sha256: str, intake: Intake) -> None:
        try:
            self._inbox.file_away(name, sha256)
        except StorageUnavailableError:
            raise
        except StorageError as error:
            intake.unreadable.append(f"{name}: {error}")

    def _read_some(self, state: IntakeState, intake: Intake, now: datetime, deadline: float) -> list[_Readable]:
        """Read documents until there is enough for one look; refuse those that say nothing valid."""
        readable: list[_Readable] = []
        requests = 0
        for document in self._in_turn(state):
            if requests >= self._limits.requests or (time.monotonic() > deadline and readable):
                break
            try:
                entry = self._parse(document)
            except InputError as error:
                intake.state.after = document.name
                if _age(document, now) < self._limits.settled_after:
                    intake.waiting.append(document.name)
                else:
                    self._reject(document, str(error), intake)
            except ArtifactMissingError:  # taken back since it was listed
                continue
            except StorageUnavailableError:
                raise
            except StorageError as error:
                intake.state.after = document.name
                intake.unreadable.append(f"{document.name}: {error}")
            else:
                readable.append(entry)
                requests += len(entry.submission.requests)
        return readable

    def _in_turn(self, state: IntakeState) -> list[WaitingDocument]:
        """The documents of this look; one that was begun comes first."""
        documents = self._inbox.documents(state.after, self._limits.documents)
        begun = state.partial[0] if state.partial else None
        return sorted(documents, key=lambda document: document.name != begun)

    def _parse(self, document: WaitingDocument) -> _Readable:
        content = self._inbox.read(document)
        submission = parse_submission(content, source=document.name)
        stem = document.name.rpartition("/")[2].rpartition(".")[0]
        if submission.name is not None and submission.name != stem:
            field_name = "id" if submission.requests[0].id == submission.name else "batch"
            raise InputError(
                f"{document.name}: {field_name}: is {submission.name!r}, but the document is named for {stem!r}; "
                "give both the same name"
            )
        return _Readable(document, hashlib.sha256(content).hexdigest(), submission)

    def _must_wait(
        self, entry: _Readable, media: dict[str, ObjectInfo], state: IntakeState, intake: Intake, now: datetime
    ) -> bool:
        """True when the document is not accepted in this look: its media are still on their way, or never came."""
        document = entry.document
        missing = self._missing(entry.submission, media)
        if not missing and not self._still_arriving(entry, media, now):
            return False
        grace = self._limits.media_grace
        if missing and self._waited(document, state, intake, now) >= grace:
            intake.state.seen.pop(document.name, None)
            reasons = "\n".join(missing[:_MAX_REASONS])
            more = f"\nand {len(missing) - _MAX_REASONS} more" if len(missing) > _MAX_REASONS else ""
            self._reject(document, f"{reasons}{more}\nIt waited {grace / 60:.0f} minutes for that.", intake)
        else:
            intake.waiting.append(document.name)
        return True

    def _waited(self, document: WaitingDocument, state: IntakeState, intake: Intake, now: datetime) -> float:
        """Seconds that the document has waited for its media."""
        age = _age(document, now)
        if age < self._limits.media_grace:
            return age
        first_seen = state.seen.get(document.name, now.timestamp())
        if len(intake.state.seen) < _MAX_SEEN:
            intake.state.seen[document.name] = first_seen
        return now.timestamp() - first_seen

    def _still_of_use(self, seen: dict[str, float], now: datetime) -> dict[str, float]:
        oldest = now.timestamp() - 2 * self._limits.media_grace
        return {name: since for name, since in seen.items() if since > oldest}

    def _missing(self, submission: Submission, media: dict[str, ObjectInfo]) -> list[str]:
        """A line for each media file that is not in the inbox; each file once."""
        named = {path: name for request in submission.requests for path, name in _media_of(request).items()}
        return [self._inbox.missing_media(name, path) for path, name in named.items() if path not in media]

    def _still_arriving(self, entry: _Readable, media: dict[str, ObjectInfo], now: datetime) -> bool:
        """True when one of the media, all of which are there, is younger than the document and may still grow."""
        newest = max(media[path].modified for request in entry.submission.requests for path in _media_of(request))
        return newest > entry.document.modified and (now - newest).total_seconds() < self._limits.settled_after

    def _accept(
        self,
        entry: _Readable,
        media: dict[str, ObjectInfo],
        state: IntakeState,
        intake: Intake,
        room: int,
        deadline: float,
    ) -> int:
        """Accept as many of the document's requests as there is room and time for; returns how many."""
        name, requests = entry.document.name, entry.submission.requests
        done = state.partial[2] if state.partial and state.partial[:2] == (name, entry.sha256) else 0
        begun = done
        for request in requests[begun : begun + room]:
            try:
                intake.accepted.append(self._accept_one(request, media, name))
            except ArtifactCorruptError as error:  # what was accepted before under this id
                intake.unreadable.append(f"{name}: {error}")
                intake.state.after = name
                return done - begun
            done += 1
            if time.monotonic() > deadline:
                break
        if done < len(requests):
            intake.state.partial = (name, entry.sha256, done)
        else:
            intake.state.finished[name] = entry.sha256
            intake.state.after = name
        return done - begun

    def _accept_one(self, request: AnimationRequest, media: dict[str, ObjectInfo], document: str) -> AcceptedRequest:
        sizes = {path: media[path].size for path in _media_of(request)}
        return self._requests.accept(request, sizes, document=document, default_model=self._default_model)

    def _reject(self, document: WaitingDocument, reason: str, intake: Intake) -> None:
        try:
            self._inbox.reject(document, reason)
        except ArtifactMissingError:  # taken back meanwhile
            return
        except StorageUnavailableError:
            raise
        except StorageError as error:
            intake.unreadable.append(f"{document.name}: {error}")
            return
        intake.rejected.append(Rejection(document.name, reason))


def _media_of(request: AnimationRequest) -> dict[str, str]:
    """Path -> the field that names it."""
    return {request.driver: "driver", request.reference: "reference"}


def _age(document: WaitingDocument, now: datetime) -> float:
    """Seconds since the document was written; a time in the future, by more than clocks may differ, says nothing."""
    seconds = (now - document.modified).total_seconds()
    return seconds if seconds > -60 else float("inf")
