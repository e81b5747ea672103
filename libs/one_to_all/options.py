"""Sampling options of one clip, as the engine understands them. Light: no torch.

See ``libs.model_repo.variants`` for the defaults of a model variant.
"""

import math
from dataclasses import asdict, dataclass
from typing import Any

from libs.errors import InputError
from libs.one_to_all.sampling.approximation import EXACT, Approximation
from libs.one_to_all.sampling.chunk_plan import DEFAULT_CHUNK_LENGTHS, ChunkLengths
from libs.one_to_all.sampling.guidance import IntermediatePass
from libs.one_to_all.sampling.schedule import SHIFT, TRAIN_TIMESTEPS, UNWRITTEN_SHIFT

_SEED_LIMIT = 2**63


@dataclass(frozen=True)
class SamplingOptions:
    """Options that determine a clip, beside its pictures and the network.

    Args:
        prompt: may be empty.
        negative_prompt: used while image guidance is active (above 1).
        num_inference_steps: denoising steps per chunk.
        image_guidance_scale: active above 1.
        pose_guidance_scale: active above 1; needs image guidance.
        seed: of the noise; every chunk starts from the same seed.
        conditioning_scale: strength of the pose; 0 ignores it.
        intermediate_pass: what the third pass leaves out when both guidances are active.
        unguided_pose: with image guidance alone, False keeps the pose in the pass that is guided away from.
        chunk_lengths: smaller ones need less memory.
        approximation: work to leave out.
        shift: of the noise levels towards high noise, above 0.

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

    def __post_init__(self) -> None:
        if not 1 <= self.num_inference_steps <= TRAIN_TIMESTEPS:
            raise InputError(f"num_inference_steps={self.num_inference_steps} must be between 1 and {TRAIN_TIMESTEPS}")
        for name in ("image_guidance_scale", "pose_guidance_scale", "conditioning_scale"):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0:
                raise InputError(f"{name}={value} must be a number of at least 0")
        if not (math.isfinite(self.shift) and self.shift > 0):
            raise InputError(f"shift={self.shift} must be a number above 0")
        if not 0 <= self.seed < _SEED_LIMIT:
            raise InputError(f"seed={self.seed} must be between 0 and 2**63 - 1")

    def describe(self) -> dict[str, Any]:
        """All options by name, as the digest of a chunk and the origin of a clip record them.

        The default shift is left out, as it was not recorded before; so existing chunks are found again.
        """
        described = asdict(self)
        if self.shift == UNWRITTEN_SHIFT:
            del described["shift"]
        return described
