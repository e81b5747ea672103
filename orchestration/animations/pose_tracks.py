"""Key-points of the reference picture and of every driver frame, as data.

Depends on the media and on the pose networks only: another prompt or another face option does not run the networks
again, nor does another request with the same media. What does not belong here: retargeting and drawing
(``pose_conditioning``).
"""

import time

import dagster as dg

from libs.model_repo.layout import layout_of
from libs.storage.artifacts import LocalArtifact
from orchestration.failures import RETRY_POLICY, failures_explained
from orchestration.models.models_in_use import pose_networks
from orchestration.models.verification import stored_verification
from orchestration.partitions import ANIMATION_REQUESTS, variant_of_request
from orchestration.policies import ANIMATIONS_GROUP, CODE_VERSIONS, GPU_OP_TAGS, GPU_POOL, OWNERS
from orchestration.storage.outputs import SECONDS_ATTRIBUTE, folder_output
from orchestration.storage.resources import ProgressResource, ScratchResource, SettingsResource, StorageResource

_FRAMES_LISTED = 20


@dg.asset(
    partitions_def=ANIMATION_REQUESTS,
    deps=[pose_networks],
    group_name=ANIMATIONS_GROUP,
    owners=OWNERS,
    kinds={"onnx", "numpy"},
    code_version=CODE_VERSIONS["pose_tracks"],
    retry_policy=RETRY_POLICY,
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
    from libs.pose.fitting.followed_person import changes_of_person  # noqa: PLC0415
    from libs.stages.found_poses import FoundPoses, sandbox_explained  # noqa: PLC0415
    from libs.stages.pose_track_store import SharedPoseTracks  # noqa: PLC0415 - loads the pose networks' runtime
    from libs.stages.pose_tracks import load_estimator, sources_of, track_poses  # noqa: PLC0415
    from libs.stages.request_media import RequestMedia  # noqa: PLC0415

    started = time.monotonic()
    report = progress.of(context)
    with failures_explained(), scratch.filled_folder("pose_tracks") as folder:
        loaded, store = settings.load(), storage.artifacts()
        variant = variant_of_request(context.instance, context.partition_key)
        media = RequestMedia.load(request_media.folder)
        verified = stored_verification(store, variant)
        digests = {file.name: file.sha256 for file in request_media.manifest.files}
        networks = verified.versions[pose_networks.key.to_user_string()] if verified else None
        with sandbox_explained(variant):
            tracked = track_poses(
                media,
                lambda: load_estimator(layout_of(variant, loaded), loaded.one_to_all_device),
                folder,
                lambda done, all_: report("poses", done, all_),
                SharedPoseTracks(store),
                sources_of(media, digests, networks, CODE_VERSIONS["pose_tracks"]) if networks else None,
            )
        found = FoundPoses.load(folder)
    seconds = time.monotonic() - started
    return folder_output(
        folder,
        {
            "frames": len(tracked.driver),
            "frames without a detection": int((tracked.driver.boxes[:, 4] < 0).sum()),
            "another person may be followed from frame": _listed(changes_of_person(tracked.driver)),
            **found.numbers(),
            "reference reused": tracked.reference_reused,
            "driver reused": tracked.driver_reused,
            "seconds": seconds,
            "frames per second of the networks": tracked.network_frames / seconds,
        },
        attributes={SECONDS_ATTRIBUTE: seconds},
    )


def _listed(frames: list[int]) -> str:
    """The first few, as text; an event with all its metadata stays small."""
    shown = ", ".join(str(frame) for frame in frames[:_FRAMES_LISTED]) or "none"
    return shown if len(frames) <= _FRAMES_LISTED else f"{shown} and {len(frames) - _FRAMES_LISTED} more"
