"""``one-to-all storage ...``: make a bucket ready, let previews be seen, and is everything there that manifests name.

See ``libs.storage.admin`` for preparing a bucket, ``libs.housekeeping`` for what is found and removed.
"""

import json
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from libs.command_line.console.durations import parse_duration
from libs.command_line.console.options import ApplyOption, examples
from libs.command_line.console.terminal import console, shown_progress, styled
from libs.command_line.storage.prune import prune
from libs.errors import InputError
from libs.housekeeping.inspection import Inspection, Problem, inspect
from libs.housekeeping.orphans import remove_orphans, require_safe_age
from libs.progress import show_bytes
from libs.settings import Settings, get_settings
from libs.storage.backends.factory import objects_from_settings
from libs.storage.backends.store import ObjectInfo, ObjectStore

if TYPE_CHECKING:
    from libs.storage.backends.s3 import S3ObjectStore

_SHOWN = 20
"""Lines per kind; --json has them all."""

app = typer.Typer(help="Check, prepare and prune the bucket, or the folder used instead.", no_args_is_help=True)


@app.command(
    epilog=examples(
        "one-to-all storage check",
        "one-to-all storage check --full --json",
        "one-to-all storage check --delete-orphans --older-than 7d",
    )
)
def check(
    full: Annotated[bool, typer.Option("--full", help="Read and hash every stored file.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document.")] = False,
    delete_orphans: Annotated[
        bool, typer.Option("--delete-orphans", help="Remove files that no manifest names; needs --older-than.")
    ] = False,
    older_than: Annotated[
        timedelta | None,
        typer.Option(parser=parse_duration, metavar="AGE", help="Minimum age of the orphans, such as 7d; at least 2d."),
    ] = None,
) -> None:
    """Compare what is stored with the manifests: missing, corrupt and orphaned files.

    Exit status 1 when something is missing or corrupt; orphans only take room.
    """
    if delete_orphans and older_than is None:
        raise InputError("--delete-orphans needs an age limit: add --older-than 7d")
    if older_than is not None:
        if not delete_orphans:
            raise InputError("--older-than belongs to --delete-orphans: add it, or leave both out")
        require_safe_age(older_than)
    objects = objects_from_settings(get_settings())
    with shown_progress() as progress:
        found = inspect(objects, full=full, report=lambda done, total: progress("reading", done, total))
    removed = []
    if delete_orphans and older_than is not None:
        removed = remove_orphans(objects, found.orphans, older_than)
    if as_json:
        typer.echo(json.dumps(_document(objects, found, removed), indent=2))
    else:
        print_inspection(objects, found, removed)
    if found.problems:
        raise typer.Exit(1)


@app.command(epilog=examples("one-to-all storage prepare", "one-to-all storage prepare --apply"))
def prepare(apply: ApplyOption = False) -> None:
    """Set up a bucket: its policy for previews, its lifecycle rule for old chunks, and the user's rights.

    With MINIO_ROOT_USER and MINIO_ROOT_PASSWORD set it works as MinIO's administrator and also creates the user of
    S3_ACCESS_KEY. Without --apply it prints the documents. May be run again at any time.
    """
    settings = get_settings()
    if not settings.uses_s3:
        raise InputError("there is no bucket to prepare: set S3_ENDPOINT; a folder needs nothing")
    from libs.storage.admin.minio_user import administrator_settings, create_user, least_rights  # noqa: PLC0415
    from libs.storage.admin.preparation import chunk_days, chunk_rule, prepare_bucket  # noqa: PLC0415
    from libs.storage.previews import public_read_statement  # noqa: PLC0415

    objects = _require_bucket(administrator_settings(settings))
    if not apply:
        documents = {
            "bucket": objects.bucket,
            "bucket policy statement": public_read_statement(objects) if settings.s3_public_endpoint else None,
            "lifecycle rule": chunk_rule(objects, chunk_days(settings)),
            "rights of the user": least_rights(objects),
        }
        typer.echo(json.dumps(documents, indent=2))
        typer.echo("Nothing was changed; run again with --apply.", err=True)
        return
    if settings.minio_root_user:
        typer.echo("working as the administrator MINIO_ROOT_USER")
    for line in prepare_bucket(objects, settings):
        typer.echo(line)
    if settings.minio_root_user:
        policy = create_user(settings, objects)
        typer.echo(f"user: that of S3_ACCESS_KEY gets in, with the policy {policy}")
    else:
        typer.echo("user: as it was, since MINIO_ROOT_USER is not set")


