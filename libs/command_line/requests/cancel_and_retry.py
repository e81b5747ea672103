"""``one-to-all cancel`` and ``retry``: what a person wants of a request that was handed in.

See ``libs.requests.lifecycle.control`` for doing it.
"""

import getpass
from typing import Annotated

import typer

from libs.command_line.console.terminal import console
from libs.command_line.requests.runs import open_runs
from libs.command_line.requests.stored_results import require_request
from libs.requests.lifecycle.control import CancelResult, RetryResult, cancel_request, retry_request
from libs.settings import load_settings
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
        result = cancel_request(store, found.runs, request_id, _who())
        is_complete = is_complete and result.is_complete
        console.print(f"{request_id}: {_canceled(request_id, result, found.reason)}", soft_wrap=True)
    if not is_complete:
        raise typer.Exit(1)


def _canceled(request_id: str, result: CancelResult, reason: str) -> str:
    if result.is_stored:
        return "its clip is stored already; there is nothing to cancel"
    if result.runs is None:
        return (
            "canceled, so that no later run makes it; a run in progress was not stopped, because Dagster cannot be "
            f"asked: {reason}"
        )
    ended = result.runs
    runs = f", {ended.canceled} {'run ends' if ended.canceled == 1 else 'runs end'}" if ended.canceled else ""
    refused = f"; could not be stopped: run {', '.join(ended.refused)}" if ended.refused else ""
    return f"canceled{runs}{refused}; `one-to-all retry {request_id}` makes it again"


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
        result = retry_request(store, reports, request_id, tonight=tonight)
        console.print(f"{request_id}: {_retried(request_id, result)}", soft_wrap=True)


def _retried(request_id: str, result: RetryResult) -> str:
    match result:
        case RetryResult.STORED:
            return f"{result}: fetch it with `one-to-all fetch {request_id}`"
        case RetryResult.NOW:
            return f"{result}: the next scan of the inbox launches it"
        case _:
            return str(result)


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return "one-to-all cancel"
