"""The code location: everything Dagster may know of, built by one function."""

import dagster as dg

from libs.settings import load_settings
from orchestration.animations.animation import animation
from orchestration.animations.animation_review import animation_review
from orchestration.animations.clip_checks import CLIP_CHECKS
from orchestration.animations.pose_checks import POSE_CHECKS
from orchestration.animations.pose_conditioning import pose_conditioning
from orchestration.animations.pose_tracks import pose_tracks
from orchestration.animations.quality_checks import QUALITY_CHECKS
from orchestration.executor import interruptible_executor
from orchestration.fleet.launching.lost_launches import lost_launches
from orchestration.housekeeping.jobs import HOUSEKEEPING_JOBS, HOUSEKEEPING_SCHEDULES
from orchestration.inbox.input_watch import input_watch
from orchestration.inbox.sensor import inbox_sensor
from orchestration.jobs import JOBS
from orchestration.models.hub_repositories import HUB_REPOSITORIES
from orchestration.models.lora_watch import lora_watch
from orchestration.models.migration import migrated_pretrained_models
from orchestration.models.model_files import one_to_all_checkpoint, pose_models, slimmed_wan_resources
from orchestration.models.model_verification import model_verification
from orchestration.models.models_in_use import animation_model, pose_networks
from orchestration.models.stash_job import delete_old_stash
from orchestration.models.third_party_check import third_party_is_untouched
from orchestration.models.wheel_networks import wheel_networks
from orchestration.recovery.sensor import unrecorded_clips
from orchestration.requests.nightly import build_nightly_batch
from orchestration.requests.request_inputs import REQUEST_INPUTS
from orchestration.requests.validate_request import validate_request
from orchestration.storage.io_manager import ArtifactIOManager
from orchestration.storage.resources import ProgressResource, ScratchResource, SettingsResource, StorageResource
from orchestration.storage.storage_check import check_storage


def build_defs(progress: ProgressResource | None = None) -> dg.Definitions:
    """Build the definitions of the code location.

    Args:
        progress: where stages report how far they are; the run's log when left out.
    """
    settings = SettingsResource()
    storage = StorageResource(settings=settings)
    return dg.Definitions(
        assets=[
            *HUB_REPOSITORIES,
            migrated_pretrained_models,
            one_to_all_checkpoint,
            pose_models,
            slimmed_wan_resources,
            model_verification,
            animation_model,
            pose_networks,
            wheel_networks,
            *REQUEST_INPUTS,
            validate_request,
            pose_tracks,
            pose_conditioning,
            animation,
            animation_review,
        ],
        asset_checks=[*POSE_CHECKS, *CLIP_CHECKS, *QUALITY_CHECKS, third_party_is_untouched],
        jobs=[*JOBS, delete_old_stash, check_storage, *HOUSEKEEPING_JOBS],
        sensors=[inbox_sensor, input_watch, lora_watch, lost_launches, unrecorded_clips],
        schedules=[build_nightly_batch(load_settings()), *HOUSEKEEPING_SCHEDULES],
        resources={
            "settings": settings,
            "storage": storage,
            "scratch": ScratchResource(settings=settings),
            "progress": progress or ProgressResource(),
            "io_manager": ArtifactIOManager(storage=storage),
        },
        executor=interruptible_executor,
    )


defs = build_defs()
