"""The ``one-to-all`` command: its commands and groups of commands, and errors as one line for a person."""

import os
import sys
from importlib.metadata import version
from typing import Annotated

import typer

from libs.command_line import models
from libs.command_line.console.options import examples
from libs.command_line.console.terminal import print_error, survive_odd_characters
from libs.command_line.requests import commands as requests
from libs.command_line.requests.poses import poses
from libs.command_line.requests.share import share
from libs.command_line.requests.trace import trace
from libs.command_line.storage import commands as storage
from libs.errors import OneToAllError

app = typer.Typer(
    name="one-to-all",
    help="Submit requests, fetch clips, and manage weights and storage of the One-to-All Animation pipeline. "
    "Settings come from the environment and `.env`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"one-to-all {version('one-to-all-pipeline')}")
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """What may stand before every command."""


app.command(epilog=examples("one-to-all poses dance-1.yaml", "one-to-all poses dance-1.yaml --to previews"))(poses)
requests.add_to(app)
app.command(epilog=examples("one-to-all share dance-1", "one-to-all share dance-1 --expires 7d"))(share)
app.command(epilog=examples("one-to-all trace dance-1", "one-to-all trace dance-1.mp4 --request again.json"))(trace)
app.add_typer(models.app, name="models")
app.add_typer(storage.app, name="storage")


def main() -> None:
    """Entry point of the console script: a known error is one line on standard error and exit status 1.

    So is what the operating system refuses: a full disk, a folder without permission.
    """
    survive_odd_characters(sys.stdout, sys.stderr)
    os.environ.setdefault("TQDM_DISABLE", "1")  # one progress display is enough
    try:
        app()
    except OneToAllError as error:
        print_error(str(error))
        sys.exit(1)
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        print_error(f"{place}{error.strerror or error}")
        sys.exit(1)


if __name__ == "__main__":
    main()
