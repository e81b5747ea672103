"""What a person looks at to judge a clip: contact sheet, comparison video, measurements.

The pose networks look at the clip once more, to see whether it shows what it was asked to. What does not belong here:
the checks that a program can decide (``clip_checks``, ``quality_checks``).
"""

import time

import dagster as dg

from libs.model_repo.layout import layout_of
from libs.stages.animation_files import CLIP_FILE, COMPARISON_PICTURE_FILE, CONTACT_SHEET_FILE, SUMMARY_FILE
from libs.storage.artifacts import LocalArtifact
from orchestration.failures import RETRY_POLICY, failures_explained
from orchestration.models.models_in_use import pose_networks
from orchestration.partitions import ANIMATION_REQUESTS, variant_of_request
from orchestration.policies import ANIMATIONS_GROUP, CODE_VERSIONS, GPU_OP_TAGS, GPU_POOL, OWNERS
from orchestration.storage.outputs import folder_output
from orchestration.storage.resources import ProgressResource, ScratchResource, SettingsResource


@dg.asset(
    partitions_def=ANIMATION_REQUESTS,
    deps=[pose_networks],
    group_name=ANIMATIONS_GROUP,
    owners=OWNERS,
    kinds={"image", "onnx", "video"},
    code_version=CODE_VERSIONS["animation_review"],
    retry_policy=RETRY_POLICY,
    pool=GPU_POOL,
    op_tags=GPU_OP_TAGS,
)
def animation_review(
    context: dg.AssetExecutionContext,
    request_media: LocalArtifact,
    pose_conditioning: LocalArtifact,
    animation: LocalArtifact,
    settings: SettingsResource,
    scratch: ScratchResource,
    progress: ProgressResource,
) -> dg.Output:
    """Contact sheet of driver, poses and clip, the same side by side as a video, and measurements of quality."""
    from libs.pose.conditioning import PoseConditioning  # noqa: PLC0415 - loads the pose stage
    from libs.stages.pictures import draw_video  # noqa: PLC0415
    from libs.stages.pose_tracks import load_estimator  # noqa: PLC0415
    from libs.stages.quality import measure_quality  # noqa: PLC0415
    from libs.stages.request_media import RequestMedia  # noqa: PLC0415
    from libs.stages.review import COMPARISON_FILE, review_clip  # noqa: PLC0415

    begun = time.monotonic()
    report, loaded = progress.of(context), settings.load()
    with failures_explained(), scratch.filled_folder("animation_review") as folder:
        media = RequestMedia.load(request_media.folder)
        conditioning = PoseConditioning.load(pose_conditioning.folder)
        review = review_clip(animation.path(CLIP_FILE), media, conditioning, folder)
        started = time.monotonic()
        variant = variant_of_request(context.instance, context.partition_key)
        quality = measure_quality(
            animation.path(CLIP_FILE),
            animation.path(SUMMARY_FILE),
            conditioning,
            load_estimator(layout_of(variant, loaded), loaded.one_to_all_device).keypoints,
            lambda done, all_: report("review", done, all_),
        )
        quality.save(folder)
        seconds = time.monotonic() - started
        draw_video(folder / COMPARISON_FILE, folder / COMPARISON_PICTURE_FILE)
    return folder_output(
        folder,
        {
            **review.describe(),
            **quality.numbers(),
            "seconds of measuring": seconds,
            "seconds": time.monotonic() - begun,
        },
        previews=(CONTACT_SHEET_FILE, COMPARISON_PICTURE_FILE),
        main=COMPARISON_FILE,
    )
