"""A clip of which a check can measure nothing: the check warns and says why, and never passes."""

import pytest

from orchestration.animations.quality_checks import THRESHOLDS, judge


@pytest.mark.parametrize("name", THRESHOLDS)
def test_nothing_measured_is_never_a_pass(name: str) -> None:
    threshold = THRESHOLDS[name]
    others = {other.measure: 0.0 for other in THRESHOLDS.values() if other.measure != threshold.measure}
    for numbers in ({}, others):
        result = judge(threshold, numbers)
        assert not result.passed
        assert result.description == (
            f"nothing to measure, so nothing is known: {threshold.unmeasured}; look at the clip"
        )
    assert threshold.unmeasured
