"""Retargeted poses, the reference as the network will see it, its mask, and a preview to look at first."""

import time

import dagster as dg

from libs.stages.animation_files import POSE_PICTURE_FILE, PREVIEW_FILE, SECONDS_ATTRIBUTE
from libs.storage.artifacts import LocalArtifact
from orchestration.failures import STEP_RETRIES, failures_explained
from orchestration.partitions import ANIMATION_REQUESTS
from orchestration.policies import ANIMATIONS_GROUP, CODE_VERSIONS, OWNERS
from orchestration.storage.outputs import folder_output
from orchestration.storage.resources import ProgressResource, ScratchResource, StorageResource
from orchestration.storage.stage_runs import stage_run


@dg.asset(
    partitions_def=ANIMATION_REQUESTS,
    group_name=ANIMATIONS_GROUP,
    owners=OWNERS,
    kinds={"opencv", "numpy"},
    code_version=CODE_VERSIONS["pose_conditioning"],
    retry_policy=STEP_RETRIES,
)
def pose_conditioning(
    context: dg.AssetExecutionContext,
    request_media: LocalArtifact,
    pose_options: LocalArtifact,
    pose_tracks: LocalArtifact,
    storage: StorageResource,
    scratch: ScratchResource,
    progress: ProgressResource,
) -> dg.Output:
    """The driver's poses fitted to the character, as data, with the pictures the network starts from."""
    from libs.stages.poses.pose_conditioning import make_conditioning  # noqa: PLC0415 - loads the pose stage

    started = time.monotonic()
    with failures_explained(), scratch.filled_folder("pose_conditioning") as folder:
        run = stage_run(context, folder, storage, progress)
        conditioned = make_conditioning(request_media, pose_options, pose_tracks, run)
    seconds = time.monotonic() - started
    return folder_output(
        folder,
        {**conditioned.metadata(), "seconds": seconds},
        attributes={SECONDS_ATTRIBUTE: seconds},
        previews=(POSE_PICTURE_FILE,),
        main=PREVIEW_FILE,
    )
