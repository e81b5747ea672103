"""Asset checks of a clip's quality: warnings that ask a person to look, and numbers that plot over time.

The measures are those of ``animation_review``. Filmed dances have flicker of 0.6 to 0.7 levels, drift of 1 to 2 units,
no "seam" above 1 level, and 0.7 to 1 of their first frame's sharpness; the thresholds leave room above that, and are
the one thing to adjust here. See ``libs.quality`` for measuring, ``clip_checks`` for what makes a clip wrong,
``libs.stages.titles`` for what a chart is called.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import dagster as dg

from libs.stages.titles import titled
from libs.storage.artifacts import LocalArtifact
from orchestration.failures import STEP_RETRIES, failures_explained
from orchestration.partitions import ANIMATION_REQUESTS
from orchestration.storage.metadata import to_metadata

_ASSET = "animation_review"


@dataclass(frozen=True)
class Threshold:
    """What a measure (a field of ``libs.stages.review.quality.ClipQuality``) should be.

    ``unmeasured`` says why there may be no measure. ``shown`` are further measures for the chart. Exactly one of
    ``least`` and ``most`` is set.
    """

    description: str
    measure: str
    unit: str
    unmeasured: str
    shown: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None

    def accepts(self, value: float) -> bool:
        """True if no person needs to check the clip."""
        return (self.least is None or value >= self.least) and (self.most is None or value <= self.most)

    @property
    def words(self) -> str:
        """The limit, for a person."""
        return f"at least {self.least:g}" if self.least is not None else f"at most {self.most:g}"


THRESHOLDS: Mapping[str, Threshold] = {
    "poses_are_those_asked_for": Threshold(
        "Joints found again in the clip lie where they were asked for, within a tenth of the trunk (PCK at 0.1).",
        "pose_correct_share",
        "of the joints",
        "the driver shows no joints, or only such as lie outside the clip",
        shown=("pose_mean_distance", "pose_found_share"),
        least=0.8,
    ),
    "clip_does_not_flicker": Threshold(
        "Pixels do not pulse, motion taken out.",
        "flicker",
        "levels of 255",
        "the clip has fewer than three frames, or its motion cannot be followed",
        shown=("flicker_maximum",),
        most=2.0,
    ),
    "colours_do_not_drift": Threshold(
        "No chunk's mean colour is far from the first chunk's.",
        "colour_drift",
        "CIELAB units",
        "no chunk has a frame",
        most=5.0,
    ),
    "chunks_join_without_a_seam": Threshold(
        "Frames do not jump where chunks meet, more than beside it.",
        "seam",
        "levels of 255",
        "no border between chunks could be compared",
        most=3.0,
    ),
    "clip_is_as_sharp_as_the_reference": Threshold(
        "Fine detail, compared with the reference picture at the clip's size.",
        "sharpness",
        "of the reference's",
        "the reference picture has no detail at all",
        shown=("sharpness_minimum",),
        least=0.3,
    ),
    "faces_are_where_the_driver_has_one": Threshold(
        "Frames with a face, among those whose driver has one.",
        "face_share",
        "of the frames",
        "no frame of the driver shows a face",
        least=0.9,
    ),
}


def _check(name: str, threshold: Threshold) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=_ASSET,
        name=name,
        description=threshold.description,
        partitions_def=ANIMATION_REQUESTS,
        blocking=False,
        retry_policy=STEP_RETRIES,
    )
    def check(animation_review: LocalArtifact) -> dg.AssetCheckResult:
        from libs.stages.review.quality import QUALITY_FILE, ClipQuality  # noqa: PLC0415 - loads the media libraries

        with failures_explained():
            numbers = ClipQuality.load(animation_review.path(QUALITY_FILE)).numbers()
        return judge(threshold, numbers)

    return check


def judge(threshold: Threshold, numbers: Mapping[str, float]) -> dg.AssetCheckResult:
    """A warning where a measure is beyond its threshold, or where there is nothing to measure: that is no pass."""
    value = numbers.get(threshold.measure)
    shown = titled({key: numbers[key] for key in (threshold.measure, *threshold.shown) if key in numbers})
    limit = threshold.least if threshold.least is not None else threshold.most
    if value is None:
        description = f"nothing to measure, so nothing is known: {threshold.unmeasured}; look at the clip"
    else:
        description = f"{value:.3g} {threshold.unit}, expected {threshold.words}"
    return dg.AssetCheckResult(
        passed=value is not None and threshold.accepts(value),
        severity=dg.AssetCheckSeverity.WARN,
        description=description,
        metadata=to_metadata({**shown, "threshold": limit or 0.0}),
    )


QUALITY_CHECKS = [_check(name, threshold) for name, threshold in THRESHOLDS.items()]
