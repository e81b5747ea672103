"""Key-points of the reference picture and of every driver frame, as data.

Depends on the media and on the pose networks only: another prompt or another face option does not run the networks
again, nor does another request with the same media.
"""

import time

import dagster as dg

from libs.stages.animation_files import SECONDS_ATTRIBUTE
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
    kinds={"onnx", "numpy"},
    code_version=CODE_VERSIONS["pose_tracks"],
    retry_policy=STEP_RETRIES,
    pool=GPU_POOL,
    op_tags=GPU_OP_TAGS,
)
def pose_tracks(
    context: dg.AssetExecutionContext,
    request_media: LocalArtifact,
    settings: SettingsResource,
    storage: StorageResource,
    scratch: ScratchResource,
    progress: ProgressResource,
) -> dg.Output:
    """Key-points of the reference and of every driver frame used, found by the detector and the pose network."""
    from libs.stages.poses.pose_tracks import PoseTracksJob, make_pose_tracks  # noqa: PLC0415 - loads onnxruntime

    started = time.monotonic()
    with failures_explained(), scratch.filled_folder("pose_tracks") as folder:
        variant = variant_of_request(context.instance, context.partition_key)
        job = PoseTracksJob.of(
            request_media, variant, storage.artifacts(), settings.load(), CODE_VERSIONS["pose_tracks"]
        )
        tracked = make_pose_tracks(job, stage_run(context, folder, storage, progress))
    seconds = time.monotonic() - started
    return folder_output(
        folder,
        {
            **tracked.metadata(),
            "seconds": seconds,
            "frames per second of the networks": tracked.network_frames / seconds,
        },
        attributes={SECONDS_ATTRIBUTE: seconds},
    )
