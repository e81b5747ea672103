"""A clip above its model's usual size: only on request, and with its price."""

import json
from typing import Any

import pytest

from libs.model_repo.variants import VARIANTS
from libs.requests.documents.animation_request import POSE_OPTION_FIELDS, ResolvedRequest, validate_request_fields
from libs.stages.poses.pose_conditioning import RequestedPoseOptions
from libs.stages.request.large_clips import large_clip_note, large_clip_notes

REQUEST = {"id": "dance", "reference": "a.png", "driver": "b.mp4", "model": "14b"}


def resolved(**fields: Any) -> ResolvedRequest:
    return validate_request_fields({**REQUEST, **fields}, source="dance.yaml").resolve("14b")


def test_the_limit_is_raised_by_a_quarter() -> None:
    limits = {name: VARIANTS[name].short_side_limit(allow_large=True) for name in ("14b", "1.3b_1", "sandbox")}
    assert limits == {"14b": 720, "1.3b_1": 480, "sandbox": 160}


@pytest.mark.parametrize("allowed", [False, True])
def test_only_a_request_that_allows_it_says_so_in_its_pose_options(allowed: bool) -> None:
    """Requests from before there was a choice keep the digest of theirs."""
    options = resolved(allow_large=allowed).model_dump(include=POSE_OPTION_FIELDS)
    assert ("allow_large" in options) == allowed
    assert RequestedPoseOptions.model_validate_json(json.dumps(options)).allow_large == allowed


def test_time_and_memory_are_said_before() -> None:
    note = large_clip_note(resolved(allow_large=True), 720, 1280)
    assert note is not None
    assert note.startswith("1280x720 is larger than 1024x576, to which 14b is limited otherwise: a chunk of 81 frames")
    assert "times as long" in note and "GB of memory beside the weights (calculated)" in note


def test_a_clip_of_usual_size_has_no_note() -> None:
    assert large_clip_note(resolved(allow_large=True), 480, 832) is None
    assert large_clip_note(resolved(), 720, 1280) is None


def test_submit_notes_requests_that_name_a_size() -> None:
    size = {"height": 720, "width": 1280}
    requests = [resolved(), resolved(allow_large=True), resolved(allow_large=True, size=size)]
    assert len(large_clip_notes(requests, "14b")) == 1
