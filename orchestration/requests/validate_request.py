"""A request enters the graph: validated, its media fetched and probed, its parts separated.

The parts are assets of their own so that staleness is exact: another prompt changes ``animation_request`` only, another
face option ``pose_options`` as well, another video ``request_media`` as well.
"""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg

from libs.errors import ModelFilesError
from libs.requests.inbox.inbox import Inbox
from libs.requests.lifecycle.accepted import CONTENT_ATTRIBUTE
from libs.stages.animation_files import DRIVER_PICTURE_FILE, REFERENCE_PICTURE_FILE
from orchestration.failures import STEP_RETRIES, failures_explained
from orchestration.models.models_in_use import observe_models_of_request
from orchestration.partitions import ANIMATION_REQUESTS, remember_variant_of_request
from orchestration.policies import ANIMATIONS_GROUP, BATCH_TAG, CODE_VERSIONS, CONTENT_TAG, OWNERS
from orchestration.recovery.batches import require_not_stopped
from orchestration.requests.request_inputs import REQUEST_INPUTS, observe_document, observe_media
from orchestration.requests.runs import note_content
from orchestration.storage.observed import observe_inputs
from orchestration.storage.outputs import folder_output
from orchestration.storage.resources import ScratchResource, SettingsResource, StorageResource

if TYPE_CHECKING:
    from libs.stages.request.validate_request import RequestedModel

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
    retry_policy=STEP_RETRIES,
)
def validate_request(
    context: dg.AssetExecutionContext,
    settings: SettingsResource,
    storage: StorageResource,
    scratch: ScratchResource,
) -> Iterator[Any]:
    """Take the accepted request named like the partition, fetch and probe its media, look at its model files."""
    from libs.stages.request.validate_request import (  # noqa: PLC0415 - loads the media libraries
        RequestFolders,
        RequestJob,
        check_requested_model,
        take_apart,
    )

    started = time.monotonic()
    with (
        failures_explained(),
        scratch.filled_folder("animation_request") as request_folder,
        scratch.filled_folder("request_media") as media_folder,
        scratch.filled_folder("pose_options") as options_folder,
    ):
        loaded, objects = settings.load(), storage.objects()
        require_not_stopped(objects, context.run.tags.get(BATCH_TAG), context.partition_key)
        job = RequestJob.of(context.partition_key, context.run.tags.get(CONTENT_TAG), objects, loaded)
        note_content(context, job.accepted.content)
        parts = take_apart(job, RequestFolders(request_folder, media_folder, options_folder), loaded)

    document = job.accepted.document
    seen = [*observe_document(job.request, document), *observe_media(job.request, parts.digests, Inbox(objects))]
    observe_inputs(context, seen)
    yield folder_output(
        request_folder,
        {"request": dg.MetadataValue.json(job.request.model_dump()), "document": document, **parts.prompt_lengths},
        output_name="animation_request",
        attributes={CONTENT_ATTRIBUTE: job.accepted.content},
    )
    yield folder_output(
        media_folder,
        {
            "media": dg.MetadataValue.json(parts.media.describe()),
            "seconds": time.monotonic() - started,
            **parts.notes_on_media(),
        },
        output_name="request_media",
        previews=(REFERENCE_PICTURE_FILE, DRIVER_PICTURE_FILE),
    )
    options = {"options": dg.MetadataValue.json(parts.options)}
    yield folder_output(options_folder, options, output_name="pose_options")
    with failures_explained():
        model = check_requested_model(job.request, loaded, storage.artifacts())
        if model.problem is None:
            remember_variant_of_request(context.instance, job.request.id, job.request.model)
            for observation in observe_models_of_request(job.request, model.versions, model.loras):
                context.log_event(observation)
        yield _check_result(job.request.model, model)
        if model.problem:  # Dagster would end the run with the name of the check alone
            raise ModelFilesError(model.problem)


def _check_result(variant: str, model: "RequestedModel") -> dg.AssetCheckResult:
    notes = [lora.note for lora in model.loras if lora.note]
    return dg.AssetCheckResult(
        check_name=MODEL_FILES_CHECK,
        asset_key="animation_request",
        passed=model.problem is None,
        description=model.problem or "; ".join([f"{variant}: complete and verified", *notes]) + ".",
    )
