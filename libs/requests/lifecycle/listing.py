"""Every request's state in a few words: from the store, and from what is known of runs.

A few listings answer for any number of requests; documents are read only for the requests that are shown. What does not
belong here: printing (``libs.command_line.listing``), and what a run is at (``orchestration.requests.control``).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from libs.errors import OneToAllError, StorageError, StorageUnavailableError
from libs.requests.documents.animation_request import AnimationRequest
from libs.requests.documents.batch import parse_submission
from libs.requests.inbox.inbox import Inbox, Rejection
from libs.requests.lifecycle.accepted import ACCEPTED_PREFIX, AcceptedRequest, AcceptedRequests
from libs.requests.lifecycle.cancellations import Cancellations, Retries
from libs.requests.lifecycle.run_reports import RequestRuns, RunPhase, RunReport
from libs.requests.lifecycle.states import CLIP_ASSET, ClipState, RequestState, RequestStates, stored_partitions
from libs.storage.artifacts import ArtifactStore

_DOCUMENTS_READ = 100
"""Waiting documents whose missing media are told; of the others it is said that they wait."""

_SOON = timedelta(minutes=2)
"""How long after a request was accepted its run may still be on its way into the queue."""


@dataclass(frozen=True)
class ListedRequest:
    """One line. ``state`` begins with one of the words that docs/command-line.md explains."""

    name: str
    state: str
    since: datetime
    priority: int | None = None


@dataclass(frozen=True)
class Listing:
    """Requests, the newest first; ``more``: how many older ones are left out."""

    requests: list[ListedRequest]
    rejected: list[Rejection]
    more: int = 0


class RequestListing:
    """Lists the requests of ``store``; ``runs`` is None where Dagster cannot be asked."""

    def __init__(self, store: ArtifactStore, runs: RequestRuns | None) -> None:
        self._store = store
        self._runs = runs
        self._inbox = Inbox(store.objects)
        self._requests = AcceptedRequests(store.objects)

    def take(self, limit: int | None, now: datetime | None = None) -> Listing:
        """The ``limit`` newest requests as they are at this moment; all of them for None."""
        times = self._times()
        waiting = sorted(self._waiting(times), key=lambda line: line.since, reverse=True)
        room = None if limit is None else max(0, limit - len(waiting))
        newest = sorted(times, key=lambda name: (times[name], name), reverse=True)
        shown = newest[:room]
        states = RequestStates(self._store).of(shown)
        missing = [state.request_id for state in states if state.clip != ClipState.STORED]
        reports = self._runs.reports(missing, shown) if self._runs else None
        canceled = Cancellations(self._store.objects).among(missing)
        retried = set(Retries(self._store.objects).ids(len(newest) + 1)) if missing else set()
        lines = waiting[:limit]
        for state in states:
            report = reports.get(state.request_id) if reports is not None else None
            if state.request_id in retried and (report is None or report.phase not in _IN_PROGRESS):
                text = "queued: tried again at the next scan of the inbox"
            else:
                text = self._describe(state, report, state.request_id in canceled, now or datetime.now(UTC))
            priority = None if state.clip == ClipState.STORED else state.priority
            lines.append(ListedRequest(state.request_id, text, times[state.request_id], priority))
        left_out = len(waiting) + len(newest) - len(lines)
        return Listing(lines, list(self._inbox.rejections()), left_out)

    def _times(self) -> dict[str, datetime]:
        """Request -> when it was accepted last, or its clip was stored where nothing was accepted."""
        times = stored_partitions(self._store.objects, CLIP_ASSET)
        for info in self._store.objects.list(f"{ACCEPTED_PREFIX}/"):
            times[info.key.removeprefix(f"{ACCEPTED_PREFIX}/").removesuffix(".json")] = info.modified
        return times

    def _waiting(self, accepted: Mapping[str, datetime]) -> Iterator[ListedRequest]:
        """Documents in the inbox, and what they wait for; one that was accepted leaves it a scan later."""
        documents = self._inbox.documents()
        wanted: dict[str, set[str]] = {}
        taken = set()
        for document in documents[:_DOCUMENTS_READ]:
            try:
                submission = parse_submission(self._inbox.read(document), source=document.name)
            except OneToAllError:  # the next scan rejects it, with the reason
                continue
            if all(each.id in accepted and accepted[each.id] >= document.modified for each in submission.requests):
                taken.add(document.name)
            wanted[document.name] = {path for each in submission.requests for path in (each.reference, each.driver)}
        there = self._inbox.media(path for paths in wanted.values() for path in paths)
        for document in documents:
            if document.name in taken:
                continue
            missing = sorted(wanted.get(document.name, set()) - there.keys())
            state = f"waiting for media: {', '.join(missing)}" if missing else "queued: waits for the next scan"
            yield ListedRequest(document.name, state, document.modified)

    def _describe(self, state: RequestState, report: RunReport | None, is_noted: bool, now: datetime) -> str:
        if report is not None and report.phase in _IN_PROGRESS:
            if report.phase == RunPhase.QUEUED:
                return f"queued ({report.ahead} before it)"
            return report.doing
        if state.clip == ClipState.STORED:
            return "stored"
        accepted = self._accepted(state.request_id)
        text = self._without_run(state, accepted, report, is_noted, now)
        if state.clip == ClipState.OUTDATED:
            return f"stored, stale (the request was changed since): {text}"
        return text

    def _without_run(
        self,
        state: RequestState,
        accepted: AcceptedRequest | None,
        report: RunReport | None,
        is_noted: bool,
        now: datetime,
    ) -> str:
        """What is so of a request whose clip is missing and that no run is busy with."""
        if is_noted:
            found = Cancellations(self._store.objects).find(state.request_id)
            if found is not None and found.holds_for(accepted):
                return f"canceled ({found.canceled:%Y-%m-%d %H:%M} UTC, by {found.by})"
        if report is not None and (accepted is None or report.changed >= accepted.accepted):
            if report.phase == RunPhase.FAILED:
                return f"failed: {report.reason}"
            if report.phase == RunPhase.CANCELED:
                return f"canceled ({report.changed:%Y-%m-%d %H:%M} UTC)"
        if accepted is None or accepted.request.when == "nightly":
            return "tonight"
        if self._runs is None:
            return "no clip yet"
        return "queued: starts in a moment" if now - accepted.accepted < _SOON else "tonight"

    def _accepted(self, request_id: str) -> AcceptedRequest | None:
        try:
            return self._requests.find(request_id)
        except StorageUnavailableError:
            raise
        except StorageError:  # one damaged request must not hide the others
            return None


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
