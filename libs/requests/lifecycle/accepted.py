"""Accepted requests: what the graph reads, and which of them are pending: their clip must still be made.

    requests/accepted/<id>.json                      the request as it was accepted last, every default written out
    requests/open/<id>.<priority>.<content>.<names>  pending marker of this content; gone once its clip is stored
    requests/documents/<name>                        the documents as people wrote them (``libs.requests.inbox.inbox``)

Everything a schedule needs stands in the names below ``open/``, so that looking at 10,000 of them is a matter of
listing; also which media a pending request may name (:meth:`PendingMarker.may_name`). The marker is written before the
request and removed after its clip is stored. If a process dies in between, the marker remains and the next scan
resumes. See ``libs.requests.lifecycle.states`` for the clips.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from libs.errors import ArtifactCorruptError, ArtifactMissingError, StorageError, StorageUnavailableError
from libs.messages.validation import what_was_expected
from libs.requests.documents.animation_request import SCHEDULING_FIELDS, AnimationRequest, ResolvedRequest
from libs.requests.inbox.accepted_media import AcceptedMedium
from libs.storage.backends.store import ObjectStore

ACCEPTED_PREFIX = "requests/accepted"
PENDING_PREFIX = "requests/open"

CONTENT_ATTRIBUTE = "content"
"""In the manifest of a clip (and of what it is made from): the content of the request it was made for."""

_CONTENT_DIGITS = 32
_NAME_DIGITS = 8

ASKED_AT_ONCE = 8
"""Documents on their way from a bucket together."""

_MARKER_KEY = re.compile(
    rf"{PENDING_PREFIX}/(?P<request_id>[^./]+)\.(?P<priority>-?[0-9]{{1,9}})\.(?P<content>[0-9a-f]{{{_CONTENT_DIGITS}}})"
    rf"(\.(?P<names>[0-9a-f]{{{2 * _NAME_DIGITS}}}))?"
)


@dataclass(frozen=True)
class PendingMarker:
    """The object that stands for a pending request: everything a schedule needs is in its key.

    ``names`` tells which media the request may name; it is empty where an earlier version wrote the marker.
    """

    request_id: str
    priority: int
    content: str
    names: str = field(default="", compare=False)

    @property
    def key(self) -> str:
        """The marker's key in the store."""
        names = f".{self.names}" if self.names else ""
        return f"{PENDING_PREFIX}/{self.request_id}.{self.priority}.{self.content}{names}"

    def may_name(self, path: str) -> bool:
        """False where the request surely names no media file ``path``, however its letters are composed."""
        pair = (self.names[:_NAME_DIGITS], self.names[_NAME_DIGITS:])
        return not self.names or _digest_of_name(path) in pair


