"""``one-to-all storage prune``: older contents of artifacts that were replaced long ago, and files no manifest names.

See ``libs.housekeeping.prunable`` for what may go, ``commands`` for comparing the store with its manifests.
"""

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated

import typer

from libs.command_line.console.durations import parse_duration
from libs.command_line.console.options import ApplyOption
from libs.command_line.console.terminal import PlainTable, console, folded
from libs.housekeeping.orphans import require_safe_age
from libs.progress import show_bytes
from libs.settings import load_settings
from libs.storage.backends.factory import store_from_settings

if TYPE_CHECKING:
    from libs.housekeeping.prunable import Pruned


def prune(
    apply: ApplyOption = False,
    older_than: Annotated[
        timedelta | None,
        typer.Option(
            parser=parse_duration,
            metavar="AGE",
            help="Minimum age of the replacement, such as 90d; at least 2d. [default: PRUNE_ARTIFACTS_AFTER_DAYS]",
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
) -> None:
    """Remove contents that were replaced long ago, and files that no manifest names; the newest contents stay.

    What a clip that stays was made from stays as well, and what the record of an archived request names.
    Without --apply it only shows what would go.
    """
    # loads the media libraries
    from libs.housekeeping.prunable import find_prunable, remove_prunable  # noqa: PLC0415

    settings = load_settings()
    age = timedelta(days=settings.prune_artifacts_after_days) if older_than is None else older_than
    require_safe_age(age)
    store = store_from_settings(settings)
    found = find_prunable(store, age)
    if apply:
        found = remove_prunable(store, found, age)
    if as_json:
        typer.echo(json.dumps(_document(found, applied=apply), indent=2))
        return
    if found.superseded:
        table = PlainTable(folded("asset"), folded("partition"), "content", "replaced", "size", collapse_padding=True)
        for superseded in found.superseded:
            manifest, replaced = superseded.content.manifest, superseded.content.replaced
            row = (manifest.asset, manifest.partition or "", manifest.digest[:16], f"{replaced:%Y-%m-%d}")
            table.add_row(*row, show_bytes(superseded.bytes))
        console.print(table)
    what = f"older contents: {len(found.superseded)}, files that no manifest names: {len(found.orphans)}"
    what += f", together {show_bytes(found.bytes)}"
    console.print(f"{what}: {'removed' if apply else 'would be removed'}", soft_wrap=True)
    if not apply and (found.superseded or found.orphans):
        typer.echo("Nothing was changed; run again with --apply.", err=True)


def _document(found: "Pruned", *, applied: bool) -> dict[str, object]:
    superseded = [
        {
            "asset": content.content.manifest.asset,
            "partition": content.content.manifest.partition,
            "digest": content.content.manifest.digest,
            "replaced": content.content.replaced.isoformat(),
            "keys": [info.key for info in content.files],
            "bytes": content.bytes,
        }
        for content in found.superseded
    ]
    orphans = [info.key for info in found.orphans]
    return {"applied": applied, "bytes": found.bytes, "superseded": superseded, "orphans": orphans}
