"""Every request's state in a few words: from the store, and from what is known of runs.

A few listings answer for any number of requests; documents are read only for the requests that are shown. See
``libs.command_line.requests.listing`` for printing, ``orchestration.requests.control`` for what a run is at.
"""

import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from libs.errors import OneToAllError, StorageUnavailableError
from libs.provenance.record import ClipOrigin, parse_provenance
from libs.provenance.run_record import PROVENANCE_FILE
from libs.requests.documents.animation_request import AnimationRequest
from libs.requests.documents.batch import parse_submission
from libs.requests.inbox.inbox import Inbox, WaitingDocument
from libs.requests.inbox.rejection import Rejection
from libs.requests.lifecycle.accepted import ACCEPTED_PREFIX, ASKED_AT_ONCE, AcceptedRequest, AcceptedRequests
from libs.requests.lifecycle.cancellations import Cancellation, Cancellations, Retries
from libs.requests.lifecycle.changes import changes_since
from libs.requests.lifecycle.run_reports import RequestRuns, RunPhase, RunReport
from libs.requests.lifecycle.states import CLIP_ASSET, ClipState, RequestState, RequestStates, partitions_among
from libs.storage.artifacts import ArtifactStore

_DOCUMENTS_READ = 100
"""Waiting documents whose missing media are told, the newest; of the others it is said that they wait."""

_REJECTIONS = 20
"""Rejected documents whose reason is read, unless all are asked for."""

_RETRIES_READ = 1000
"""Of the requests that are tried again, so many are listed, or as many as there are requests."""

_SOON = timedelta(minutes=2)
"""How long after a request was accepted its run may still be on its way into the queue."""


class RequestPhase(StrEnum):
    """How far a request is, as one word for programs; :class:`ListedRequest` has it in words for people."""

    IN_INBOX = "in inbox"
    QUEUED = "queued"
    RUNNING = "running"
    STORED = "stored"
    STALE = "stale"
    FAILED = "failed"
    CANCELED = "canceled"
    TONIGHT = "tonight"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class ListedRequest:
    """One line. ``state`` begins with one of the words that docs/command-line.md explains.

    Attributes:
        name: the request's id; of a document in the inbox its name (``phase`` is ``IN_INBOX`` then).
        since: when it was accepted last.
        priority: None if nothing is to be made.
        phase: what holds for its newest content.
        has_clip: there is a clip, though perhaps an older one.
        report: the run that ``state`` tells of, where there is one.
    """

    name: str
    state: str
    since: datetime
    priority: int | None = None
    phase: RequestPhase = RequestPhase.UNKNOWN
    has_clip: bool = False
    report: RunReport | None = None


@dataclass(frozen=True)
class Listing:
    """Requests and rejected documents, the newest first; how many older ones of each are left out."""

    requests: list[ListedRequest]
    rejected: list[Rejection]
    more: int = 0
    more_rejected: int = 0


