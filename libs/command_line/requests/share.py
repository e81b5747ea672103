"""``one-to-all share``: an address for a clip, to be given to a person.

See ``libs.storage.sharing`` for how addresses are made.
"""

from datetime import timedelta
from typing import Annotated

import typer

from libs.command_line.console.durations import parse_duration
from libs.command_line.requests.stored_results import require_result
from libs.errors import ArtifactMissingError
from libs.messages.printable import escaped
from libs.requests.lifecycle.archive import REQUEST_ASSETS
from libs.settings import load_settings
from libs.stages.animation_files import CLIP_FILE
from libs.storage.backends.factory import store_from_settings
from libs.storage.sharing import share as address_of


def share(
    request_id: Annotated[str, typer.Argument(metavar="ID", help="Id of a request, as `one-to-all list` shows it.")],
    expires: Annotated[
        timedelta, typer.Option(parser=parse_duration, metavar="TIME", help="How long the address works, at most 7d.")
    ] = "24h",  # type: ignore[assignment]  # parsed like what is typed
    asset: Annotated[str, typer.Option(help="Another asset of the request.")] = "animation",
    file: Annotated[str, typer.Option(help="Another file of that asset.")] = CLIP_FILE,
) -> None:
    """Print an address at which anybody can see the clip until it expires; without a bucket, the file's path."""
    settings = load_settings()
    store = store_from_settings(settings)
    if asset in REQUEST_ASSETS:
        require_result(store, request_id, asset)
    elif store.manifest(asset, request_id) is None:
        raise ArtifactMissingError(f"{asset} of {request_id}: nothing is stored")
    typer.echo(escaped(address_of(store, settings, asset, request_id, file, expires)))
