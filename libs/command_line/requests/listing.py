"""``one-to-all list``: how far each request is, newest first.

See ``libs.requests.lifecycle.listing`` for what a state means.
"""

import json
import time
from typing import Annotated, Any

import typer
from rich.cells import cell_len, set_cell_size

from libs.command_line.console.terminal import console
from libs.command_line.requests.runs import open_runs
from libs.messages.printable import escaped
from libs.requests.lifecycle.listing import Listing, RequestListing
from libs.settings import load_settings
from libs.storage.backends.factory import store_from_settings

_NEWEST = 100
_SECONDS_BETWEEN = 2.0

_LONGEST_ID = 64
"""An id is to be copied into a command, so it is never cut; documents may have longer names."""

_ROOM_FOR_STATE = 40
_LEAST_ROOM = 14
"""Cells for the state beside a name, whatever its length; with an id and two spaces they fill 80."""


def list_requests(
    every: Annotated[bool, typer.Option("--all", help=f"All requests, not only the {_NEWEST} newest.")] = False,
    watch: Annotated[bool, typer.Option("--watch", help="Update every two seconds until Ctrl-C.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Show the state of each request, newest first, then rejected documents with their reasons."""
    found = open_runs()
    listing = RequestListing(store_from_settings(load_settings()), found.runs)
    while True:
        taken = listing.take(None if every else _NEWEST)
        if as_json:
            typer.echo(json.dumps(_document(taken, found.reason), indent=None if watch else 2))
        else:
            if watch and console.is_terminal:
                console.clear()
            _show(taken, found.reason)
        if not watch:
            return
        try:
            time.sleep(_SECONDS_BETWEEN)
        except KeyboardInterrupt:
            return


def _show(listing: Listing, reason: str) -> None:
    _show_lines([(line.name, line.state) for line in listing.requests])
    if listing.more:
        console.print(f"… and {listing.more} older: `one-to-all list --all`")
    if listing.rejected:
        console.print("\nrejected (the whole reason is in the .error.txt beside the document)")
        _show_lines([(entry.name, entry.reason.removeprefix(f"{entry.name}: ")) for entry in listing.rejected])
    if listing.more_rejected:
        console.print(f"… and {listing.more_rejected} rejected before: `one-to-all list --all`")
    if not listing.requests and not listing.rejected:
        console.print("no requests: hand one in with `one-to-all submit`")
    if reason:
        console.print(f"Runs are not shown, because Dagster cannot be asked: {reason}", soft_wrap=True)


def _show_lines(lines: list[tuple[str, str]]) -> None:
    """One line each, as wide as the terminal: ids are whole, states and the long names of documents are cut."""
    longest_name = max(_LONGEST_ID, console.width - _ROOM_FOR_STATE)
    shown = [
        (_cut_in_the_middle(escaped(name), longest_name), escaped(" ".join(state.split()))) for name, state in lines
    ]
    usual = [cell_len(name) for name, _ in shown if cell_len(name) <= console.width // 2]
    column = max(usual, default=0)
    for name, state in shown:
        room = max(_LEAST_ROOM, console.width - max(column, cell_len(name)) - 2)
        cut = state if cell_len(state) <= room else set_cell_size(state, room - 1).rstrip() + "…"
        console.print(f"{name}{' ' * (column - cell_len(name))}  {cut}", soft_wrap=True)


def _cut_in_the_middle(name: str, longest: int) -> str:
    """``name`` in at most ``longest`` cells; what tells names apart is their beginning and their end."""
    if cell_len(name) <= longest:
        return name
    end = name
    while cell_len(end) > longest // 2:
        end = end[1:]
    return f"{set_cell_size(name, longest - cell_len(end) - 1).rstrip()}…{end}"


def _document(listing: Listing, reason: str) -> dict[str, Any]:
    requests = [
        {"id": line.name, "state": line.state, "since": line.since.isoformat(), "priority": line.priority}
        for line in listing.requests
    ]
    rejected = [
        {"document": entry.name, "reason": entry.reason, "when": entry.since.isoformat()} for entry in listing.rejected
    ]
    return {
        "requests": requests,
        "older": listing.more,
        "rejected": rejected,
        "rejected_before": listing.more_rejected,
        "runs_not_shown": reason or None,
    }
