"""The asset check between poses and GPU time: was enough of a person found to make a clip of?

It blocks: ``animation`` does not start where it fails. What counts as enough: ``libs.pose.person_check``; words:
``libs.stages.poses.found_poses``.
"""

from collections.abc import Iterator

import dagster as dg

from libs.errors import PoseError
from libs.requests.documents.animation_request import ResolvedRequest
from libs.stages.animation_files import REQUEST_FILE
from libs.storage.artifacts import LocalArtifact
from orchestration.failures import STEP_RETRIES, failures_explained
from orchestration.partitions import ANIMATION_REQUESTS
from orchestration.storage.metadata import to_metadata

FOUND_POSES_CHECK = "enough_of_a_person_was_found"
_INPUTS = ("pose_tracks", "animation_request")


@dg.multi_asset_check(
    name=f"pose_conditioning_{FOUND_POSES_CHECK}",
    specs=[
        dg.AssetCheckSpec(
            FOUND_POSES_CHECK,
            asset="pose_conditioning",
            additional_deps=_INPUTS,
            blocking=True,
            partitions_def=ANIMATION_REQUESTS,
            description="The pose networks recognised a person in the reference and in the driver; else no clip is "
            "sampled, unless the request has accept_poor_poses.",
        )
    ],
    ins={name: dg.AssetIn(name) for name in _INPUTS},
    retry_policy=STEP_RETRIES,
)
def enough_of_a_person_was_found(pose_tracks: LocalArtifact, animation_request: LocalArtifact) -> Iterator[object]:
    """Stop where too little was found, warn where a person should look."""
    from libs.stages.poses.found_poses import FoundPoses  # noqa: PLC0415 - reads pose tracks

    with failures_explained():
        request = ResolvedRequest.model_validate_json(animation_request.path(REQUEST_FILE).read_text())
        found = FoundPoses.load(pose_tracks.folder)
        blocks = not found.enough and not request.accept_poor_poses
        description = found.refusal(request.model) if blocks else found.describe()
        yield dg.AssetCheckResult(
            check_name=FOUND_POSES_CHECK,
            asset_key="pose_conditioning",
            passed=found.good,
            severity=dg.AssetCheckSeverity.ERROR if blocks or found.good else dg.AssetCheckSeverity.WARN,
            description=description,
            metadata=to_metadata(found.numbers()),
        )
        if blocks:  # Dagster would end the run with the name of the check alone
            raise PoseError(description)


POSE_CHECKS = [enough_of_a_person_was_found]
