"""List, watch, cancel and retry requests."""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from libs.errors import InputError
from libs.requests.lifecycle.listing import RequestPhase
from orchestration.studio.access import User, current_user
from orchestration.studio.api.views import API, Outcome, RequestPage, RequestView, matching, one_request, request_view
from orchestration.studio.clips import ACTIVE, Clips

_SECONDS_BETWEEN = 1.0
_SECONDS_OF_SILENCE = 15
_STREAMS = 200
"""Pages that may watch a request at the same time."""


def add_request_routes(router: APIRouter, clips: Clips) -> None:
    """Add what is asked and done of requests that were submitted."""

    @router.get("/requests", response_model=RequestPage, tags=["requests"])
    def list_requests(
        phase: Annotated[list[RequestPhase] | None, Query(description="only these; may be repeated")] = None,
        search: Annotated[str, Query(max_length=100, description="part of the id")] = "",
        limit: Annotated[int, Query(ge=1, le=200)] = 50,
        offset: Annotated[int, Query(ge=0)] = 0,
    ) -> RequestPage:
        """List requests, the newest first."""
        listing = clips.listing()
        found = matching(listing.requests, set(phase or ()), search)
        following = offset + limit
        query = "".join(f"&phase={each}" for each in phase or ()) + (f"&search={search}" if search else "")
        counts: dict[str, int] = {}
        for line in listing.requests:
            counts[line.phase] = counts.get(line.phase, 0) + 1
        return RequestPage(
            requests=[request_view(line) for line in found[offset:following]],
            total=len(found),
            counts=counts,
            next=f"{API}/requests?limit={limit}&offset={following}{query}" if following < len(found) else None,
            runs_not_shown=clips.runs_reason() or None,
        )

    @router.get("/requests/{request_id}", response_model=RequestView, tags=["requests"])
    def show_request(request_id: str) -> RequestView:
        """How far one request is, what it asks for, and links to what is there."""
        return one_request(clips, request_id)

    _add_watching(router, clips)

    @router.delete("/requests/{request_id}", response_model=Outcome, tags=["requests"])
    def cancel_request(request_id: str, request: Request) -> Outcome:
        """Cancel: end its runs, and make no clip of it until it is submitted or tried again."""
        user: User = current_user(request)
        result = clips.cancel(request_id, user.name)
        if result is None:
            return Outcome(id=request_id, outcome="taken back before it was accepted")
        if result.is_stored:
            return Outcome(id=request_id, outcome="its clip is stored already; there is nothing to cancel")
        if result.runs is None:
            return Outcome(id=request_id, outcome="canceled; a run in progress goes on, as Dagster cannot be asked")
        if result.runs.refused:
            return Outcome(id=request_id, outcome=f"canceled; could not be stopped: run {result.runs.refused[0]}")
        return Outcome(id=request_id, outcome="canceled")

    @router.post("/requests/{request_id}/retry", response_model=Outcome, tags=["requests"])
    def retry_request(request_id: str, when: Literal["now", "nightly"] = "now") -> Outcome:
        """Try a request again that failed or was canceled."""
        return Outcome(id=request_id, outcome=str(clips.retry(request_id, tonight=when == "nightly")))


def _add_watching(router: APIRouter, clips: Clips) -> None:
    streams: set[object] = set()

    @router.get("/requests/{request_id}/events", tags=["requests"], response_class=StreamingResponse)
    async def watch_request(request_id: str, request: Request) -> StreamingResponse:
        """Watch one request by server-sent events: `state` with the request as above, whenever it changed.

        The stream ends with the event `end` when nothing more will change by itself.
        """
        first = await run_in_threadpool(one_request, clips, request_id)
        if len(streams) >= _STREAMS:
            raise InputError(f"{_STREAMS} pages watch requests already: ask again from time to time instead")
        watcher = object()
        streams.add(watcher)
        stream = _events(first, lambda: one_request(clips, request_id), request, lambda: streams.discard(watcher))
        return StreamingResponse(stream, media_type="text/event-stream", headers={"cache-control": "no-store"})


async def _events(
    first: RequestView, ask: Callable[[], RequestView], request: Request, finished: Callable[[], None]
) -> AsyncIterator[str]:
    view, silence, told = first, 0.0, ""
    try:
        while True:
            text = view.model_dump_json()
            if text != told:
                told, silence = text, 0.0
                yield f"event: state\ndata: {text}\n\n"
            if view.phase not in ACTIVE:
                yield "event: end\ndata: {}\n\n"
                return
            if silence >= _SECONDS_OF_SILENCE:
                silence = 0.0
                yield ": still here\n\n"
            await asyncio.sleep(_SECONDS_BETWEEN)
            silence += _SECONDS_BETWEEN
            if await request.is_disconnected():
                return
            view = await run_in_threadpool(ask)
    finally:
        finished()
