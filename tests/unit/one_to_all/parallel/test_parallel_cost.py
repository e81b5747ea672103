"""What plans gain and what they send, counted."""

import pytest

from libs.model_repo.variants import get_variant
from libs.one_to_all.memory.cost import TokenGrid, pass_cost, step_flops
from libs.one_to_all.parallel.cost import busiest_rank_bytes, busiest_rank_flops
from libs.one_to_all.parallel.plan import ONE_PROCESS, ParallelPlan
from libs.one_to_all.sampling.guidance import plan_guidance

NETWORK = get_variant("14b").network
GRID = TokenGrid.of(480, 832, 81)
THREE, TWO, ONE = plan_guidance(2.0, 1.5), plan_guidance(2.0, 0.0), plan_guidance(1.0, 0.0)


def gain(plan: ParallelPlan, guidance=THREE) -> float:
    return step_flops(pass_cost(NETWORK, GRID), guidance) / busiest_rank_flops(plan, NETWORK, GRID, guidance)


def test_one_process_does_everything_and_receives_nothing():
    assert gain(ONE_PROCESS) == 1
    assert busiest_rank_bytes(ONE_PROCESS, NETWORK, GRID, THREE) == 0


@pytest.mark.parametrize(
    ("plan", "guidance", "expected"),
    [
        (ParallelPlan(guidance=3), THREE, 2.96),
        (ParallelPlan(guidance=2), THREE, 1.51),
        (ParallelPlan(guidance=3), TWO, 1.98),
        (ParallelPlan(guidance=3), ONE, 1.0),
        (ParallelPlan(context=2), THREE, 1.99),
        (ParallelPlan(context=8), THREE, 7.69),
        (ParallelPlan(guidance=3, context=2), THREE, 5.87),
    ],
)
def test_gains_are_a_little_below_the_number_of_ranks(plan, guidance, expected):
    assert gain(plan, guidance) == pytest.approx(expected, rel=0.005)


def test_velocities_are_all_that_shared_passes_send():
    latents = 16 * 21 * 60 * 104 * 2
    assert busiest_rank_bytes(ParallelPlan(guidance=3), NETWORK, GRID, THREE) == 2 * latents
    assert busiest_rank_bytes(ParallelPlan(guidance=2), NETWORK, GRID, THREE) == 2 * latents


def test_shared_tokens_send_four_streams_per_attention():
    stream = 34_320 * 5120 * 2
    # 40 blocks in each pass, of which one is shared; the control block in two of them
    attentions = 3 * 40 - 1 + 2
    sent = busiest_rank_bytes(ParallelPlan(context=2), NETWORK, GRID, THREE)
    assert sent == pytest.approx(attentions * 4 * stream / 2 / 2, rel=0.001)
    assert busiest_rank_bytes(ParallelPlan(context=8), NETWORK, GRID, THREE) < sent / 2
