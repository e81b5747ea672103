"""A request enters the graph: validated, its media fetched and probed, its parts separated.

The parts are assets of their own so that staleness is exact: another prompt changes ``animation_request`` only, another
face option ``pose_options`` as well, another video ``request_media`` as well. What does not belong here: poses.
"""

import json
import time
from collections.abc import Iterator
from typing import Any

import dagster as dg

from libs.errors import InputError, ModelFilesError
from libs.model_repo.layout import RepositoryLayout, layout_of
from libs.model_repo.variants import variant_of_folder
from libs.model_repo.verification.verify import verify_repository
from libs.requests.documents.animation_request import ResolvedRequest
from libs.requests.inbox.inbox import INBOX_PREFIX, Inbox
from libs.requests.inbox.intake import InboxIntake
from libs.requests.inbox.kept_media import AcceptedMedia
from libs.requests.lifecycle.accepted import CONTENT_ATTRIBUTE, AcceptedRequest, AcceptedRequests
from libs.settings import Settings
from libs.stages.animation_files import DRIVER_PICTURE_FILE, REFERENCE_PICTURE_FILE
from libs.stages.prompt_length import prompt_metadata
from libs.stages.requested_lora import lora_digest, requested_lora
from libs.stages.requested_models import never_verified
from libs.storage.artifacts import ArtifactStore
from libs.storage.backends.sha256 import sha256_of_file
from libs.storage.backends.store import ObjectStore
from orchestration.failures import RETRY_POLICY, failures_explained
from orchestration.models.models_in_use import observe_models_of_request, path_of_lora
from orchestration.models.verification import stored_verification
from orchestration.partitions import ANIMATION_REQUESTS, remember_variant_of_request
from orchestration.policies import ANIMATIONS_GROUP, BATCH_TAG, CODE_VERSIONS, CONTENT_TAG, OWNERS
from orchestration.recovery.batches import require_not_stopped
from orchestration.requests.request_inputs import (
    POSE_OPTION_FIELDS,
    REQUEST_INPUTS,
    observe_document,
    observe_media,
)
from orchestration.requests.runs import note_content
from orchestration.storage.observed import FileVersion, observe_inputs
from orchestration.storage.outputs import folder_output
from orchestration.storage.resources import ScratchResource, SettingsResource, StorageResource

REQUEST_FILE = "request.json"
OPTIONS_FILE = "options.json"
MODEL_FILES_CHECK = "model_files_complete"


def _out(description: str, kinds: set[str]) -> dg.AssetOut:
    return dg.AssetOut(
        description=description,
        kinds=kinds,
        group_name=ANIMATIONS_GROUP,
        owners=OWNERS,
        code_version=CODE_VERSIONS["animation_request"],
    )


@dg.multi_asset(
    name="validate_request",
    partitions_def=ANIMATION_REQUESTS,
    outs={
        "animation_request": _out("What was asked for, validated, with every default written out.", {"yaml"}),
        "request_media": _out("Reference picture and driving video as they were when validated.", {"image", "video"}),
        "pose_options": _out("The part of the request that determines the drawn poses.", {"yaml"}),
    },
    deps=REQUEST_INPUTS,
    internal_asset_deps={
        "animation_request": {dg.AssetKey("request_document")},
        "request_media": {dg.AssetKey("reference_picture"), dg.AssetKey("driving_video")},
        "pose_options": {dg.AssetKey("requested_poses")},
    },
    check_specs=[
        dg.AssetCheckSpec(
            MODEL_FILES_CHECK,
            asset="animation_request",
            blocking=True,
            description="The model files this request needs were verified and are still there; else nothing starts.",
        )
    ],
    retry_policy=RETRY_POLICY,
)
def validate_request(
    context: dg.AssetExecutionContext,
    settings: SettingsResource,
    storage: StorageResource,
    scratch: ScratchResource,
) -> Iterator[Any]:
    """Take the accepted request named like the partition, fetch and probe its media, look at its model files."""
    from libs.stages.pictures import draw_media  # noqa: PLC0415 - loads the media libraries
    from libs.stages.request_media import fetch_request_media  # noqa: PLC0415

    started = time.monotonic()
    with (
        failures_explained(),
        scratch.filled_folder("animation_request") as request_folder,
        scratch.filled_folder("request_media") as media_folder,
        scratch.filled_folder("pose_options") as options_folder,
    ):
        loaded, objects = settings.load(), storage.objects()
        require_not_stopped(objects, context.run.tags.get(BATCH_TAG), context.partition_key)
        inbox = Inbox(objects)
        accepted = _accepted_request(context, objects, loaded)
        note_content(context, accepted.content)
        resolved = accepted.request
        media = fetch_request_media(_media_of(context, accepted, objects), resolved, media_folder)
        digests = {"reference": sha256_of_file(media.reference), "driver": sha256_of_file(media.driver)}
        draw_media(media, media_folder)
        (request_folder / REQUEST_FILE).write_text(json.dumps(resolved.clip_fields(), indent=2, ensure_ascii=False))
        options = resolved.model_dump(include=POSE_OPTION_FIELDS)
        (options_folder / OPTIONS_FILE).write_text(json.dumps(options, indent=2))

    observe_inputs(context, [*observe_document(resolved, accepted.document), *observe_media(resolved, digests, inbox)])
    yield folder_output(
        request_folder,
        {
            "request": dg.MetadataValue.json(resolved.model_dump()),
            "document": accepted.document,
            **prompt_metadata(resolved, layout_of(resolved.model, loaded)),
        },
        output_name="animation_request",
        attributes={CONTENT_ATTRIBUTE: accepted.content},
    )
    yield folder_output(
        media_folder,
        {
            "media": dg.MetadataValue.json(media.describe()),
            "seconds": time.monotonic() - started,
            **({"notes_on_the_driver": "; ".join(media.notes)} if media.notes else {}),
            **({"notes_on_the_reference": "; ".join(media.reference_notes)} if media.reference_notes else {}),
        },
        output_name="request_media",
        previews=(REFERENCE_PICTURE_FILE, DRIVER_PICTURE_FILE),
    )
    yield folder_output(options_folder, {"options": dg.MetadataValue.json(options)}, output_name="pose_options")
    with failures_explained():
        check = _model_files_check(context, resolved, loaded, storage.artifacts())
        yield check
        if not check.passed:  # Dagster would end the run with the name of the check alone
            raise ModelFilesError(str(check.description))


