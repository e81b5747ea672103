"""Guidance: which passes a denoising step makes, and how their velocities become one. Light: no torch.

See ``denoise`` for running the passes.

Source: docs/specification.md#guidance-passes. Sums are evaluated left to right and the factors stay Python floats, so
that in bfloat16 every operation rounds where the reference rounds.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeVar

IntermediatePass = Literal["without_image", "without_pose"]
PassName = Literal["conditional", "unconditional", "intermediate", "image_only"]
Velocity = TypeVar("Velocity")


@dataclass(frozen=True)
class GuidancePass:
    """One pass through the network: which of its two values each condition has."""

    name: PassName
    negative_prompt: bool = False
    black_image: bool = False
    black_pose: bool = False
    conditioning_scale: float = 1.0


@dataclass(frozen=True)
class Guidance:
    """The passes of every step in call order, and how their velocities are combined.

    Attributes:
        passes: in call order.
        terms: (factor, a, b): add ``factor * (a - b)`` of the velocities of passes a and b.
        base: the pass whose velocity the sum starts from.
    """

    passes: tuple[GuidancePass, ...]
    terms: tuple[tuple[float, PassName, PassName], ...] = ()
    base: PassName = "conditional"

    @property
    def uses_negative_prompt(self) -> bool:
        """Whether a pass needs the embeddings of the negative prompt."""
        return any(one.negative_prompt for one in self.passes)

    def unguided(self) -> "Guidance":
        """Guidance that makes the conditional pass only."""
        return Guidance(tuple(one for one in self.passes if one.name == "conditional"))

    def combine(self, velocities: "Mapping[PassName, Velocity]") -> "Velocity":
        """Combine the velocities of the passes (tensors of one shape) into one."""
        total = velocities[self.base]
        for factor, a, b in self.terms:
            total = total + factor * (velocities[a] - velocities[b])  # type: ignore[operator]
        return total


def plan_guidance(
    image_guidance_scale: float,
    pose_guidance_scale: float,
    conditioning_scale: float = 1.0,
    intermediate_pass: IntermediatePass = "without_image",
    unguided_pose: bool = True,
    pose_guidance_alone: bool = False,
) -> Guidance:
    """Choose passes and factors: the row of the specification's table that these options mean.

    Args:
        image_guidance_scale: active above 1.
        pose_guidance_scale: active above 1, and only together with image guidance or ``pose_guidance_alone``.
        conditioning_scale: strength of the pose in the passes that have one.
        intermediate_pass: what the third pass leaves out when both are active ("case1" in the specification is
            ``without_pose``).
        unguided_pose: with image guidance alone, take the pose out of the second pass, too ("black pose on").
            A pose guidance above 0 forces it.
        pose_guidance_alone: where image guidance is off, guide away from the same pass without the pose: two passes,
            of which the reference implementation has no row.
    """
    conditional = GuidancePass("conditional", conditioning_scale=conditioning_scale)
    if image_guidance_scale <= 1 < pose_guidance_scale and pose_guidance_alone:
        without_pose = GuidancePass("intermediate", black_pose=True, conditioning_scale=conditioning_scale)
        terms: tuple[tuple[float, PassName, PassName], ...] = ((pose_guidance_scale, "conditional", "intermediate"),)
        return Guidance((conditional, without_pose), terms, base="intermediate")
    if image_guidance_scale <= 1:
        return Guidance((conditional,))

    unconditional = GuidancePass(
        "unconditional", negative_prompt=True, black_image=True, black_pose=True, conditioning_scale=0.0
    )
    if pose_guidance_scale > 1:
        without_image = intermediate_pass == "without_image"
        intermediate = GuidancePass(
            "intermediate",
            black_image=without_image,
            black_pose=not without_image,
            conditioning_scale=conditioning_scale,
        )
        first, second = pose_guidance_scale, image_guidance_scale
        if not without_image:
            first, second = second, first
        return Guidance(
            (conditional, unconditional, intermediate),
            ((first, "intermediate", "unconditional"), (second, "conditional", "intermediate")),
            base="unconditional",
        )

    if unguided_pose or pose_guidance_scale > 0:
        other = unconditional
    else:
        other = GuidancePass(
            "image_only", negative_prompt=True, black_image=True, conditioning_scale=conditioning_scale
        )
    return Guidance((conditional, other), ((image_guidance_scale, "conditional", other.name),), base=other.name)
