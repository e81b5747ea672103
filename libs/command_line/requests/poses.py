"""``one-to-all poses``: the poses of a request, made on this machine, without a fleet and without a GPU.

See ``libs.stages.poses.pose_preview`` for what is made.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from libs.command_line.console.terminal import console, shown_progress
from libs.errors import InputError, MediaError, PoseError
from libs.model_repo.variants import variant_of_folder
from libs.requests.documents.animation_request import AnimationRequest
from libs.requests.inbox.inbox import Inbox
from libs.requests.inbox.submission import plan_submission
from libs.settings import load_settings
from libs.storage.backends.factory import store_from_settings

if TYPE_CHECKING:
    from libs.stages.poses.pose_preview import PosePreview, PreviewFiles


def poses(
    files: Annotated[
        list[Path],
        typer.Argument(help="Request documents (YAML, JSON), and media that are not in the same folder."),
    ],
    to: Annotated[Path, typer.Option("--to", help="The folder to put the results in.")] = Path(),
    request_id: Annotated[
        str | None, typer.Option("--id", help="Only this request, where the documents hold several.")
    ] = None,
) -> None:
    """Find, fit and draw the poses of requests on this machine: look at them, then submit.

    Writes a preview, a sheet of the four ways to fit the poses, and the key-points in a file that `submit` takes.
    """
    from libs.stages.poses.pose_preview import LocalMedia, PreviewFiles, preview_poses  # noqa: PLC0415 - pose stage

    settings = load_settings()
    store = store_from_settings(settings)
    inbox = Inbox(store.objects)
    plan = plan_submission(files, inbox)
    requests = _chosen([one for each in plan.submissions.values() for one in each.requests], request_id)
    default_model = variant_of_folder(settings.one_to_all_model_dir).name
    to.mkdir(parents=True, exist_ok=True)
    failed = 0
    for request in requests:
        results = PreviewFiles(*(to / f"{request.id}{end}" for end in ("-preview.mp4", "-fits.png", ".poses")))
        try:
            with shown_progress(in_bytes=False) as report:
                made = preview_poses(
                    request.resolve(default_model), LocalMedia(plan.media, inbox), results, store, settings, report
                )
        except (MediaError, PoseError) as error:
            if len(requests) == 1:
                raise
            failed += 1
            console.print(f"{request.id}: {error}", soft_wrap=True)
        else:
            _show(made, results, [str(file) for file in files])
    if failed:
        raise PoseError(f"{failed} of {len(requests)} requests have no poses, as said above")


def _chosen(requests: list[AnimationRequest], request_id: str | None) -> list[AnimationRequest]:
    if not requests:
        raise InputError("no request document (.yaml, .yml, .json) is among the files; name one")
    if request_id is None:
        return requests
    if not (named := [request for request in requests if request.id == request_id]):
        known = ", ".join(request.id for request in requests[:5])
        raise InputError(f"--id {request_id}: no such request; the documents hold {known}")
    return named


def _show(made: "PosePreview", results: "PreviewFiles", files: list[str]) -> None:
    conditioned, media, found = made.conditioned, made.media, made.found
    height, width = conditioned.conditioning.size
    count, rate = media.used_frame_count, media.output_frame_rate

    def line(title: str, text: str) -> None:
        console.print(f"  {title:<14}{text}", soft_wrap=True)

    console.print(f"{made.request.id}: {found.describe()}", soft_wrap=True)
    for title, text in made.networks.describe().items():
        line("found by" if title == "pose networks" else "", text if title == "pose networks" else f"{title}: {text}")
    changes = made.tracked.metadata()["another person may be followed from frame"]
    if changes != "none":
        line("", f"another person may be followed from frame: {changes}")
    choice = conditioned.choice
    line("fitted", f"mode: {choice.mode}, align: {'yes' if choice.align else 'no'}. {choice.reason}")
    line(
        "the clip",
        f"{width} x {height}, {count} frames at {float(rate):.4g}/s ({float(media.output_duration):.1f} s), model "
        f"{made.request.model}, {made.request.steps} steps",
    )
    line("preview", str(results.preview))
    line("four fits", str(results.sheet))
    if not found.enough:
        line("note", found.refusal(made.request.model))
    if made.can_be_handed_in:
        line("key-points", str(results.poses))
        given = " ".join([*files, str(results.poses)])
        line("next", f"`one-to-all submit {given}`: the run takes these key-points over")
    else:
        line("next", "`one-to-all submit`: the run finds the key-points again, as its networks were not verified here")
