"""``one-to-all trace``: what made a clip, and what of it is still there and the same.

See ``libs.provenance.trace`` for how it is found out.
"""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from libs.command_line.console.terminal import PlainTable, console, styled
from libs.command_line.requests.stored_results import LIST_HINT, require_result
from libs.errors import InputError
from libs.files.atomic_write import write_bytes_atomically
from libs.requests.documents.animation_request import REQUEST_ID_PATTERN
from libs.settings import load_settings
from libs.storage.backends.factory import store_from_settings

if TYPE_CHECKING:
    from libs.provenance.trace import Trace

_DIGITS = 16


def trace(
    clip: Annotated[str, typer.Argument(metavar="ID|FILE.mp4", help="Id of a request, or path of a clip.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    request: Annotated[
        Path | None,
        typer.Option(
            "--request", metavar="FILE", help="Write the clip's request to FILE, as a document for the inbox."
        ),
    ] = None,
) -> None:
    """Show what made a clip, and which of it is unchanged, changed or missing today."""
    from libs.provenance.trace import trace_file, trace_request  # noqa: PLC0415 - loads the media libraries

    settings = load_settings()
    store = store_from_settings(settings)
    is_id = re.fullmatch(REQUEST_ID_PATTERN, clip)
    if is_id:
        require_result(store, clip)
    elif not Path(clip).is_file():
        raise InputError(f"{clip}: neither a file nor a request's id; {LIST_HINT}")
    found = trace_request(clip, store, settings) if is_id else trace_file(Path(clip), store, settings)
    if request is not None:
        write_bytes_atomically(request, request_document(found.origin.resolved_request().clip_fields()))
    if as_json:
        typer.echo(json.dumps(found.describe(), indent=2))
        return
    show_trace(found)


def request_document(fields: dict[str, object]) -> bytes:
    """A request as a document for the inbox; JSON, because YAML folds some kinds of white space in a prompt."""
    try:
        return json.dumps(fields, indent=2, ensure_ascii=False).encode()
    except UnicodeEncodeError:  # half a surrogate pair, which only an escape can say
        return json.dumps(fields, indent=2).encode()


def show_trace(found: "Trace") -> None:
    """Print what a clip was made from, and what changed since."""
    table = PlainTable("made from", "recorded", "now", "", box=None, pad_edge=False, header_style="bold")
    for link in found.links:
        table.add_row(link.what, link.recorded[:_DIGITS], str(link.state), link.detail)
    console.print(table)
    run = found.run
    if run is not None:
        seconds = ", ".join(f"{stage} {value:.1f} s" for stage, value in run.seconds.items())
        console.print(f"\nmade {run.finished:%Y-%m-%d %H:%M} UTC on {found.origin.device.name}, {run.start}: {seconds}")
    reasons = ", ".join(link.what for link in found.out_of_date)
    console.print(styled("\n", (f"out of date: {reasons}" if reasons else "current", "bold")))
