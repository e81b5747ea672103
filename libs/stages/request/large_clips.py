"""What a clip above its model's usual size takes, calculated: said before it is made."""

from collections.abc import Iterable

from libs.model_repo.variants import get_variant
from libs.one_to_all.memory.cost import TokenGrid, pass_cost, step_flops
from libs.one_to_all.memory.estimates import decoding_bytes, sampling_bytes
from libs.one_to_all.sampling.chunk_plan import DEFAULT_CHUNK_LENGTHS
from libs.one_to_all.sampling.guidance import plan_guidance
from libs.requests.documents.animation_request import AnimationRequest, ResolvedRequest

_GB = 10**9


def large_clip_notes(requests: Iterable[AnimationRequest], default_model: str) -> list[str]:
    """A line for each of ``requests`` that allows a large clip and names its size; the others are known in the run."""
    resolved = (request.resolve(default_model) for request in requests if request.allow_large and request.size)
    found = (large_clip_note(request, request.size.height, request.size.width) for request in resolved if request.size)
    return list(dict.fromkeys(note for note in found if note))


def large_clip_note(request: ResolvedRequest, height: int, width: int) -> str | None:
    """Time and memory of a clip of ``height`` x ``width`` before limits; None where it is no larger than usual."""
    if not request.allow_large:
        return None
    from libs.pose.fitting.framing import target_size  # noqa: PLC0415 - loads numba

    variant = get_variant(request.model)
    usual = target_size(height, width, variant.short_side_limit(allow_large=False))
    large = target_size(height, width, variant.short_side_limit(allow_large=True))
    if (large.height, large.width) == (usual.height, usual.width):
        return None
    grids = [TokenGrid.of(size.height, size.width, DEFAULT_CHUNK_LENGTHS.main) for size in (usual, large)]
    guidance = plan_guidance(
        request.image_guidance, request.pose_guidance, pose_guidance_alone=request.pose_guidance_alone
    )
    before, after = (step_flops(pass_cost(variant.network, grid), guidance) for grid in grids)
    memory = [max(sampling_bytes(variant.network, grid), decoding_bytes(grid, tiled=True)) / _GB for grid in grids]
    return (
        f"{large.width}x{large.height} is larger than {usual.width}x{usual.height}, to which {variant.name} is limited "
        f"otherwise: a chunk of {DEFAULT_CHUNK_LENGTHS.main} frames takes about {after / before:.1f} times as long and "
        f"{memory[1]:.1f} instead of {memory[0]:.1f} GB of memory beside the weights (calculated)"
    )
