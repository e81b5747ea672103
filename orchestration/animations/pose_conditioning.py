"""Retargeted poses, the reference as the network will see it, its mask, and a preview to look at first.

What does not belong here: finding key-points (``pose_tracks``) and sampling (``animation``).
"""

import time

import dagster as dg

from libs.stages.animation_files import POSE_PICTURE_FILE, PREVIEW_FILE
from libs.storage.artifacts import LocalArtifact
from orchestration.failures import RETRY_POLICY, failures_explained
from orchestration.partitions import ANIMATION_REQUESTS
from orchestration.policies import ANIMATIONS_GROUP, CODE_VERSIONS, OWNERS
from orchestration.requests.request import OPTIONS_FILE
from orchestration.storage.outputs import SECONDS_ATTRIBUTE, folder_output
from orchestration.storage.resources import ProgressResource, ScratchResource


@dg.asset(
    partitions_def=ANIMATION_REQUESTS,
    group_name=ANIMATIONS_GROUP,
    owners=OWNERS,
    kinds={"opencv", "numpy"},
    code_version=CODE_VERSIONS["pose_conditioning"],
    retry_policy=RETRY_POLICY,
)
def pose_conditioning(
    context: dg.AssetExecutionContext,
    request_media: LocalArtifact,
    pose_options: LocalArtifact,
    pose_tracks: LocalArtifact,
    scratch: ScratchResource,
    progress: ProgressResource,
) -> dg.Output:
    """The driver's poses fitted to the character, as data, with the pictures the network starts from."""
    from libs.stages.found_poses import sandbox_explained  # noqa: PLC0415
    from libs.stages.pose_conditioning import (  # noqa: PLC0415
        RequestedPoseOptions,
        condition_poses,
        describe_conditioning,
    )
    from libs.stages.pose_pictures import draw_pose_preview  # noqa: PLC0415 - loads the pose stage
    from libs.stages.request_media import RequestMedia  # noqa: PLC0415

    started = time.monotonic()
    report = progress.of(context)
    with failures_explained(), scratch.filled_folder("pose_conditioning") as folder:
        media = RequestMedia.load(request_media.folder)
        requested = RequestedPoseOptions.load(pose_options.folder / OPTIONS_FILE)
        with sandbox_explained(requested.model):
            conditioning, choice = condition_poses(
                media, pose_tracks.folder, requested, folder, lambda done, all_: report("pose preview", done, all_)
            )
        draw_pose_preview(media, conditioning, folder)
    seconds = time.monotonic() - started
    return folder_output(
        folder,
        {**describe_conditioning(conditioning, choice), "seconds": seconds},
        attributes={SECONDS_ATTRIBUTE: seconds},
        previews=(POSE_PICTURE_FILE,),
        main=PREVIEW_FILE,
    )