class AcceptedRequest(BaseModel):
    """A request that passed the inbox.

    ``content`` identifies what was asked for: the fields that determine the clip, as the person gave them, and the
    sizes of the media in bytes. ``revision`` counts the contents that this id has had. ``submissions`` counts how often
    this content was submitted while it was pending; ``arrival`` tells the document of the last time from others.
    ``media`` are the files it was accepted with, by the path that the request names; ``base`` is the content without
    their digests. Both are missing in requests from before there were such. ``names`` is what the pending marker says
    of the names of the media; None in requests whose marker says nothing of them.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    schema_version: Literal[1] = 1
    request: ResolvedRequest
    content: str = Field(pattern=rf"^[0-9a-f]{{{_CONTENT_DIGITS}}}$")
    revision: int = Field(ge=1)
    document: str
    accepted: datetime
    submissions: int = Field(1, ge=1)
    arrival: str | None = None
    media: dict[str, AcceptedMedium] = Field(default_factory=dict)
    base: str | None = None
    names: str | None = Field(None, pattern=rf"^[0-9a-f]{{{2 * _NAME_DIGITS}}}$")

    @property
    def run_key(self) -> str:
        """Identifies what is to be made: equal for the same content submitted again, another one after a change."""
        return f"{self.request.id}-{self.content}-{self.revision}"

    @property
    def launch_key(self) -> str:
        """Identifies this submission: seen twice it launches one run, submitted again it may launch another."""
        return self.run_key if self.submissions == 1 else f"{self.run_key}-{self.submissions}"

    @property
    def pending_marker(self) -> PendingMarker:
        """The marker that is in the store while this request is pending."""
        return PendingMarker(self.request.id, self.request.priority, self.content, self.names or "")


class AcceptedRequests:
    """The accepted requests of a store; any number of processes may share it."""

    def __init__(self, objects: ObjectStore) -> None:
        self._objects = objects

    def find(self, request_id: str) -> AcceptedRequest | None:
        """The request as it was accepted last; None when it never was.

        Raises:
            ArtifactCorruptError: what is stored is damaged, or was written by a newer version.
        """
        key = _accepted_key(request_id)
        try:
            data = self._objects.get_bytes(key)
        except ArtifactMissingError:
            return None
        try:
            return AcceptedRequest.model_validate_json(data)
        except ValidationError as error:
            problem = error.errors(include_url=False, include_input=False)[0]
            field = ".".join(str(part) for part in problem["loc"])
            reason = f"{field or 'text'}: {what_was_expected(problem)}"
            raise ArtifactCorruptError(
                f"{self._objects.uri(key)}: not a readable request ({reason}); delete it and submit the request again"
            ) from None

    def find_many(self, request_ids: Iterable[str]) -> dict[str, AcceptedRequest]:
        """Those of ``request_ids`` that were accepted and can be read, several asked for at once; others are left out.

        Raises:
            StorageUnavailableError: the store did not answer.
        """

        def find(request_id: str) -> AcceptedRequest | None:
            try:
                return self.find(request_id)
            except StorageUnavailableError:
                raise
            except StorageError:  # one damaged request must not hide the others
                return None

        wanted = list(dict.fromkeys(request_ids))
        with ThreadPoolExecutor(ASKED_AT_ONCE) as asking:
            found = asking.map(find, wanted)
            return {request_id: accepted for request_id, accepted in zip(wanted, found, strict=True) if accepted}

    def accept(
        self,
        request: AnimationRequest,
        media: Mapping[str, AcceptedMedium | int],
        *,
        document: str,
        default_model: str,
        arrival: str | None = None,
    ) -> AcceptedRequest:
        """Accept ``request`` under its id; it is pending if it asks for something new.

        Args:
            request: a valid request.
            media: path -> what it is made of, or only how many bytes that has.
            document: where it was written, for people.
            default_model: the variant it means when it names none.
            arrival: tells this document from the same one submitted again.

        Returns:
            The accepted request; that of before when nothing is new.
        """
        kept = {path: medium for path, medium in media.items() if isinstance(medium, AcceptedMedium)}
        base = content_of(request, {path: m.size if isinstance(m, AcceptedMedium) else m for path, m in media.items()})
        before = self.find(request.id)
        if before is None or _is_other(before, base, kept):
            accepted = AcceptedRequest(
                request=request.resolve(default_model),
                content=_with_digests(base, kept),
                revision=before.revision + 1 if before else 1,
                document=document,
                accepted=datetime.now(UTC),
                arrival=arrival,
                media=kept,
                base=base,
                names=_digest_of_name(request.reference) + _digest_of_name(request.driver),
            )
            self._replace(before, accepted, pending=True)
            return accepted
        resolved = request.resolve(before.request.model)
        is_again = arrival not in {None, before.arrival}
        if resolved == before.request and not is_again:
            return before
        pending = self.is_pending(before)
        accepted = before.model_copy(
            update={
                "request": resolved,  # another priority, or another time
                "document": document,
                "accepted": datetime.now(UTC),
                "arrival": arrival or before.arrival,
                "submissions": before.submissions + (is_again and pending),
                "media": kept or before.media,
                "base": base,
            }
        )
        self._replace(before, accepted, pending=pending)
        return accepted

    def resubmit(self, accepted: AcceptedRequest, now: datetime | None = None) -> AcceptedRequest:
        """Make the clip of ``accepted`` pending once more, as if its document were submitted again."""
        again = accepted.model_copy(
            update={"accepted": now or datetime.now(UTC), "submissions": accepted.submissions + 1}
        )
        self._replace(accepted, again, pending=True)
        return again

    def is_pending(self, accepted: AcceptedRequest) -> bool:
        """True while exactly this content is pending."""
        return self._objects.exists(accepted.pending_marker.key)

    def clear_pending(self, request_id: str, content: str | None) -> None:
        """Remove the pending marker of a request whose clip of ``content`` is stored; a newer content stays pending."""
        accepted = self.find(request_id)
        if accepted is not None and accepted.content == content:
            self._objects.delete(accepted.pending_marker.key)

    def mark_pending(self, accepted: AcceptedRequest) -> None:
        """Make the clip of ``accepted`` pending again, e.g. after a restore from a backup that lacks it."""
        self._objects.put_bytes(accepted.pending_marker.key, b"", "text/plain")

    def remove_marker(self, marker: PendingMarker) -> None:
        """Remove a marker that is known to be wrong."""
        self._objects.delete(marker.key)

    def pending_markers(self) -> Iterator[PendingMarker]:
        """All pending requests, by listing alone; an interrupted writer may leave two markers for one id."""
        for info in self._objects.list(f"{PENDING_PREFIX}/"):
            if marker := _MARKER_KEY.fullmatch(info.key):  # anything else was put there by hand
                yield PendingMarker(
                    marker["request_id"], int(marker["priority"]), marker["content"], marker["names"] or ""
                )

    def media_in_use(self) -> set[str]:
        """Keys of the media of pending requests; damaged requests are left out."""
        accepted = self.find_many(marker.request_id for marker in self.pending_markers())
        return {medium.key for request in accepted.values() for medium in request.media.values()}

    def ids(self) -> Iterator[str]:
        """The ids of all accepted requests, by listing alone."""
        for info in self._objects.list(f"{ACCEPTED_PREFIX}/"):
            yield info.key.removeprefix(f"{ACCEPTED_PREFIX}/").removesuffix(".json")

    def _replace(self, before: AcceptedRequest | None, accepted: AcceptedRequest, *, pending: bool) -> None:
        if pending:
            self._objects.put_bytes(accepted.pending_marker.key, b"", "text/plain")
        document = accepted.model_dump_json(indent=2).encode()
        self._objects.put_bytes(_accepted_key(accepted.request.id), document, "application/json")
        if before is not None and before.pending_marker.key != accepted.pending_marker.key:
            self._objects.delete(before.pending_marker.key)


def content_of(request: AnimationRequest, media_sizes: Mapping[str, int]) -> str:
    """The digest that tells two submissions of one id apart.

    Fields that are left at their default do not count, so that a later version with more fields sees no change. Media
    count with their size, which a listing tells; reading every video again would take hours.
    """
    fields = request.model_dump(mode="json", exclude=set(SCHEDULING_FIELDS), exclude_defaults=True)
    sizes = {path: media_sizes.get(path) for path in sorted({request.reference, request.driver})}
    document = json.dumps({"request": fields, "media": sizes}, sort_keys=True)
    return hashlib.sha256(document.encode()).hexdigest()[:_CONTENT_DIGITS]


def _is_other(before: AcceptedRequest, base: str, media: Mapping[str, AcceptedMedium]) -> bool:
    """True when this is something else than was accepted before: other fields, or files known to be others."""
    if (before.base or before.content) != base:
        return True
    return any(path in before.media and before.media[path].differs_from(medium) for path, medium in media.items())


def _with_digests(base: str, media: Mapping[str, AcceptedMedium]) -> str:
    digests = {path: medium.sha256 or medium.version for path, medium in media.items()}
    if not any(digests.values()):
        return base
    document = json.dumps([base, digests], sort_keys=True)
    return hashlib.sha256(document.encode()).hexdigest()[:_CONTENT_DIGITS]


def _accepted_key(request_id: str) -> str:
    return f"{ACCEPTED_PREFIX}/{request_id}.json"


def _digest_of_name(path: str) -> str:
    composed = unicodedata.normalize("NFC", path)
    return hashlib.sha256(composed.encode("utf-8", "surrogatepass")).hexdigest()[:_NAME_DIGITS]
