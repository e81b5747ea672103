"""Quality of a clip as warnings and numbers; and provenance, from a run to ``one-to-all trace``."""

import json
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from libs.stages.review.quality import ClipQuality
from orchestration.animations.quality_checks import THRESHOLDS, judge
from orchestration.storage.metadata import to_metadata
from tests.integration.orchestration.small_requests import metadata_of, submit_small, write_small_media


@pytest.mark.slow
def test_a_clip_gets_numbers_and_at_most_warnings(world: Any, tmp_path: Path) -> None:
    submit_small(world, write_small_media(tmp_path / "media", 9, audio=False), "puppet")
    result = world.animate("puppet")

    assert result.success
    quality = ClipQuality.load(world.artifact("animation_review", "puppet").path("quality.json"))
    checks = {
        check.check_name: check
        for check in result.get_asset_check_evaluations()
        if check.asset_key == dg.AssetKey("animation_review")
    }
    assert set(checks) == set(THRESHOLDS)
    numbers = to_metadata(quality.numbers())
    for name, check in checks.items():
        assert check.severity == dg.AssetCheckSeverity.WARN
        value = numbers.get(THRESHOLDS[name].measure)
        if value is not None:
            assert check.metadata[THRESHOLDS[name].measure].value == value
            assert isinstance(check.metadata[THRESHOLDS[name].measure], dg.FloatMetadataValue)
    shown = metadata_of(world, "animation_review", "puppet")
    assert {name: shown[name] for name in numbers} == numbers
    assert shown["seconds of measuring"] > 0
    assert quality.pose_correct_share is not None
    assert len(quality.colour_drift_per_chunk) == 1


@pytest.mark.parametrize("name", list(THRESHOLDS))
def test_each_check_warns_beyond_its_threshold_only(name: str) -> None:
    threshold = THRESHOLDS[name]
    limit = threshold.least if threshold.least is not None else threshold.most
    assert limit is not None
    worse = limit * (0.9 if threshold.least is not None else 1.1)
    assert judge(threshold, {threshold.measure: limit}).passed
    warned = judge(threshold, {threshold.measure: worse})
    assert not warned.passed
    assert warned.severity == dg.AssetCheckSeverity.WARN
    assert threshold.words in str(warned.description)
    unmeasured = judge(threshold, {})
    assert not unmeasured.passed, "nothing found is no pass"
    assert unmeasured.severity == dg.AssetCheckSeverity.WARN
    assert threshold.unmeasured in str(unmeasured.description)
    assert not judge(threshold, {threshold.measure: float("nan")}).passed


def test_thresholds_name_measures_that_exist() -> None:
    fields = set(ClipQuality.__dataclass_fields__)
    for threshold in THRESHOLDS.values():
        assert {threshold.measure, *threshold.shown} <= fields
        assert (threshold.least is None) != (threshold.most is None)
        json.dumps(threshold.description)
