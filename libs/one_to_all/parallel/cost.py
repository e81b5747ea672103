"""Cost of a step on several ranks: FLOPs of the busiest one, and bytes that it receives. Counted, no torch.

See ``libs.one_to_all.memory.cost`` for the cost of a pass.
"""

from libs.model_repo.variants import NetworkConfig
from libs.one_to_all.memory.cost import TokenGrid, pass_cost, step_flops
from libs.one_to_all.parallel.plan import ParallelPlan, passes_of_rank
from libs.one_to_all.sampling.guidance import Guidance

_PATCH = 4
"""Latent values of a channel in one token."""


def busiest_rank_flops(plan: ParallelPlan, network: NetworkConfig, grid: TokenGrid, guidance: Guidance) -> int:
    """Count the FLOPs of a step on the rank that has most to do.

    Reference features, and their keys and values in every main block, are whole on every rank that splits tokens.
    """
    return max(_rank_flops(plan, network, grid, row) for row in _rows(plan, guidance))


def busiest_rank_bytes(
    plan: ParallelPlan, network: NetworkConfig, grid: TokenGrid, guidance: Guidance, itemsize: int = 2
) -> int:
    """Count the bytes that a rank receives in a step, at most: velocities of other ranks' passes, tokens of its heads.

    Per self attention of the main stream query, key, value and result change hands; before, a rank has all heads of
    its tokens, after it all tokens of its heads, and the other way round for the result.
    """
    return max(_rank_bytes(plan, network, grid, guidance, row, itemsize) for row in _rows(plan, guidance))


def _rows(plan: ParallelPlan, guidance: Guidance) -> list[Guidance]:
    return [Guidance(tuple(passes_of_rank(row, plan.guidance, guidance.passes))) for row in range(plan.guidance)]


def _rank_flops(plan: ParallelPlan, network: NetworkConfig, grid: TokenGrid, local: Guidance) -> int:
    cost = pass_cost(network, grid)
    width = network.num_attention_heads * network.attention_head_dim
    whole = _pictures(local) * cost.reference_features
    whole += len(local.passes) * network.num_layers * grid.per_frame * 4 * width * width
    divided = step_flops(cost, local) - whole
    return whole + divided // plan.context


def _rank_bytes(
    plan: ParallelPlan, network: NetworkConfig, grid: TokenGrid, guidance: Guidance, local: Guidance, itemsize: int
) -> int:
    values = _PATCH * network.out_channels * grid.tokens * itemsize  # of a velocity, prefix included
    video = values // grid.frames * (grid.frames - 1)
    velocities = (len(guidance.passes) - len(local.passes)) * video
    width = network.num_attention_heads * network.attention_head_dim
    attentions = len(local.passes) * network.num_layers - (
        len(local.passes) - _pictures(local)
    )  # the first one is shared
    attentions += sum(one.conditioning_scale != 0 for one in local.passes) * network.num_control_layers
    part = grid.tokens * width * itemsize // plan.context
    exchanged = (attentions * 4 * part) * (plan.context - 1) // plan.context
    gathered = len(local.passes) * values * (plan.context - 1) // plan.context
    return velocities + exchanged + gathered


def _pictures(guidance: Guidance) -> int:
    return len({one.black_image for one in guidance.passes})
