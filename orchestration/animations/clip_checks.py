"""Asset checks of a finished clip: what a program can decide about it.

See ``animation_review`` for quality, ``orchestration.requests.validate_request`` for what must hold before the GPU is
used.
"""

import warnings
from fractions import Fraction

import dagster as dg

from libs.requests.documents.animation_request import ResolvedRequest
from libs.stages.animation_files import CLIP_FILE, REQUEST_FILE
from libs.storage.artifacts import LocalArtifact
from orchestration.failures import STEP_RETRIES, failures_explained
from orchestration.partitions import ANIMATION_REQUESTS
from orchestration.storage.metadata import to_metadata

# A preview in the pinned version of Dagster; that it works on single-key runs, the only kind here, is tested.
warnings.filterwarnings("ignore", message="Specifying a partitions_def on an AssetCheckSpec")

_ASSET = "animation"
_WITH_MEDIA = {"request_media": dg.AssetIn("request_media")}
_WITH_REQUEST = {**_WITH_MEDIA, "animation_request": dg.AssetIn("animation_request")}


@dg.asset_check(asset=_ASSET, additional_ins=_WITH_MEDIA, partitions_def=ANIMATION_REQUESTS, retry_policy=STEP_RETRIES)
def frame_count_is_the_drivers(animation: LocalArtifact, request_media: LocalArtifact) -> dg.AssetCheckResult:
    """The clip has exactly the driver's frames (every frame-interval-th)."""
    from libs.media.video.probe import probe_video  # noqa: PLC0415 - loads the media libraries
    from libs.stages.request.request_media import RequestMedia  # noqa: PLC0415

    with failures_explained():
        found = probe_video(animation.path(CLIP_FILE)).frame_count
        expected = RequestMedia.load(request_media.folder).used_frame_count
    return _result(found == expected, f"{found} frames, expected {expected}", {"frames": found, "expected": expected})


@dg.asset_check(asset=_ASSET, additional_ins=_WITH_MEDIA, partitions_def=ANIMATION_REQUESTS, retry_policy=STEP_RETRIES)
def duration_is_the_drivers(animation: LocalArtifact, request_media: LocalArtifact) -> dg.AssetCheckResult:
    """Rate and duration equal the driver's, as exact fractions."""
    from libs.media.video.probe import probe_video  # noqa: PLC0415
    from libs.stages.request.request_media import RequestMedia  # noqa: PLC0415

    with failures_explained():
        clip = probe_video(animation.path(CLIP_FILE))
        media = RequestMedia.load(request_media.folder)
    expected = (media.output_frame_rate, media.output_duration)
    found = (clip.frame_rate, clip.duration)
    return _result(found == expected, f"{_timing(*found)}, expected {_timing(*expected)}", {"seconds": float(found[1])})


@dg.asset_check(asset=_ASSET, partitions_def=ANIMATION_REQUESTS, retry_policy=STEP_RETRIES)
def clip_decodes_and_is_not_blank(animation: LocalArtifact) -> dg.AssetCheckResult:
    """Every frame decodes, and not every frame is one flat colour."""
    from libs.media.measurements import measure_video  # noqa: PLC0415

    measured = measure_video(animation.path(CLIP_FILE))
    if not measured.decodes_fully:
        return _result(False, measured.decode_error or "there are no frames", {"frames": measured.frame_count})
    blank = len(measured.blank_frames)
    return _result(not measured.is_blank, f"{blank} of {measured.frame_count} frames are blank", {"blank": blank})


@dg.asset_check(
    asset=_ASSET, additional_ins=_WITH_REQUEST, partitions_def=ANIMATION_REQUESTS, retry_policy=STEP_RETRIES
)
def audio_is_present_when_the_driver_has_it(
    animation: LocalArtifact, request_media: LocalArtifact, animation_request: LocalArtifact
) -> dg.AssetCheckResult:
    """The clip has sound exactly when the driver has and the request keeps it."""
    from libs.media.video.probe import probe_video  # noqa: PLC0415
    from libs.stages.request.request_media import RequestMedia  # noqa: PLC0415

    with failures_explained():
        request = ResolvedRequest.model_validate_json(animation_request.path(REQUEST_FILE).read_text())
        wanted = request.keep_audio and RequestMedia.load(request_media.folder).has_audio
        found = probe_video(animation.path(CLIP_FILE)).has_audio
    words = {True: "sound", False: "no sound"}
    return _result(found == wanted, f"{words[found]}, expected {words[wanted]}", {"sound": found})


def _timing(rate: Fraction, duration: Fraction) -> str:
    return f"{float(duration):.3f} s at {rate} frames per second"


def _result(passed: bool, description: str, metadata: dict[str, int | float | bool]) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=passed, description=description, metadata=to_metadata(metadata))


CLIP_CHECKS = [
    frame_count_is_the_drivers,
    duration_is_the_drivers,
    clip_decodes_and_is_not_blank,
    audio_is_present_when_the_driver_has_it,
]
