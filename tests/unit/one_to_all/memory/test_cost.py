"""Counts against figures published for the full networks, and against what torch counts on a real forward."""

from dataclasses import asdict, replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from libs.model_repo.variants import get_variant
from libs.one_to_all.memory.cost import TokenGrid, block_bytes, pass_bytes, pass_cost, step_flops, weight_bytes
from libs.one_to_all.network import OneToAllTransformer3DModel
from libs.one_to_all.sampling.guidance import plan_guidance

NETWORK_14B = get_variant("14b").network


@pytest.mark.parametrize(("height", "width", "petaflop"), [(480, 832, 1.90), (576, 768, 2.23), (576, 1024, 3.54)])
def test_a_pass_of_the_14b_network(height, width, petaflop):
    cost = pass_cost(NETWORK_14B, TokenGrid.of(height, width, 81))
    assert cost.total / 1e15 == pytest.approx(petaflop, rel=0.02)


def test_a_grid_counts_the_tokens_of_4k_plus_1_frames():
    grid = TokenGrid.of(480, 832, 81)
    assert (grid.tokens, grid.per_frame, grid.frame_count) == (34320, 1560, 81)
    with pytest.raises(ValueError, match="4k"):
        TokenGrid.of(480, 832, 80)


@pytest.mark.parametrize(
    "changes", [{}, {"num_control_layers": 2, "num_reference_layers": 3, "num_attention_heads": 2}]
)
def test_every_product_of_a_real_forward_is_counted(changes):
    network = replace(get_variant("sandbox").network, **changes)
    height, width, frames, text_tokens = 64, 48, 9, 24
    cost = pass_cost(network, TokenGrid.of(height, width, frames), text_tokens)
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        OneToAllTransformer3DModel(**asdict(network)).eval()(
            torch.empty(1, 16, (frames - 1) // 4 + 1, height // 8, width // 8),
            torch.empty(1),
            torch.empty(1, text_tokens, network.text_dim),
            torch.empty(1, 3, frames, height, width),
            torch.empty(1, 32, 1, height // 8, width // 8),
            torch.empty(1, 3, 1, height, width),
        )
    assert cost.total == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_what_passes_share_is_counted_once():
    cost = pass_cost(NETWORK_14B, TokenGrid.of(480, 832, 81))
    plain = 3 * cost.total
    ours = step_flops(cost, plan_guidance(2.0, 1.5))
    assert ours < plain
    per_pass = 3 * cost.every_pass + 2 * cost.control_branch
    assert ours == per_pass + 2 * cost.reference_features - cost.first_attention
    assert 0.5 < cost.first_attention / (cost.main_blocks / 40) < 0.8
    assert step_flops(cost, plan_guidance(1.0, 1.0)) == cost.every_pass + cost.control_branch + cost.reference_features


def test_bytes_are_those_of_the_real_modules():
    with torch.device("meta"):
        model = OneToAllTransformer3DModel(**asdict(get_variant("sandbox").network))
    network = get_variant("sandbox").network
    assert weight_bytes(network) == 2 * sum(parameter.numel() for parameter in model.parameters())
    assert 0.5 < weight_bytes(NETWORK_14B, fp8=True) / weight_bytes(NETWORK_14B) < 0.55
    for network in (NETWORK_14B, get_variant("1.3b_1").network):
        with torch.device("meta"):
            model = OneToAllTransformer3DModel(**asdict(network))
        lists = (model.blocks, model.controlnet.blocks, model.refextractor.blocks)
        one, every = block_bytes(network)
        assert one == 2 * sum(parameter.numel() for parameter in model.blocks[0].parameters())
        assert every == 2 * sum(parameter.numel() for blocks in lists for parameter in blocks.parameters())
    assert pass_bytes(NETWORK_14B, TokenGrid.of(480, 832, 81)) > weight_bytes(NETWORK_14B)
