"""What a person looks at to judge a clip: contact sheet, comparison video, measurements.

What does not belong here: the checks that a program can decide (``orchestration.checks.clip``).
"""

import dagster as dg

from libs.storage.artifacts import LocalArtifact
from orchestration.failures import RETRY_POLICY, failures_explained
from orchestration.outputs import folder_output
from orchestration.partitions import ANIMATION_REQUESTS
from orchestration.pictures import pictures_metadata
from orchestration.policies import ANIMATIONS_GROUP, CODE_VERSIONS, OWNERS
from orchestration.resources import ScratchResource


@dg.asset(
    partitions_def=ANIMATION_REQUESTS,
    group_name=ANIMATIONS_GROUP,
    owners=OWNERS,
    kinds={"image", "video"},
    code_version=CODE_VERSIONS["animation_review"],
    retry_policy=RETRY_POLICY,
)
def animation_review(
    request_media: LocalArtifact,
    pose_conditioning: LocalArtifact,
    animation: LocalArtifact,
    scratch: ScratchResource,
) -> dg.Output:
    """Contact sheet of driver, poses and clip, the same side by side as a video, and measurements."""
    from libs.pose.conditioning import PoseConditioning  # noqa: PLC0415 - loads the pose stage
    from libs.stages.animation_files import CLIP_FILE  # noqa: PLC0415
    from libs.stages.request_media import RequestMedia  # noqa: PLC0415
    from libs.stages.review import COMPARISON_FILE, CONTACT_SHEET_FILE, review_clip  # noqa: PLC0415

    with failures_explained(), scratch.filled_folder("animation_review") as folder:
        media = RequestMedia.load(request_media.folder)
        conditioning = PoseConditioning.load(pose_conditioning.folder)
        review = review_clip(animation.path(CLIP_FILE), media, conditioning, folder)
        pictures = pictures_metadata(
            {"contact sheet": folder / CONTACT_SHEET_FILE}, {"comparison": folder / COMPARISON_FILE}
        )
    return folder_output(folder, {**pictures, **review.describe()}, previews=(CONTACT_SHEET_FILE,))
