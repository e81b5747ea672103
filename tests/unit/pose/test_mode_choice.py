from dataclasses import replace

import numpy as np
import pytest

from libs.errors import PoseError
from libs.pose.fitting.mode_choice import choose_mode


def _changed(track, joints, *, score=None, factor=None, about=1):
    body = track.body.copy()
    if score is not None:
        body[:, joints, 2] = score
    if factor is not None:
        origin = body[:, [about], :2]
        body[:, joints, :2] = origin + factor * (body[:, joints, :2] - origin)
    return replace(track, body=body)


def test_same_framing(figure):
    choice = choose_mode(figure(), figure(frames=3, scale=0.8))
    assert (choice.mode, choice.align) == ("ref", True)
    assert choice.reason.startswith("Same framing")


def test_smaller_figure(figure):
    choice = choose_mode(figure(), figure(frames=3, scale=0.4))
    assert (choice.mode, choice.align) == ("pose", False)
    assert "factor of 2.5" in choice.reason


@pytest.mark.parametrize("hidden", ["by a low score", "below the picture"])
def test_without_hips_figures_are_measured_by_their_shoulders(figure, hidden):
    def from_the_waist_up(track):
        track = _changed(track, [8, 9, 10, 11, 12, 13, 18, 19], score=0.1 if hidden == "by a low score" else None)
        body = track.body.copy()
        if hidden == "below the picture":
            body[:, [8, 9, 10, 11, 12, 13, 18, 19], 1] = 1.5
        return replace(track, body=body)

    choice = choose_mode(from_the_waist_up(figure()), from_the_waist_up(figure(frames=3, scale=0.4)))
    assert (choice.mode, choice.align) == ("pose", False)
    assert "the figures' sizes differ by a factor of 2.5" in choice.reason


def test_half_body_against_full_body(figure):
    half = _changed(figure(), [9, 10, 12, 13, 18, 19], score=0.1)
    choice = choose_mode(half, figure())
    assert (choice.mode, choice.align) == ("pose", False)
    assert "the reference shows the body to the hips, the driver the whole body" in choice.reason


def test_other_skeleton_goes_before_framing(figure):
    chibi = _changed(figure(scale=0.4), [0, 14, 15, 16, 17], factor=2.0)
    choice = choose_mode(chibi, figure())
    assert (choice.mode, choice.align) == ("ref", True)
    assert "head" in choice.reason and "2.0" in choice.reason


@pytest.mark.parametrize("score", [0.0, 0.1])
def test_nothing_measurable_still_gives_an_answer(figure, score):
    choice = choose_mode(figure(score=score), figure(score=score))
    assert choice.mode in ("ref", "pose") and choice.reason.endswith(".")


def test_reference_without_extent(figure):
    flat = figure()
    body = flat.body.copy()
    body[..., :2] = 0.5
    assert choose_mode(replace(flat, body=body), figure()).reason


def test_missing_anchor(figure):
    with pytest.raises(PoseError, match="no frame 9"):
        choose_mode(figure(), figure(frames=3), anchor=9)


def test_reason_is_one_sentence(figure):
    for scale in np.linspace(0.2, 1.0, 5):
        reason = choose_mode(figure(), figure(scale=float(scale))).reason
        assert reason.endswith(".") and "\n" not in reason