class RequestListing:
    """Lists the requests of ``store``; ``runs`` is None where Dagster cannot be asked."""

    def __init__(self, store: ArtifactStore, runs: RequestRuns | None) -> None:
        self._store = store
        self._runs = runs
        self._inbox = Inbox(store.objects)
        self._requests = AcceptedRequests(store.objects)
        self._read: dict[str, AcceptedRequest] = {}

    def take(self, limit: int | None, now: datetime | None = None) -> Listing:
        """The ``limit`` newest requests as they are at this moment; all of them for None."""
        times = self._times()
        waiting, left_waiting = self._waiting(times, limit)
        newest = sorted(times, key=lambda name: (times[name], name), reverse=True)
        shown = newest[: None if limit is None else limit - len(waiting)]
        lines = [*waiting, *self._lines(shown, times, now or datetime.now(UTC))]
        rejected, older_rejected = self._inbox.newest_rejections(limit and min(limit, _REJECTIONS))
        return Listing(lines, rejected, left_waiting + len(newest) - len(shown), older_rejected)

    def find(self, request_id: str, now: datetime | None = None) -> ListedRequest | None:
        """One request as it is at this moment; None when nothing was accepted for it and it has no clip."""
        accepted = self._store.objects.stat(f"{ACCEPTED_PREFIX}/{request_id}.json")
        clips = {} if accepted else partitions_among(self._store.objects, CLIP_ASSET, [request_id])
        since = accepted.modified if accepted else clips.get(request_id)
        if since is None:
            return None
        return self._lines([request_id], {request_id: since}, now or datetime.now(UTC))[0]

    def _lines(self, shown: Sequence[str], times: Mapping[str, datetime], now: datetime) -> list[ListedRequest]:
        states = RequestStates(self._store).of(shown)
        missing = [state.request_id for state in states if state.clip != ClipState.STORED]
        stored = [state.request_id for state in states if state.clip == ClipState.STORED]
        reports = self._runs.reports(missing, shown) if self._runs else {}
        stale = self._runs.stale(stored) if self._runs else {}
        busy = {name for name, report in reports.items() if report.phase in _IN_PROGRESS}
        self._read = self._requests.find_many(name for name in missing if name not in busy)
        canceled = Cancellations(self._store.objects).among(missing)
        retried = set(Retries(self._store.objects).ids(_RETRIES_READ + len(times))) if missing else set()
        lines = []
        for state in states:
            name = state.request_id
            report, is_busy = reports.get(name), name in busy
            if name in retried and not is_busy:
                text, phase = "queued: tried again at the next scan of the inbox", RequestPhase.QUEUED
            elif state.clip == ClipState.STORED and not is_busy:
                reasons = stale.get(name)
                text = f"stored, stale ({'; '.join(reasons)})" if reasons else "stored"
                phase = RequestPhase.STALE if reasons else RequestPhase.STORED
            else:
                text, phase = self._describe(state, report, canceled.get(name), now)
            priority = None if state.clip == ClipState.STORED else state.priority
            lines.append(
                ListedRequest(name, text, times[name], priority, phase, state.clip != ClipState.MISSING, report)
            )
        return lines

    def _times(self) -> dict[str, datetime]:
        """Request -> when it was accepted last, or its clip was stored where nothing was accepted."""
        objects = self._store.objects
        times = {
            info.key.removeprefix(f"{ACCEPTED_PREFIX}/").removesuffix(".json"): info.modified
            for info in objects.list(f"{ACCEPTED_PREFIX}/")
        }
        never_accepted = [name for name in objects.folders(CLIP_ASSET) if name not in times]
        clips = partitions_among(objects, CLIP_ASSET, never_accepted)
        return times | {name: clips[name] for name in never_accepted if name in clips}

    def _waiting(self, accepted: Mapping[str, datetime], limit: int | None) -> tuple[list[ListedRequest], int]:
        """The newest documents in the inbox, and what they wait for; and how many older ones there are.

        One that was accepted leaves the inbox a scan later.
        """
        documents = sorted(self._inbox.documents(), key=lambda each: (each.modified, each.name), reverse=True)
        wanted: dict[str, set[str]] = {}
        taken = set()
        newest = documents[:_DOCUMENTS_READ]
        with ThreadPoolExecutor(ASKED_AT_ONCE) as asking:
            read = list(zip(newest, asking.map(self._requests_of, newest), strict=True))
        for document, requests in read:
            if requests is None:  # the next scan rejects it, with the reason
                continue
            if all(each.id in accepted and accepted[each.id] >= document.modified for each in requests):
                taken.add(document.name)
            wanted[document.name] = {path for each in requests for path in (each.reference, each.driver)}
        there = self._inbox.media(path for paths in wanted.values() for path in paths)
        waiting = [document for document in documents if document.name not in taken]
        lines = []
        for document in waiting[:limit]:
            missing = sorted(wanted.get(document.name, set()) - there.keys())
            state = f"waiting for media: {', '.join(missing)}" if missing else "queued: waits for the next scan"
            lines.append(ListedRequest(document.name, state, document.modified, phase=RequestPhase.IN_INBOX))
        return lines, len(waiting) - len(lines)

    def _requests_of(self, document: WaitingDocument) -> Sequence[AnimationRequest] | None:
        """What a document asks for; None where it cannot be read."""
        try:
            return parse_submission(self._inbox.read(document), source=document.name).requests
        except OneToAllError:
            return None

    def _describe(
        self, state: RequestState, report: RunReport | None, noted: Cancellation | None, now: datetime
    ) -> tuple[str, RequestPhase]:
        if report is not None and report.phase == RunPhase.QUEUED:
            return _queue_position(report.ahead), RequestPhase.QUEUED
        if report is not None and report.phase == RunPhase.RUNNING:
            return report.doing, RequestPhase.RUNNING
        accepted = self._read.get(state.request_id)
        text, phase = self._without_run(accepted, report, noted, now)
        if state.clip == ClipState.OUTDATED:
            return f"stored, stale ({self._what_was_changed(state.request_id, accepted)}): {text}", phase
        return text, phase

    def _without_run(
        self, accepted: AcceptedRequest | None, report: RunReport | None, noted: Cancellation | None, now: datetime
    ) -> tuple[str, RequestPhase]:
        """What is so of a request whose clip is missing and that no run is busy with."""
        if noted is not None and noted.holds_for(accepted):
            return f"canceled ({noted.canceled:%Y-%m-%d %H:%M} UTC, by {noted.by})", RequestPhase.CANCELED
        if report is not None and (accepted is None or report.changed >= accepted.accepted):
            if report.phase == RunPhase.FAILED:
                return f"failed: {reason_before_path(report.reason)}", RequestPhase.FAILED
            if report.phase == RunPhase.CANCELED:
                return f"canceled ({report.changed:%Y-%m-%d %H:%M} UTC)", RequestPhase.CANCELED
        if accepted is None or accepted.request.when == "nightly":
            return "tonight", RequestPhase.TONIGHT
        if self._runs is None:
            return "no clip yet", RequestPhase.UNKNOWN
        is_new = now - accepted.accepted < _SOON
        return ("queued: starts in a moment", RequestPhase.QUEUED) if is_new else ("tonight", RequestPhase.TONIGHT)

    def _what_was_changed(self, request_id: str, accepted: AcceptedRequest | None) -> str:
        """Why the newest content of a request is another than that of its clip."""
        origin = self._origin(request_id) if accepted is not None else None
        changes = changes_since(origin, accepted) if origin is not None and accepted is not None else []
        return "; ".join(changes) or "the request was changed since"

    def _origin(self, request_id: str) -> ClipOrigin | None:
        """What the stored clip was made of; None where that is not recorded, or cannot be read."""
        try:
            with self._store.open_file(CLIP_ASSET, request_id, PROVENANCE_FILE) as file:
                return parse_provenance(file.read(), f"{PROVENANCE_FILE} of {request_id}").clip
        except StorageUnavailableError:
            raise
        except OneToAllError:
            return None


