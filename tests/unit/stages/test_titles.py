"""What is stored of a clip keeps its keys; what people see of it has titles that may change."""

import json
from dataclasses import fields
from pathlib import Path

import pytest

from libs.errors import InputError
from libs.stages import titles
from libs.stages.clip.sampling import ClipSummary
from libs.stages.review.animation_review import ClipReview
from libs.stages.review.quality import ClipQuality
from orchestration.animations.quality_checks import THRESHOLDS, judge

STORED = {
    "pose_correct_share": 0.9,
    "pose_mean_distance": 0.05,
    "pose_found_share": 1.0,
    "flicker": 0.6,
    "flicker_maximum": 0.9,
    "colour_drift": 1.5,
    "colour_drift_per_chunk": [0.0, 1.5],
    "colour_from_reference_per_chunk": [2.0, 3.0],
    "seam": 0.4,
    "seam_per_border": [0.4],
    "sharpness": 0.8,
    "sharpness_minimum": 0.7,
    "face_share": None,
}
"""A review as it was stored before keys and titles parted."""


def stored(folder: Path, **changes: object) -> Path:
    (folder / "quality.json").write_text(json.dumps({**STORED, **changes}, indent=2))
    return folder / "quality.json"


def test_every_shown_value_has_a_unique_title() -> None:
    keys = {field.name for record in (ClipSummary, ClipReview) for field in fields(record)}
    keys |= {key for key in STORED if not key.endswith(("_per_chunk", "_per_border"))}
    assert keys == titles.TITLES.keys()
    assert len(set(titles.TITLES.values())) == len(titles.TITLES)


def test_a_title_may_change_and_what_was_stored_before_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(titles, "TITLES", {**titles.TITLES, "flicker": "flicker, levels of 255"})
    quality = ClipQuality.load(stored(tmp_path))
    assert quality.flicker == 0.6
    result = judge(THRESHOLDS["clip_does_not_flicker"], quality.numbers())
    assert result.passed
    assert result.metadata["flicker, levels of 255"].value == 0.6
    assert "flicker" not in result.metadata
    quality.save(tmp_path)
    assert json.loads((tmp_path / "quality.json").read_text()) == STORED, "what is stored has no titles"


def test_a_measure_that_an_old_review_lacks_was_not_measured(tmp_path: Path) -> None:
    path = stored(tmp_path)
    path.write_text(json.dumps({key: value for key, value in STORED.items() if key != "seam"}))
    quality = ClipQuality.load(path)
    assert quality.seam is None
    assert not judge(THRESHOLDS["chunks_join_without_a_seam"], quality.numbers()).passed


def test_keys_of_later_versions_are_passed_over_and_another_version_is_refused(tmp_path: Path) -> None:
    assert ClipQuality.load(stored(tmp_path, lip_sync=0.5)).sharpness == 0.8
    with pytest.raises(InputError, match=r"unsupported schema version 2 .*supported: 1"):
        ClipQuality.load(stored(tmp_path, schema_version=2))


@pytest.mark.parametrize("content", ["", "[]", "{", "1"])
def test_a_damaged_review_is_named_with_the_way_out(tmp_path: Path, content: str) -> None:
    (tmp_path / "quality.json").write_text(content)
    with pytest.raises(InputError, match=r"holds no quality measures .*materialize animation_review"):
        ClipQuality.load(tmp_path / "quality.json")
