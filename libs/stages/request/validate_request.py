"""Stage: a request enters the graph: which one a run is for, its media, its parts, and whether its model is ready."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from libs.errors import InputError, ModelFilesError
from libs.model_repo.files.repository import Part
from libs.model_repo.layout import layout_of
from libs.model_repo.variants import variant_of_folder
from libs.model_repo.verification.verify import verify_repository
from libs.requests.documents.animation_request import POSE_OPTION_FIELDS, ResolvedRequest
from libs.requests.inbox.accepted_media import AcceptedMedia
from libs.requests.inbox.inbox import INBOX_PREFIX, Inbox
from libs.requests.inbox.intake import InboxScanner
from libs.requests.lifecycle.accepted import AcceptedRequest, AcceptedRequests
from libs.settings import Settings
from libs.stages.animation_files import OPTIONS_FILE, REQUEST_FILE
from libs.stages.model_verification import verified_versions
from libs.stages.pictures import draw_media
from libs.stages.request.large_clips import large_clip_note
from libs.stages.request.prompt_length import prompt_metadata
from libs.stages.request.request_media import RequestMedia, fetch_request_media
from libs.stages.request.requested_lora import RequestedLora, requested_loras
from libs.stages.request.requested_models import never_verified
from libs.storage.artifacts import ArtifactStore
from libs.storage.backends.sha256 import sha256_of_file
from libs.storage.backends.store import ObjectStore


@dataclass(frozen=True)
class RequestJob:
    """The request that a run is for, and where its media come from."""

    accepted: AcceptedRequest
    media: Inbox | AcceptedMedia

    @classmethod
    def of(cls, request_id: str, launched_for: str | None, objects: ObjectStore, settings: Settings) -> "RequestJob":
        """Find the request.

        Args:
            request_id: names it.
            launched_for: the content that the inbox or the schedule launched the run for; None where a person started
                it. Such a run is for the newest word: a document of that name that still waits in the inbox is accepted
                first, and media that were replaced in the inbox since the clip was finished are taken.
            objects: where requests and media lie.
            settings: the default model.

        Raises:
            InputError: there is no such request, its document is wrong, or it was replaced since the run was launched.
        """
        accepted = _accepted_request(request_id, launched_for, objects, settings)
        is_again = launched_for is None and not AcceptedRequests(objects).is_pending(accepted)
        media = Inbox(objects) if is_again or not accepted.media else AcceptedMedia(objects, accepted.media)
        return cls(accepted, media)

    @property
    def request(self) -> ResolvedRequest:
        """What is asked for, every default written out."""
        return self.accepted.request


@dataclass(frozen=True)
class RequestFolders:
    """The empty folders into which the parts of a request are written."""

    request: Path
    media: Path
    options: Path


@dataclass(frozen=True)
class RequestParts:
    """A request that was taken apart.

    Attributes:
        media: the picture and the video.
        digests: field of the request -> SHA-256 of its file.
        options: what determines the drawn poses.
        prompt_lengths: what people are shown of the prompts.
        large_clip: time and memory of a clip above the model's usual size; None for others.
    """

    media: RequestMedia
    digests: Mapping[str, str]
    options: Mapping[str, Any]
    prompt_lengths: Mapping[str, str]
    large_clip: str | None = None

    def notes_on_media(self) -> dict[str, str]:
        """What was chosen or changed in driver and reference, for people; empty where nothing was."""
        large = (self.large_clip,) if self.large_clip else ()
        notes = {
            "notes_on_the_driver": self.media.notes,
            "notes_on_the_reference": self.media.reference_notes,
            "notes_on_the_size": large,
        }
        return {title: "; ".join(said) for title, said in notes.items() if said}


@dataclass(frozen=True)
class RequestedModel:
    """The model files that a request needs, as they are now.

    Attributes:
        problem: what is wrong with them and the way out; None if they are the verified ones.
        versions: of the verified files; empty where there is a problem.
        loras: those of the request.
    """

    problem: str | None
    versions: Mapping[str, str]
    loras: tuple[RequestedLora, ...] = ()


def take_apart(job: RequestJob, folders: RequestFolders, settings: Settings) -> RequestParts:
    """Fetch and probe the media; write the request, its media with small pictures, and its pose options.

    Raises:
        InputError: a file the request names is not there.
        MediaError: the picture or the video cannot be used.
    """
    request = job.request
    media = fetch_request_media(job.media, request, folders.media, settings.pose_networks)
    draw_media(media, folders.media)
    clip_fields = json.dumps(request.clip_fields(), indent=2, ensure_ascii=False)
    (folders.request / REQUEST_FILE).write_text(clip_fields)
    options = request.model_dump(include=POSE_OPTION_FIELDS)
    (folders.options / OPTIONS_FILE).write_text(json.dumps(options, indent=2))
    height, width = media.reference_height, media.reference_width
    if request.size:
        height, width = request.size.height, request.size.width
    return RequestParts(
        media=media,
        digests={"reference": sha256_of_file(media.reference), "driver": sha256_of_file(media.driver)},
        options=options,
        prompt_lengths=prompt_metadata(request, layout_of(request.model, settings)),
        large_clip=large_clip_note(request, height, width),
    )


def check_requested_model(request: ResolvedRequest, settings: Settings, store: ArtifactStore) -> RequestedModel:
    """Are the files the ones that were verified? Takes a few seconds for any variant.

    Raises:
        ModelFilesError: the stored verification cannot be read.
    """
    versions = verified_versions(store, request.model)
    if versions is None:
        return RequestedModel(f"{never_verified(request.model)}; then start this run again", {})
    layout = layout_of(request.model, settings)
    try:
        loras = requested_loras(request, layout)
        chosen = request.pose_networks or settings.pose_networks
        unneeded: tuple[Part, ...] = ("pose_models",) if chosen in {"auto", "mediapipe"} else ()
        verify_repository(layout, level="fast").raise_if_not_complete(unneeded)
    except ModelFilesError as error:
        return RequestedModel(str(error), {})
    return RequestedModel(None, versions, loras)


def _accepted_request(
    request_id: str, launched_for: str | None, objects: ObjectStore, settings: Settings
) -> AcceptedRequest:
    requests = AcceptedRequests(objects)
    accepted = None
    if launched_for is None:
        scanner = InboxScanner(Inbox(objects), requests, variant_of_folder(settings.one_to_all_model_dir).name)
        accepted = scanner.accept_waiting(request_id)
    accepted = accepted or requests.find(request_id)
    if accepted is None:
        raise InputError(
            f"no request {request_id!r}: put {request_id}.yaml (or .yml, .json) into {objects.uri(INBOX_PREFIX)}"
        )
    if launched_for not in {None, accepted.content}:
        raise InputError(
            f"{accepted.request.id} was submitted again ({accepted.document}, {accepted.accepted:%Y-%m-%d %H:%M} UTC) "
            "after this run was launched; the newer content has its own run, or gets one tonight"
        )
    return accepted
