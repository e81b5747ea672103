"""``python -m orchestration.recovery``: bring database and store together, or stop a nightly batch.

Uses the Dagster instance of ``DAGSTER_HOME``, or that of `make ui` where it is not set.
"""

import logging
import sys
from typing import Annotated

import dagster as dg
import typer

from libs.errors import OneToAllError
from libs.settings import load_settings
from orchestration.local_instance import prepare_dagster_home
from orchestration.recovery.batches import stop_batch
from orchestration.recovery.restore import Restoration, restore
from orchestration.resources import SettingsResource, StorageResource

app = typer.Typer(help="After a bad night: restore, stop a batch.", no_args_is_help=True, rich_markup_mode=None)


@app.command("restore")
def restore_command(
    apply: Annotated[bool, typer.Option("--apply", help="Do it; without this it only says what it would do.")] = False,
) -> None:
    """Register requests, record stored clips, drop queued runs for them: after restoring database or bucket."""
    with _instance() as instance:
        result = restore(instance, StorageResource(settings=SettingsResource()).artifacts(), apply=apply)
    for line in _lines(result):
        typer.echo(line)
    typer.echo("done" if apply else "nothing was changed: add --apply to do it")


@app.command("stop-batch")
def stop_batch_command(batch: Annotated[str, typer.Argument(help="its tag, e.g. nightly-2026-11-30")]) -> None:
    """Cancel the queued and running runs of a nightly batch, and those the daemon has yet to launch."""
    with _instance() as instance:
        stopped = stop_batch(instance, StorageResource(settings=SettingsResource()).objects(), batch)
    typer.echo(f"{batch}: {len(stopped.requests)} runs canceled; what is still to be launched ends at once")
    for request_id in stopped.not_canceled:
        typer.echo(f"  {request_id}: its run could not be canceled; cancel it in the UI")


def _instance() -> dg.DagsterInstance:
    logging.getLogger("dagster").setLevel(logging.WARNING)
    prepare_dagster_home(load_settings())
    return dg.DagsterInstance.get()


def _lines(result: Restoration) -> list[str]:
    """A table of counts, and the first names of each."""
    rows = {
        "requests that get their partition back": result.registered,
        "stored artifacts that are recorded": [f"{entry.partition} ({entry.asset})" for entry in result.adopted],
        "clips that get a review": result.without_review,
        "requests pending again, their clip is gone": result.reopened,
        "queued runs dropped, their clip is stored": [request_id for _, request_id in result.dropped],
        "requests that cannot be read": result.damaged,
    }
    shown = 3
    return [
        f"{len(names):>7}  {title}"
        + (f": {', '.join(names[:shown])}{', …' if len(names) > shown else ''}" if names else "")
        for title, names in rows.items()
    ]


def main() -> None:
    """Entry point: a known error is one line."""
    try:
        app()
    except OneToAllError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
