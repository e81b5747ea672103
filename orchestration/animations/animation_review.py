"""What a person looks at to judge a clip: contact sheet, comparison video, measurements.

See ``clip_checks`` for what a program can decide about a clip, ``quality_checks`` for the limits of the measures.
"""

import time

import dagster as dg

from libs.stages.animation_files import COMPARISON_FILE, COMPARISON_PICTURE_FILE, CONTACT_SHEET_FILE
from libs.storage.artifacts import LocalArtifact
from orchestration.failures import STEP_RETRIES, failures_explained
from orchestration.models.models_in_use import pose_networks
from orchestration.partitions import ANIMATION_REQUESTS, variant_of_request
from orchestration.policies import ANIMATIONS_GROUP, CODE_VERSIONS, GPU_OP_TAGS, GPU_POOL, OWNERS
from orchestration.storage.outputs import folder_output
from orchestration.storage.resources import ProgressResource, ScratchResource, SettingsResource, StorageResource
from orchestration.storage.stage_runs import stage_run


@dg.asset(
    partitions_def=ANIMATION_REQUESTS,
    deps=[pose_networks],
    group_name=ANIMATIONS_GROUP,
    owners=OWNERS,
    kinds={"image", "onnx", "video"},
    code_version=CODE_VERSIONS["animation_review"],
    retry_policy=STEP_RETRIES,
    pool=GPU_POOL,
    op_tags=GPU_OP_TAGS,
)
def animation_review(
    context: dg.AssetExecutionContext,
    request_media: LocalArtifact,
    pose_conditioning: LocalArtifact,
    animation: LocalArtifact,
    settings: SettingsResource,
    storage: StorageResource,
    scratch: ScratchResource,
    progress: ProgressResource,
) -> dg.Output:
    """Contact sheet of driver, poses and clip, the same side by side as a video, and measurements of quality."""
    from libs.stages.review.animation_review import ReviewJob, make_review  # noqa: PLC0415 - loads the pose stage

    started = time.monotonic()
    with failures_explained(), scratch.filled_folder("animation_review") as folder:
        variant = variant_of_request(context.instance, context.partition_key)
        job = ReviewJob.of(request_media, pose_conditioning, animation, variant, settings.load())
        reviewed = make_review(job, stage_run(context, folder, storage, progress))
    return folder_output(
        folder,
        {**reviewed.metadata(), "seconds": time.monotonic() - started},
        previews=(CONTACT_SHEET_FILE, COMPARISON_PICTURE_FILE),
        main=COMPARISON_FILE,
    )