def _queue_position(ahead: int) -> str:
    return f"queued ({ahead} before it)" if ahead else "queued, next"


def reason_before_path(reason: str) -> str:
    """An error that begins with the path of a file, with the path behind it: a narrow terminal shows the beginning."""
    found = _PATH_FIRST.fullmatch(reason)
    return f"{found['field'] or ''}{found['reason']} ({found['path']})" if found else reason


_PATH_FIRST = re.compile(r"(?P<field>[a-z_]+: )?(?P<path>/[^\n]*?[^\s:]): (?P<reason>.+)", re.DOTALL)

_IN_PROGRESS = frozenset({RunPhase.QUEUED, RunPhase.RUNNING})


def what_will_happen(
    request: AnimationRequest,
    accepted: AcceptedRequest | None,
    content: str,
    clip: ClipState,
    report: RunReport | None,
) -> str:
    """What submitting ``request`` brings about, in words.

    Args:
        request: what is submitted.
        accepted: what was accepted under its id before.
        content: the content of what is submitted, without the digests of its media.
        clip: what the store has.
        report: the newest run, if one is in progress.
    """
    is_same = accepted is not None and (accepted.base or accepted.content) == content
    if is_same and clip == ClipState.STORED:
        return f"already made: fetch it with `one-to-all fetch {request.id}`"
    if is_same and report is not None and report.phase in _IN_PROGRESS:
        return "is being made already"
    return "tonight" if request.when == "nightly" else "runs now"
