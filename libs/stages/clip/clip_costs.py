"""What the parts of a chunk take, in denoising steps: as the last clip like this one showed, or else calculated.

    clip_costs/<model>/<device>-<width>x<height>.json     measured by the newest clip of this model, device and size

Only the time left that people are shown depends on it.
"""

import json
import re
from dataclasses import asdict, dataclass

from libs.errors import StorageError
from libs.model_repo.variants import NetworkConfig, get_variant
from libs.one_to_all.memory.cost import TokenGrid, pass_cost, step_flops
from libs.one_to_all.memory.options import ClipSize
from libs.one_to_all.sampling.chunk_plan import PREVIOUS_FRAMES
from libs.one_to_all.sampling.guidance import Guidance, plan_guidance
from libs.requests.documents.animation_request import ResolvedRequest
from libs.stages.poses.found_poses import made_by_sandbox
from libs.storage.backends.store import ObjectStore

COSTS_PREFIX = "clip_costs"

DECODING_FLOP = 8.7e6
ENCODING_FLOP = 5.2e6
"""Of the VAE, per pixel of each frame, counted on Wan's with ``torch.utils.flop_counter``; frames after the first."""

TEXT_FLOP = 2 * 2 * 5.7e9 * 512
"""Two prompts of 512 tokens through the 5.7 billion weights of the text encoder."""

SHARE_OF_CONVOLUTIONS = 1 / 3
"""How busy small convolutions keep a GPU compared with the products of the network; assumed, no GPU was at hand."""

_OF_A_NAME = re.compile(r"[^A-Za-z0-9.]+")


@dataclass(frozen=True)
class RelativeCosts:
    """What the parts of a chunk take, in denoising steps.

    Args:
        decoding: of a chunk.
        first: before the first step of the clip: prompts and pictures are encoded.
        later: before the first step of each later chunk, which encodes the end of the one before.
    """

    decoding: float
    first: float
    later: float


SANDBOX_COSTS = RelativeCosts(decoding=12.6, first=2.1, later=1.3)
"""Of the sandbox, whose steps are tiny; measured on two CPU cores, in processor time."""


def calculated_costs(network: NetworkConfig, grid: TokenGrid, guidance: Guidance) -> RelativeCosts:
    """Count what the parts of a chunk of ``grid`` compute, against a denoising step with ``guidance``.

    A long chunk of a large network has the costliest steps, so the smallest parts beside them.
    """
    step = step_flops(pass_cost(network, grid), guidance)
    pixels = 256 * grid.per_frame  # 16 x 16 pixels a token
    in_steps = 1 / (step * SHARE_OF_CONVOLUTIONS)
    return RelativeCosts(
        decoding=DECODING_FLOP * pixels * grid.frame_count * in_steps,
        first=ENCODING_FLOP * pixels * in_steps + TEXT_FLOP / step,
        later=ENCODING_FLOP * pixels * PREVIOUS_FRAMES * in_steps,
    )


def assumed_costs(request: ResolvedRequest, size: ClipSize) -> RelativeCosts:
    """What the parts of a chunk of this clip take, where no clip has shown it yet."""
    if made_by_sandbox(request.model):
        return SANDBOX_COSTS
    side, frames = 16, max(1, (size.frame_count - 1) // 4 * 4 + 1)
    height, width = (max(side, pixels // side * side) for pixels in (size.height, size.width))
    guidance = plan_guidance(
        request.image_guidance, request.pose_guidance, pose_guidance_alone=request.pose_guidance_alone
    )
    return calculated_costs(get_variant(request.model).network, TokenGrid.of(height, width, frames), guidance)


class CostHistory:
    """What the newest clip of one model, device and size measured; any number of workers share it, the last one counts.

    Args:
        objects: where it is kept.
        model: the variant's name.
        device: as the device calls itself.
        width: of the clip, in pixels.
        height: of the clip, in pixels.
    """

    def __init__(self, objects: ObjectStore, model: str, device: str, width: int, height: int) -> None:
        self._objects = objects
        self._key = f"{COSTS_PREFIX}/{model}/{_OF_A_NAME.sub('-', device)[:60]}-{width}x{height}.json"

    def load(self) -> RelativeCosts | None:
        """What was measured; None where nothing was, or it cannot be read."""
        try:
            costs = RelativeCosts(**json.loads(self._objects.get_bytes(self._key)))
            is_right = all(0 <= float(cost) < float("inf") for cost in asdict(costs).values())
        except (StorageError, ValueError, TypeError):  # a clip is made without it
            return None
        return costs if is_right else None

    def save(self, costs: RelativeCosts) -> None:
        """Keep it for the next clip.

        Raises:
            StorageError: it cannot be stored.
        """
        rounded = {name: round(cost, 3) for name, cost in asdict(costs).items()}
        self._objects.put_bytes(self._key, json.dumps(rounded).encode(), "application/json")
