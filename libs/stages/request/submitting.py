"""Submit documents and their media: checked as a whole, sent, and what comes of each request.

The command line and the studio submit through this. See ``libs.requests.inbox.submission`` for what is uploaded in
which order and under which names.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from libs.model_repo.variants import variant_of_folder
from libs.requests.documents.animation_request import AnimationRequest
from libs.requests.inbox.inbox import Inbox
from libs.requests.inbox.local_media import check_local_media
from libs.requests.inbox.submission import FilesToSubmit, plan_submission, upload
from libs.requests.lifecycle.accepted import AcceptedRequests, content_of
from libs.requests.lifecycle.listing import what_will_happen
from libs.requests.lifecycle.run_reports import RunReport
from libs.requests.lifecycle.states import RequestStates
from libs.settings import Settings
from libs.stages.poses.found_poses import sandbox_note
from libs.stages.request.large_clips import large_clip_notes
from libs.stages.request.prompt_length import prompt_warnings
from libs.stages.request.requested_models import model_warnings
from libs.storage.artifacts import ArtifactStore


@dataclass(frozen=True)
class PreparedSubmission:
    """Files that were checked and can be sent.

    Attributes:
        plan: what is sent under which name.
        notes: what the person may want to know before.
    """

    plan: FilesToSubmit
    notes: tuple[str, ...]


@dataclass(frozen=True)
class SubmittedFiles:
    """Files that were sent.

    Attributes:
        media_before: media of these names that lay in the inbox before.
        media_sent: media that were not there with the same content.
        outcomes: document -> request -> what submitting it brings about, e.g. ``runs now``.
    """

    media_before: frozenset[str]
    media_sent: frozenset[str]
    outcomes: Mapping[str, Mapping[str, str]]


def prepare_submission(files: Iterable[Path], store: ArtifactStore, settings: Settings) -> PreparedSubmission:
    """Check documents and media; nothing is sent.

    Raises:
        InputError: a document or a file is wrong, or media are nowhere to be found.
    """
    plan = plan_submission(files, Inbox(store.objects))
    local_files = {**plan.media, **{old: plan.media[new] for old, new in plan.renamed.items()}}
    notes = check_local_media(plan.submissions, local_files)
    requests = [request for submission in plan.submissions.values() for request in submission.requests]
    sandbox = sandbox_note(requests, variant_of_folder(settings.one_to_all_model_dir).name)
    warnings = [*model_warnings(requests, settings, store), *prompt_warnings(requests, settings)]
    warnings += large_clip_notes(requests, variant_of_folder(settings.one_to_all_model_dir).name)
    return PreparedSubmission(plan, (*notes, *warnings, *([sandbox] if sandbox else [])))


def send_submission(
    prepared: PreparedSubmission, store: ArtifactStore, reports: Mapping[str, RunReport]
) -> SubmittedFiles:
    """Put everything into the inbox, media before documents.

    Args:
        prepared: what to send; a media file whose name was taken meanwhile gets another one, and the plan says so.
        store: has the inbox.
        reports: runs in progress, asked for before anything is sent: a scan that takes the documents meanwhile is what
            submitting them brings about.

    Raises:
        InputError: somebody else handed in another document of that name meanwhile; the message says what was sent.
    """
    plan, inbox = prepared.plan, Inbox(store.objects)
    before = inbox.media(plan.media)
    ids = [request.id for submission in plan.submissions.values() for request in submission.requests]
    accepted = {request_id: AcceptedRequests(store.objects).find(request_id) for request_id in ids}
    states = {state.request_id: state for state in RequestStates(store).of(ids)}
    sent = upload(plan, inbox)
    requests = [request for submission in plan.submissions.values() for request in submission.requests]
    sizes = {path: info.size for path, info in inbox.media(_media_paths(requests)).items()}
    outcomes: dict[str, dict[str, str]] = {}
    for name, submission in plan.submissions.items():
        outcomes[name] = {}
        for request in submission.requests:
            paths = _media_paths([request])
            is_replaced = any(path in before and path in sent for path in paths)
            outcomes[name][request.id] = what_will_happen(
                request,
                None if is_replaced else accepted[request.id],
                content_of(request, {path: sizes.get(path, 0) for path in paths}),
                states[request.id].clip,
                reports.get(request.id),
            )
    return SubmittedFiles(frozenset(before), frozenset(sent), outcomes)


def _media_paths(requests: Iterable[AnimationRequest]) -> set[str]:
    return {path for request in requests for path in (request.reference, request.driver)}
