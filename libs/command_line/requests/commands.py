"""``one-to-all submit`` and ``fetch``: requests and their results; and the commands beside them.

Each command reads its arguments, asks the store, and prints what it found. See ``libs.stages.request.submitting`` for
what is sent, ``libs.requests.lifecycle.states`` for what a state means.
"""

from pathlib import Path
from shutil import copyfileobj
from typing import Annotated

import typer

from libs.command_line.console.options import examples
from libs.command_line.console.terminal import PlainTable, console, whole
from libs.command_line.requests.cancel_and_retry import cancel, retry
from libs.command_line.requests.listing import list_requests
from libs.command_line.requests.runs import open_runs
from libs.command_line.requests.stored_results import require_result
from libs.errors import ArtifactMissingError, InputError
from libs.files.atomic_write import atomic_write
from libs.requests.inbox.submission import FilesToSubmit
from libs.requests.lifecycle.accepted import CONTENT_ATTRIBUTE
from libs.requests.lifecycle.states import ClipState, RequestStates
from libs.settings import load_settings
from libs.stages.animation_files import CLIP_FILE, CONTACT_SHEET_FILE, POSES_SUFFIX, PREVIEW_FILE
from libs.stages.request.submitting import prepare_submission, send_submission
from libs.storage.artifacts import ArtifactStore
from libs.storage.backends.factory import store_from_settings
from libs.storage.backends.sha256 import sha256_of_file

CLIP = ("animation", CLIP_FILE, "")
RESULTS = (
    CLIP,
    ("pose_conditioning", PREVIEW_FILE, "-preview"),
    ("animation_review", CONTACT_SHEET_FILE, "-contact-sheet"),
)
"""Asset, file of it, and what follows the id in the name of the fetched file."""

_NAMES_SHOWN = 3


def submit(
    files: Annotated[
        list[Path],
        typer.Argument(
            help="Request documents (YAML, JSON), media that are not in the same folder, and key-points that "
            "`one-to-all poses` found (.poses)."
        ),
    ],
) -> None:
    """Put request documents and their media into the inbox; what is there already is not sent again."""
    settings = load_settings()
    store = store_from_settings(settings)
    key_points = [path for path in files if path.suffix == POSES_SUFFIX]
    prepared = prepare_submission([path for path in files if path not in key_points], store, settings)
    _hand_in(key_points, prepared.plan, store)
    for note in prepared.notes:
        console.print(f"note: {note}", soft_wrap=True)
    found = open_runs()
    submitted = send_submission(prepared, store, found.runs.reports([]) if found.runs else {})
    plan = prepared.plan
    for name, new in plan.renamed.items():
        other = plan.reasons.get(name)
        why = f", since {other} needs another file of that name" if other else ", as before"
        console.print(f"{name}: stored as {new}{why}; the uploaded document names it so", soft_wrap=True)
    for name in plan.media:
        where = ", in place of another file of that name" if name in submitted.media_before else ""
        console.print(f"{name}: sent{where}" if name in submitted.media_sent else f"{name}: was there")
    for name, outcomes in submitted.outcomes.items():
        console.print(f"{name}: submitted")
        ids_by_outcome: dict[str, list[str]] = {}
        for request_id, outcome in outcomes.items():
            ids_by_outcome.setdefault(outcome, []).append(request_id)
        for outcome, ids in ids_by_outcome.items():
            more = f" and {len(ids) - _NAMES_SHOWN} more" if len(ids) > _NAMES_SHOWN else ""
            console.print(f"  {', '.join(ids[:_NAMES_SHOWN])}{more}: {outcome}", soft_wrap=True)


