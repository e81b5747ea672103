"""``one-to-all cancel`` and ``retry``: what a person wants of a request that was handed in.

See ``libs.requests.lifecycle.run_reports`` for ending runs, ``orchestration.requests.retries`` for launching them.
"""

import getpass
from datetime import UTC, datetime
from typing import Annotated

import typer

from libs.command_line.console.terminal import console
from libs.command_line.requests.runs import open_runs
from libs.command_line.requests.stored_results import require_request
from libs.errors import InputError
from libs.requests.lifecycle.accepted import AcceptedRequests
from libs.requests.lifecycle.cancellations import Cancellation, Cancellations, Retries
from libs.requests.lifecycle.run_reports import RunPhase
from libs.requests.lifecycle.states import ClipState, RequestStates
from libs.settings import load_settings
from libs.storage.artifacts import ArtifactStore
from libs.storage.backends.factory import store_from_settings

IdsArgument = Annotated[
    list[str], typer.Argument(metavar="ID...", help="Ids of requests, as `one-to-all list` shows them.")
]


def cancel(request_ids: IdsArgument) -> None:
    """Cancel requests: end their runs, and make no clip of them until they are submitted or retried."""
    store = store_from_settings(load_settings())
    for request_id in request_ids:
        require_request(store, request_id)
    found = open_runs()
    is_complete = True
    for request_id in request_ids:
        (state,) = RequestStates(store).of([request_id])
        if state.clip == ClipState.STORED:
            console.print(f"{request_id}: its clip is stored already; there is nothing to cancel", soft_wrap=True)
            continue
        note = Cancellation(
            request_id=request_id, canceled=datetime.now(UTC), by=_who(), content=state.content, run_id=None
        )
        Cancellations(store.objects).remember(note)
        Retries(store.objects).done(request_id)
        if found.runs is None:
            is_complete = False
            console.print(
                f"{request_id}: canceled, so that no later run makes it; a run in progress was not stopped, because "
                f"Dagster cannot be asked: {found.reason}",
                soft_wrap=True,
            )
            continue
        ended = found.runs.cancel(request_id)
        if ended.refused:
            is_complete = False
        runs = f", {ended.canceled} {'run ends' if ended.canceled == 1 else 'runs end'}" if ended.canceled else ""
        refused = f"; could not be stopped: run {', '.join(ended.refused)}" if ended.refused else ""
        again = f"; `one-to-all retry {request_id}` makes it again"
        console.print(f"{request_id}: canceled{runs}{refused}{again}", soft_wrap=True)
    if not is_complete:
        raise typer.Exit(1)


def retry(
    request_ids: IdsArgument,
    tonight: Annotated[bool, typer.Option("--tonight", help="With the next nightly batch instead of now.")] = False,
) -> None:
    """Make the clips of requests that failed or were canceled."""
    store = store_from_settings(load_settings())
    for request_id in request_ids:
        require_request(store, request_id)
    found = open_runs()
    reports = found.runs.reports([]) if found.runs else {}
    for request_id in request_ids:
        report = reports.get(request_id)
        if report is not None and report.phase in {RunPhase.QUEUED, RunPhase.RUNNING}:
            console.print(f"{request_id}: is being made already", soft_wrap=True)
        else:
            console.print(f"{request_id}: {_try_again(store, request_id, tonight=tonight)}", soft_wrap=True)


def _try_again(store: ArtifactStore, request_id: str, *, tonight: bool) -> str:
    (state,) = RequestStates(store).of([request_id])
    if state.clip == ClipState.STORED:
        return f"already made: fetch it with `one-to-all fetch {request_id}`"
    requests = AcceptedRequests(store.objects)
    accepted = requests.find(request_id)
    if accepted is None:
        raise InputError(f"{request_id}: nothing was accepted for it; submit it")
    requests.resubmit(accepted)
    Cancellations(store.objects).forget(request_id)
    if tonight:
        return "tonight"
    Retries(store.objects).ask(request_id)
    return "runs now: the next scan of the inbox launches it"


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "one-to-all cancel"
