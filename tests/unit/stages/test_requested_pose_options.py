"""What the pose stage reads of a request, also of one stored before a field existed."""

import json
from pathlib import Path
from typing import Any

import pytest

from libs.requests.documents.animation_request import POSE_OPTION_FIELDS, AnimationRequest
from libs.stages.poses.pose_conditioning import RequestedPoseOptions


@pytest.mark.parametrize("fields", [{}, {"anchor": 0}, {"anchor": 7}, {"anchor": "auto"}])
def test_the_anchor_is_handed_on(fields: dict[str, Any], tmp_path: Path) -> None:
    request = AnimationRequest(id="a", reference="a.png", driver="a.mp4", **fields).resolve("sandbox")
    path = tmp_path / "options.json"
    path.write_text(json.dumps(request.model_dump(include=POSE_OPTION_FIELDS)))
    assert ("anchor" in json.loads(path.read_text())) == bool(fields), "the default is left out, as it was at first"
    assert RequestedPoseOptions.load(path).anchor == fields.get("anchor", "first")
