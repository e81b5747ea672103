"""Sampling options of one clip, as the engine understands them. Light: no torch.

See ``libs.model_repo.variants`` for the defaults of a model variant.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from types import MappingProxyType
from typing import Any

from libs.errors import InputError
from libs.one_to_all.sampling.approximation import EXACT, Approximation
from libs.one_to_all.sampling.chunk_plan import DEFAULT_CHUNK_LENGTHS, ChunkLengths
from libs.one_to_all.sampling.guidance import IntermediatePass
from libs.one_to_all.sampling.schedule import (
    SHIFT,
    TRAIN_TIMESTEPS,
    UNWRITTEN_SHIFT,
    SamplerName,
    Schedule,
    check_schedule,
)

_SEED_LIMIT = 2**63

_UNWRITTEN: Mapping[str, Any] = MappingProxyType(
    {
        "shift": UNWRITTEN_SHIFT,
        "schedule": "default",
        "sampler": "euler",
        "pose_guidance_alone": False,
        "match_colours": False,
    }
)
"""Options that names of chunks and origins of clips leave out at these values: those of all clips from before there was
a choice. They never change, so that no chunk is taken over that was made otherwise."""


@dataclass(frozen=True)
class SamplingOptions:
    """Options that determine a clip, beside its pictures and the network.

    Args:
        prompt: may be empty.
        negative_prompt: used while image guidance is active (above 1).
        num_inference_steps: denoising steps per chunk.
        image_guidance_scale: active above 1.
        pose_guidance_scale: active above 1; needs image guidance, or ``pose_guidance_alone``.
        seed: of the noise; every chunk starts from the same seed.
        conditioning_scale: strength of the pose; 0 ignores it.
        intermediate_pass: what the third pass leaves out when both guidances are active.
        unguided_pose: with image guidance alone, False keeps the pose in the pass that is guided away from.
        chunk_lengths: smaller ones need less memory.
        approximation: work to leave out.
        shift: of the noise levels towards high noise, above 0.
        schedule: of the noise levels, by name or as one sigma for each step.
        sampler: how latents step from one noise level to the next.
        pose_guidance_alone: pose guidance acts although image guidance does not.
        match_colours: the colours of later chunks are brought to those of the first.

    Raises:
        InputError: names the option and what is expected.
    """

    prompt: str
    negative_prompt: str
    num_inference_steps: int
    image_guidance_scale: float
    pose_guidance_scale: float
    seed: int = 42
    conditioning_scale: float = 1.0
    intermediate_pass: IntermediatePass = "without_image"
    unguided_pose: bool = True
    chunk_lengths: ChunkLengths = DEFAULT_CHUNK_LENGTHS
    approximation: Approximation = EXACT
    shift: float = SHIFT
    schedule: Schedule = "default"
    sampler: SamplerName = "euler"
    pose_guidance_alone: bool = False
    match_colours: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.num_inference_steps <= TRAIN_TIMESTEPS:
            raise InputError(f"num_inference_steps={self.num_inference_steps} must be between 1 and {TRAIN_TIMESTEPS}")
        for name in ("image_guidance_scale", "pose_guidance_scale", "conditioning_scale"):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0:
                raise InputError(f"{name}={value} must be a number of at least 0")
        if not (math.isfinite(self.shift) and self.shift > 0):
            raise InputError(f"shift={self.shift} must be a number above 0")
        check_schedule(self.schedule, self.num_inference_steps, self.shift)
        if self.pose_guidance_alone and not self.image_guidance_scale <= 1 < self.pose_guidance_scale:
            raise InputError(
                f"pose_guidance_alone needs image guidance of at most 1 (found {self.image_guidance_scale:g}) and pose "
                f"guidance above 1 (found {self.pose_guidance_scale:g})"
            )
        if not 0 <= self.seed < _SEED_LIMIT:
            raise InputError(f"seed={self.seed} must be between 0 and 2**63 - 1")

    def describe(self) -> dict[str, Any]:
        """All options by name, as the digest of a chunk and the origin of a clip record them.

        Options that earlier versions did not record are left out at their values of then; so existing chunks are found.
        """
        described, unwritten = asdict(self), list(_UNWRITTEN.items())
        if not isinstance(self.schedule, str):
            described["schedule"] = list(self.schedule)
        return {name: value for name, value in described.items() if (name, value) not in unwritten}