def _media_of(
    context: dg.AssetExecutionContext, accepted: AcceptedRequest, objects: ObjectStore
) -> Inbox | AcceptedMedia:
    """Where this run takes its media from: they are the request's own from the moment it was accepted.

    A run that a person starts for a finished request takes what lies in the inbox now: so a file that was replaced
    there gets into the clip.
    """
    is_again = CONTENT_TAG not in context.run.tags and not AcceptedRequests(objects).is_open(accepted)
    return Inbox(objects) if is_again or not accepted.media else AcceptedMedia(objects, accepted.media)


def _accepted_request(context: dg.AssetExecutionContext, objects: ObjectStore, settings: Settings) -> AcceptedRequest:
    """What this run is for.

    A run that the inbox or the schedule launched is for the content in its tags. A run started by a person is for the
    newest word: a document of that name that still waits in the inbox is accepted first.

    Raises:
        InputError: there is no such request, its document is wrong, or it was replaced since this run was launched.
    """
    requests = AcceptedRequests(objects)
    launched_for = context.run.tags.get(CONTENT_TAG)
    if launched_for is None:
        intake = InboxIntake(Inbox(objects), requests, variant_of_folder(settings.one_to_all_model_dir).name)
        accepted = intake.accept_waiting(context.partition_key) or requests.find(context.partition_key)
    else:
        accepted = requests.find(context.partition_key)
    if accepted is None:
        raise InputError(
            f"no request {context.partition_key!r}: put {context.partition_key}.yaml (or .yml, .json) into "
            f"{objects.uri(INBOX_PREFIX)}"
        )
    if launched_for not in {None, accepted.content}:
        raise InputError(
            f"{accepted.request.id} was submitted again ({accepted.document}, {accepted.accepted:%Y-%m-%d %H:%M} UTC) "
            "after this run was launched; the newer content has a run of its own, or gets one tonight"
        )
    return accepted


def _model_files_check(
    context: dg.AssetExecutionContext, request: ResolvedRequest, settings: Settings, store: ArtifactStore
) -> dg.AssetCheckResult:
    """Are the files the ones that were verified? Observes which they are (``models_in_use``) if so."""
    verified = stored_verification(store, request.model)
    problem = None
    if verified is None:
        problem = f"{never_verified(request.model)}; then start this run again"
    else:
        try:
            lora = _complete_model_files(request, layout_of(request.model, settings))
        except ModelFilesError as error:
            problem = str(error)
        else:
            remember_variant_of_request(context.instance, request.id, request.model)
            for observation in observe_models_of_request(request.id, request.model, verified.versions, lora):
                context.log_event(observation)
    return dg.AssetCheckResult(
        check_name=MODEL_FILES_CHECK,
        asset_key="animation_request",
        passed=problem is None,
        description=problem or f"{request.model}: complete and verified.",
    )


def _complete_model_files(request: ResolvedRequest, layout: RepositoryLayout) -> FileVersion | None:
    """A fast look at the files as they are now, a few seconds for any variant; returns the LoRA to observe, if any.

    Raises:
        ModelFilesError: says what is wrong.
    """
    lora = requested_lora(request, layout)
    verify_repository(layout, level="fast").raise_if_not_complete()
    return FileVersion(lora_digest(lora, layout), path_of_lora(lora.path, layout)) if lora else None
