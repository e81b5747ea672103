"""The clip: the one step that needs the big network, and so a GPU."""

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import dagster as dg

from libs.errors import StorageError
from libs.requests.lifecycle.accepted import CONTENT_ATTRIBUTE, AcceptedRequests
from libs.stages.animation_files import CLIP_FILE, CLIP_PICTURE_FILE
from libs.storage.artifacts import LocalArtifact
from orchestration.failures import STEP_RETRIES, failures_explained
from orchestration.fleet.working.worker_identity import process_metadata
from orchestration.models.models_in_use import animation_model, observe_replaced_lora
from orchestration.partitions import ANIMATION_REQUESTS
from orchestration.policies import ANIMATIONS_GROUP, CODE_VERSIONS, GPU_OP_TAGS, GPU_POOL, OWNERS
from orchestration.requests.runs import note_content
from orchestration.storage.outputs import folder_output
from orchestration.storage.resources import ProgressResource, ScratchResource, SettingsResource, StorageResource
from orchestration.storage.stage_runs import stage_run

if TYPE_CHECKING:
    from libs.storage.chunks import StoredChunks


@dg.asset(
    partitions_def=ANIMATION_REQUESTS,
    deps=[animation_model],
    group_name=ANIMATIONS_GROUP,
    owners=OWNERS,
    kinds={"pytorch", "video"},
    code_version=CODE_VERSIONS["animation"],
    retry_policy=STEP_RETRIES,
    pool=GPU_POOL,
    op_tags=GPU_OP_TAGS,
)
def animation(
    context: dg.AssetExecutionContext,
    animation_request: LocalArtifact,
    request_media: LocalArtifact,
    pose_conditioning: LocalArtifact,
    settings: SettingsResource,
    storage: StorageResource,
    scratch: ScratchResource,
    progress: ProgressResource,
) -> Iterator[dg.Output]:
    """The character of the reference doing the driver's motion: an mp4 with the driver's length, rate and sound."""
    from libs.stages.clip.animation import ClipJob, make_clip  # noqa: PLC0415 - loads torch

    started = time.monotonic()
    content = animation_request.manifest.attributes.get(CONTENT_ATTRIBUTE)
    with failures_explained(), scratch.filled_folder("animation") as folder:
        note_content(context, content)
        job = ClipJob.of(
            animation_request,
            request_media,
            pose_conditioning,
            storage.artifacts(),
            settings.load(),
            CODE_VERSIONS["animation"],
        )
        observe_replaced_lora(context, job.inputs.request, job.model_versions, job.loras)
        clip = make_clip(job, stage_run(context, folder, storage, progress))
    yield folder_output(
        folder,
        {**clip.metadata(), "seconds": time.monotonic() - started, **process_metadata()},
        data_version=clip.version,
        attributes={CONTENT_ATTRIBUTE: content},
        previews=(CLIP_PICTURE_FILE,),
        main=CLIP_FILE,
    )
    # Dagster comes back here once the clip is stored and its event is written. Whatever dies before leaves the pending
    # marker, and the sensor ``unrecorded_clips`` finishes the rest.
    _close_request(context, storage, content, clip.chunks)


def _close_request(
    context: dg.AssetExecutionContext, storage: StorageResource, content: str | None, chunks: "StoredChunks"
) -> None:
    """Remove the pending marker and the chunks of a clip that is stored and recorded."""
    try:
        AcceptedRequests(storage.objects()).clear_pending(context.partition_key, content)
        chunks.clear()
    except StorageError as error:  # what is left behind only takes room
        context.log.warning(f"tidying up after the clip failed: {error}")
