"""Presets and the fields that they fill in."""

import re
from typing import Any, get_args

import pytest

from libs.errors import InputError
from libs.requests.documents.animation_request import ResolvedRequest, validate_request_fields
from libs.requests.documents.presets import PRESETS, PresetName
from libs.settings import REPOSITORY_ROOT

REQUEST = {"id": "dance", "reference": "a.png", "driver": "b.mp4", "model": "14b"}


def resolved(**fields: Any) -> ResolvedRequest:
    request = validate_request_fields({**REQUEST, **fields}, source="dance.yaml").resolve("14b")
    assert ResolvedRequest.model_validate_json(request.model_dump_json()) == request, "as it is stored"
    assert request.resolve("14b") == request
    return request


def test_a_preset_means_the_fields_it_stands_for() -> None:
    spelled_out = {
        "lora": "step-distill",
        "steps": 8,
        "schedule": "linear",
        "shift": 7,
        "image_guidance": 1,
        "pose_guidance": 1.5,
        "pose_guidance_alone": True,
    }
    assert resolved(preset="fast-8-pose") == resolved(**spelled_out)


def test_what_the_request_says_wins() -> None:
    request = resolved(preset="fast-8", steps=6, lora="mine", pose_guidance=1.2)
    assert (request.steps, request.lora, request.pose_guidance, request.schedule) == (6, "mine", 1.2, "linear")
    assert resolved(preset="fast-6", lora_strength=0.5).lora_strength == 0.5


def test_a_schedule_that_fixes_its_steps_wins_with_them() -> None:
    distilled = resolved(preset="fast-8", schedule="distilled")
    assert (distilled.steps, distilled.shift) == (4, 5.0)
    listed = resolved(preset="fast-4", schedule=[1, 0.5, 0])
    assert (listed.steps, listed.schedule, listed.shift) == (2, [1.0, 0.5], 7.0)


def test_the_sandbox_gets_no_lora_from_a_preset() -> None:
    assert resolved(preset="fast-4", model="sandbox").lora is None
    assert resolved(preset="fast-4", model="sandbox-fp8").lora is None
    assert resolved(preset="fast-4", model="sandbox", lora="look").lora == "look"


def test_a_request_without_these_fields_is_stored_as_before() -> None:
    stored = resolved().clip_fields()
    assert not stored.keys() & {"preset", "schedule", "shift", "sampler", "pose_guidance_alone"}
    assert resolved(schedule="default", shift=7, sampler="euler", pose_guidance_alone=False).clip_fields() == stored


def test_pose_guidance_alone_switches_image_guidance_off() -> None:
    request = resolved(pose_guidance_alone=True)
    assert (request.image_guidance, request.pose_guidance) == (1.0, 1.5)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"preset": "fast"}, "preset: must be 'fast-4', "),
        ({"preset": "fast-4", "steps": 6}, "schedule distilled has 4 steps and shift 5, not 6 steps"),
        ({"schedule": "karras"}, "schedule: must be default, linear, distilled, or a list of sigmas"),
        ({"schedule": [1, True]}, "schedule: must be default, linear, distilled, or a list of sigmas"),
        ({"schedule": [0.5, 1]}, "schedule: must have descending sigmas"),
        ({"schedule": [0]}, "schedule: must have at least one sigma"),
        ({"schedule": [1 - index / 300 for index in range(250)]}, "schedule: may have at most 200 sigmas"),
        ({"schedule": [1, 0.5], "steps": 3}, "schedule has 2 sigmas for 3 steps"),
        ({"schedule": [1, 0.5], "shift": 5}, "shift: a schedule that lists its sigmas has none; leave it out"),
        ({"shift": 0}, "shift: must be at least 0.1"),
        ({"sampler": "heun"}, "sampler: must be 'euler' or 'unipc'"),
        (
            {"pose_guidance_alone": True, "image_guidance": 2},
            "pose_guidance_alone: needs an image_guidance of at most 1",
        ),
        ({"pose_guidance_alone": True, "pose_guidance": 1}, "pose_guidance_alone: needs a pose_guidance above 1"),
    ],
)
def test_fields_that_do_not_agree_are_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(f"dance.yaml: {message}")):
        resolved(**fields)


def test_every_preset_is_documented_with_its_values() -> None:
    page = (REPOSITORY_ROOT / "docs/few-steps.md").read_text()
    assert set(PRESETS) == set(get_args(PresetName))
    for name, preset in PRESETS.items():
        row = re.search(rf"^\| `{name}` \|(.*)$", page, re.MULTILINE)
        assert row, name
        cells = [cell.strip() for cell in row.group(1).split("|")]
        pose = f"{preset.pose_guidance:g}" + (", alone" if preset.pose_guidance_alone else "")
        passes = preset.steps * (2 if preset.pose_guidance_alone else 1)
        assert cells[:6] == [
            str(preset.steps),
            f"`{preset.schedule}`",
            f"{preset.shift:g}",
            f"{preset.image_guidance:g}",
            pose,
            str(passes),
        ]
