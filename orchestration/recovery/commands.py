"""``one-to-all restore`` and ``stop-batch``: the commands for after a bad night.

They use the Dagster instance of ``DAGSTER_HOME``, or that of `make ui` where it is not set. Dagster is loaded when a
command runs: the other commands of ``one-to-all`` do without.
"""

import logging
import warnings
from typing import TYPE_CHECKING, Annotated

import typer

from libs.command_line.console.options import examples
from libs.command_line.console.terminal import console
from libs.settings import load_settings

if TYPE_CHECKING:
    import dagster as dg

    from libs.storage.artifacts import ArtifactStore
    from orchestration.recovery.restore import Restoration

_NAMES_SHOWN = 3


def add_to(app: typer.Typer) -> None:
    """Add the commands to ``app``."""
    app.command("restore", epilog=examples("one-to-all restore", "one-to-all restore --apply"))(restore)
    app.command("stop-batch", epilog=examples("one-to-all stop-batch nightly-2026-11-30"))(stop_batch)


def restore(
    apply: Annotated[
        bool, typer.Option("--apply", help="Do it; without this option, only report what would be done.")
    ] = False,
) -> None:
    """Reconcile Dagster's database and the store after a restored backup. Stop all workers before."""
    from orchestration.recovery.restore import restore as bring_together  # noqa: PLC0415

    with _instance() as instance:
        result = bring_together(instance, _store(), apply=apply)
    for line in _lines(result):
        console.print(line, soft_wrap=True)
    console.print("done" if apply else "nothing was changed: add --apply to do it")


def stop_batch(batch: Annotated[str, typer.Argument(help="The batch's tag, such as nightly-2026-11-30.")]) -> None:
    """Stop a nightly batch: cancel its queued and running runs, and launch no more of them."""
    from orchestration.recovery.batches import stop_batch as stop  # noqa: PLC0415

    with _instance() as instance:
        stopped = stop(instance, _store().objects, batch)
    not_launched = f"{len(stopped.not_launched)} requests that had none yet count as canceled"
    console.print(f"{batch}: {len(stopped.requests)} runs canceled; {not_launched}", soft_wrap=True)
    for request_id in stopped.not_canceled:
        console.print(f"{request_id}: its run could not be canceled; cancel it in the UI", soft_wrap=True)
    if stopped.not_canceled:
        raise typer.Exit(1)


def _instance() -> "dg.DagsterInstance":
    warnings.simplefilter("ignore")
    import dagster as dg  # noqa: PLC0415

    from orchestration.laptop.instance import prepare_dagster_home  # noqa: PLC0415

    logging.getLogger("dagster").setLevel(logging.WARNING)
    prepare_dagster_home(load_settings())
    return dg.DagsterInstance.get()


def _store() -> "ArtifactStore":
    from libs.storage.backends.factory import store_from_settings  # noqa: PLC0415

    return store_from_settings(load_settings())


def _lines(result: "Restoration") -> list[str]:
    """A table of counts, with the first names of each."""
    rows = {
        "requests that get their partition back": result.registered,
        "stored artifacts that are recorded": [f"{entry.partition} ({entry.asset})" for entry in result.adopted],
        "clips that get a review, by the sensor unrecorded_clips": result.without_review,
        "requests pending again: their clip is gone": result.reopened,
        "runs dropped: their clip is stored": [request_id for _, request_id in result.dropped],
        "requests that cannot be read": result.damaged,
    }
    lines = []
    for title, names in rows.items():
        more = ", …" if len(names) > _NAMES_SHOWN else ""
        examples_shown = f" ({', '.join(names[:_NAMES_SHOWN])}{more})" if names else ""
        lines.append(f"{len(names):>7}  {title}{examples_shown}")
    return lines