@app.command("allow-previews", epilog=examples("one-to-all storage allow-previews --apply"))
def allow_previews(apply: ApplyOption = False) -> None:
    """Let everybody read, but not list, what is below `previews/` in the bucket."""
    settings = get_settings()
    if not settings.uses_s3:
        raise InputError("previews are published from a bucket: set S3_ENDPOINT, or open the files of the folder")
    from libs.storage.previews import allow_public_reading, public_read_statement  # noqa: PLC0415

    objects = _require_bucket(settings)
    policy = allow_public_reading(objects) if apply else public_read_statement(objects)
    typer.echo(json.dumps(policy, indent=2))
    if not apply:
        typer.echo("This would be added to the bucket's policy; run again with --apply.", err=True)


app.command(
    epilog=examples(
        "one-to-all storage prune", "one-to-all storage prune --apply", "one-to-all storage prune --older-than 30d"
    )
)(prune)


def _require_bucket(settings: Settings) -> "S3ObjectStore":
    from libs.storage.backends.s3 import S3ObjectStore  # noqa: PLC0415

    objects = objects_from_settings(settings)
    assert isinstance(objects, S3ObjectStore)
    return objects


def print_inspection(objects: ObjectStore, found: Inspection, removed: list[ObjectInfo]) -> None:
    """Print what an inspection found, and what was removed of it."""
    console.print(f"{found.objects} objects, {show_bytes(found.bytes)}, {found.manifests} manifests")
    for problem in found.problems[:_SHOWN]:
        console.print(styled((str(problem.kind), "red"), f"  {problem}"), soft_wrap=True)
        console.print(f"  run: {_way_out(problem)}", soft_wrap=True)
    _print_how_many_more(len(found.problems))
    still_there = [orphan for orphan in found.orphans if orphan.key not in {info.key for info in removed}]
    for title, infos in (("removed", removed), ("orphaned", still_there), ("not ours", found.unknown)):
        if infos:
            total = show_bytes(sum(info.size for info in infos))
            console.print(styled((title, "yellow"), f"  {len(infos)} objects, {total}"))
            for info in infos[:_SHOWN]:
                age = f"{info.modified:%Y-%m-%d %H:%M}"
                console.print(f"  {age}  {objects.uri(info.key)}", soft_wrap=True)
            _print_how_many_more(len(infos))
    if not found.problems:
        read = f"all {show_bytes(found.bytes_read)} read and intact" if found.bytes_read else "nothing is missing"
        console.print(styled(("ok", "green"), f"  {read}"))


def _print_how_many_more(count: int) -> None:
    if count > _SHOWN:
        console.print(f"  … and {count - _SHOWN} more (--json lists all)")


def _document(objects: ObjectStore, found: Inspection, removed: list[ObjectInfo]) -> dict[str, Any]:
    def described(info: ObjectInfo) -> dict[str, Any]:
        return {
            "key": info.key,
            "uri": objects.uri(info.key),
            "bytes": info.size,
            "modified": info.modified.isoformat(),
        }

    problems = [
        {
            "kind": problem.kind,
            "asset": problem.asset,
            "partition": problem.partition,
            "newest": problem.newest,
            "key": problem.key,
            "detail": problem.detail,
            "command": _way_out(problem),
        }
        for problem in found.problems
    ]
    return {
        "objects": found.objects,
        "bytes": found.bytes,
        "manifests": found.manifests,
        "bytes_read": found.bytes_read,
        "problems": problems,
        "orphans": [described(info) for info in found.orphans],
        "unknown": [described(info) for info in found.unknown],
        "removed": [info.key for info in removed],
    }


def _way_out(problem: Problem) -> str:
    from libs.stages.poses.shared_pose_tracks import SHARED_TRACKS  # noqa: PLC0415 - loads numpy

    if problem.asset == SHARED_TRACKS:
        return "nothing; it is made again when a request needs it"
    return problem.command
