"""The ``one-to-all`` command: groups of commands, and errors as one line for a person.

What does not belong here: any command (one module per group).
"""

import os
import sys

import typer

from libs.command_line import models
from libs.errors import OneToAllError

app = typer.Typer(
    name="one-to-all",
    help="Model repositories of the One-to-All Animation pipeline. Settings come from the environment and `.env`.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
app.add_typer(models.app, name="models")


@app.callback()
def _root() -> None:
    """Keep the group level even while there is only one group."""


def main() -> None:
    """Entry point of the console script: a known error is one line on standard error and exit status 1."""
    os.environ.setdefault("TQDM_DISABLE", "1")  # one progress display is enough
    try:
        app()
    except OneToAllError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
