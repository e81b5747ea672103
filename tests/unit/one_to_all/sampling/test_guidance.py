"""Which passes are made, and how they are joined."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from libs.one_to_all.sampling.guidance import plan_guidance

SCALES = st.floats(0, 20, allow_nan=False)


def _names(guidance):
    return [one.name for one in guidance.passes]


@given(SCALES, SCALES, st.floats(0, 2), st.booleans(), st.booleans())
def test_every_plan_is_sound(image, pose, strength, without_pose, unguided_pose):
    guidance = plan_guidance(image, pose, strength, "without_pose" if without_pose else "without_image", unguided_pose)
    names = _names(guidance)
    assert names[0] == "conditional"
    assert len(set(names)) == len(names)
    assert {guidance.base, *(name for term in guidance.terms for name in term[1:])} == set(names)
    # guidance moves velocities, it does not scale them: equal velocities stay as they are
    assert guidance.combine(dict.fromkeys(names, torch.tensor(3.0))) == 3.0
    unconditional = next((one for one in guidance.passes if one.name == "unconditional"), None)
    assert unconditional is None or unconditional.conditioning_scale == 0
    assert guidance.uses_negative_prompt == (image > 1)


@pytest.mark.parametrize(
    ("image", "pose", "unguided_pose", "names"),
    [
        (1.0, 5.0, True, ["conditional"]),  # both limits are strict, and pose guidance needs image guidance
        (2.0, 1.0, True, ["conditional", "unconditional"]),
        (2.0, 0.0, True, ["conditional", "unconditional"]),
        (2.0, 0.0, False, ["conditional", "image_only"]),
        (2.0, 0.5, False, ["conditional", "unconditional"]),  # a pose guidance above 0 takes the pose out
        (2.0, 1.01, False, ["conditional", "unconditional", "intermediate"]),
    ],
)
def test_a_guidance_makes_the_passes_it_needs(image, pose, unguided_pose, names):
    assert _names(plan_guidance(image, pose, unguided_pose=unguided_pose)) == names


@pytest.mark.parametrize(
    ("intermediate", "expected"),
    [
        ("without_image", 1 + 1.5 * (10 - 1) + 2.0 * (100 - 10)),
        ("without_pose", 1 + 2.0 * (10 - 1) + 1.5 * (100 - 10)),
    ],
)
def test_two_guidances(intermediate, expected):
    guidance = plan_guidance(2.0, 1.5, 0.7, intermediate)
    velocities = {"conditional": 100.0, "unconditional": 1.0, "intermediate": 10.0}
    assert guidance.combine(velocities) == expected
    middle = guidance.passes[2]
    assert (middle.black_image, middle.black_pose) == (
        intermediate == "without_image",
        intermediate == "without_pose",
    )
    assert not middle.negative_prompt
    assert middle.conditioning_scale == 0.7


def test_bfloat16_rounds_after_every_operation():
    """Factors stay unrounded (1.7 is no bfloat16 number), every sum and product is rounded."""
    c, u, m = (torch.randn(64, generator=torch.Generator().manual_seed(n)).bfloat16() for n in range(3))

    def rounded(value):
        return value.bfloat16().float()

    first = rounded(1.3 * rounded(m.float() - u.float()))
    second = rounded(1.7 * rounded(c.float() - m.float()))
    expected = rounded(rounded(u.float() + first) + second)
    guidance = plan_guidance(1.7, 1.3)
    combined = guidance.combine({"conditional": c, "unconditional": u, "intermediate": m})
    assert combined.dtype == torch.bfloat16
    assert torch.equal(combined.float(), expected)


def test_pose_guidance_alone_makes_two_passes():
    guidance = plan_guidance(1.0, 1.5, 0.7, pose_guidance_alone=True)
    conditional, without_pose = guidance.passes
    assert not (conditional.black_pose or conditional.black_image or guidance.uses_negative_prompt)
    assert (without_pose.black_pose, without_pose.black_image, without_pose.conditioning_scale) == (True, False, 0.7)
    assert guidance.combine({"conditional": 10.0, "intermediate": 1.0}) == 1 + 1.5 * (10 - 1)
    assert _names(guidance.unguided()) == ["conditional"]
    assert plan_guidance(1.0, 1.0, pose_guidance_alone=True) == plan_guidance(1.0, 1.0)
    assert plan_guidance(2.0, 1.5, pose_guidance_alone=True) == plan_guidance(2.0, 1.5)