def _hand_in(key_points: list[Path], plan: FilesToSubmit, store: ArtifactStore) -> None:
    """Put key-points into the store before the documents, so that no run starts without them."""
    if not key_points:
        return
    from libs.stages.poses.handed_in_poses import take_in_poses  # noqa: PLC0415 - loads the pose stage
    from libs.stages.poses.shared_pose_tracks import SharedPoseTracks  # noqa: PLC0415

    digests = {name: sha256_of_file(path) for name, path in plan.media.items()}
    for path in key_points:
        names = take_in_poses(path, SharedPoseTracks(store), digests)
        console.print(f"{path}: key-points of {' and '.join(names)} handed in", soft_wrap=True)


def fetch(
    request_id: Annotated[str, typer.Argument(metavar="ID", help="Id of a request, as `one-to-all list` shows it.")],
    to: Annotated[Path, typer.Option("--to", help="The folder to put the files in.")] = Path(),
    digest: Annotated[
        str | None, typer.Option("--digest", help="Fetch an older clip, by its digest from --versions.")
    ] = None,
    versions: Annotated[
        bool, typer.Option("--versions", help="List all clips of the request instead of downloading.")
    ] = False,
) -> None:
    """Download what exists of a request (clip, pose preview, contact sheet) and verify it."""
    store = store_from_settings(load_settings())
    if versions:
        _show_versions(store, request_id)
        return
    if digest is not None:
        require_result(store, request_id)
        _save(store, request_id, CLIP, to, digest)
        return
    there = [result for result in RESULTS if store.manifest(result[0], request_id) is not None]
    if not there:
        require_result(store, request_id)
    for result in RESULTS:
        if result in there:
            _save(store, request_id, result, to)
        else:
            console.print(f"{result[0]}: not there yet; `one-to-all list` shows how far the request is", soft_wrap=True)
    (state,) = RequestStates(store).of([request_id])
    if state.clip == ClipState.OUTDATED:
        console.print("the request was changed since; the clip of its newest content is not there yet")


def add_to(app: typer.Typer) -> None:
    """Make these the commands of ``app``."""
    app.command(
        epilog=examples("one-to-all submit puppet-dance.yaml", "one-to-all submit spring.yaml videos/dance.mp4")
    )(submit)
    app.command("list", epilog=examples("one-to-all list", "one-to-all list --watch", "one-to-all list --all --json"))(
        list_requests
    )
    app.command(epilog=examples("one-to-all cancel puppet-dance"))(cancel)
    app.command(epilog=examples("one-to-all retry puppet-dance", "one-to-all retry puppet-dance --tonight"))(retry)
    app.command(
        epilog=examples(
            "one-to-all fetch puppet-dance",
            "one-to-all fetch puppet-dance --to clips",
            "one-to-all fetch puppet-dance --versions",
        )
    )(fetch)


def _show_versions(store: ArtifactStore, request_id: str) -> None:
    table = PlainTable(whole("digest"), "made", "content of the request")
    newest = store.manifest("animation", request_id)
    for manifest in store.history("animation", request_id):
        mark = " (newest)" if newest and manifest.digest == newest.digest else ""
        content = str(manifest.attributes.get(CONTENT_ATTRIBUTE) or "")
        table.add_row(manifest.digest[:16] + mark, f"{manifest.created:%Y-%m-%d %H:%M} UTC", content)
    require_result(store, request_id)
    console.print(table)


def _save(
    store: ArtifactStore, request_id: str, result: tuple[str, str, str], folder: Path, digest: str | None = None
) -> None:
    asset, file, suffix = result
    version = f"-{digest[:16]}" if digest else ""
    target = folder / f"{request_id}{suffix}{version}{Path(file).suffix}"
    try:
        source = store.open_file(asset, request_id, file, digest)
    except ArtifactMissingError:
        if result is CLIP:
            raise
        console.print(f"{asset}: has no {file}")
        return
    try:
        with source, atomic_write(target) as temporary, temporary.open("wb") as written:
            copyfileobj(source, written)
    except OSError as error:
        raise InputError(f"{target}: cannot be written ({error.strerror}); name a folder with room by --to") from error
    console.print(str(target), soft_wrap=True)
