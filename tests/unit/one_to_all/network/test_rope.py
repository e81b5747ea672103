"""Rotary embedding at every position the table has: float32 against float64, full against spatial-only."""

import pytest
import torch

from libs.one_to_all.network.attention import BlockSizes
from libs.one_to_all.network.blocks import OneToAllSelfAttentionBlock, OneToAllTransformerBlock, PassConditions
from libs.one_to_all.network.modulation import TimeModulation
from libs.one_to_all.network.rope import OneToAllRotaryPosEmbed, rotate, rotate_spatial, spatial_from_full

CPU = torch.device("cpu")
LENGTH = 1024
SIZES = BlockSizes(dim=128, ffn_dim=64, heads=1, temporal_dim=44, eps=1e-6)


def _factors(rope: OneToAllRotaryPosEmbed, frames: int, height: int, width: int) -> torch.Tensor:
    return torch.view_as_real(rope.table(frames, height, width, CPU))


def _complex_table(frames: int, height: int, width: int) -> torch.Tensor:
    """The specification's table, word for word: complex128 [tokens, 64]."""
    factors = []
    for axis, dim in ((0, 44), (1, 42), (2, 42)):
        frequencies = 1.0 / torch.pow(10000.0, torch.arange(0, dim, 2, dtype=torch.float64) / dim)
        position = torch.cartesian_prod(*(torch.arange(n, dtype=torch.float64) for n in (frames, height, width)))
        angle = position.view(-1, 3)[:, axis : axis + 1] * frequencies
        factors.append(torch.polar(torch.ones_like(angle), angle))
    return torch.cat(factors, dim=1)


def _rotate_in_float64(states: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
    pairs = torch.view_as_complex(states.double().unflatten(-1, (-1, 2)))
    return torch.view_as_real(pairs * table[None, :, None]).flatten(-2)


@pytest.mark.parametrize("grid", [(LENGTH, 1, 1), (1, LENGTH, 1), (1, 1, LENGTH), (22, 7, 11)])
def test_float32_is_as_exact_as_float64_at_every_position(grid):
    rope = OneToAllRotaryPosEmbed(128, LENGTH)
    states = torch.randn(1, grid[0] * grid[1] * grid[2], 2, 128, generator=torch.Generator().manual_seed(0))
    expected = _rotate_in_float64(states, _complex_table(*grid))
    rotated = rotate(states, _factors(rope, *grid))
    # a few float32 roundings of numbers of size 1; an angle formed in float32 would be off by 6e-5 at position 1023
    assert (rotated.double() - expected).abs().max() < 1e-6

    spatial = rotate_spatial(states, _factors(rope, *grid), rope.temporal_dim)
    assert torch.equal(spatial[..., :44], states[..., :44])
    assert (spatial[..., 44:].double() - expected[..., 44:]).abs().max() < 1e-6
    from_full = spatial_from_full(states, rotated, rope.temporal_dim)
    assert torch.equal(from_full[..., :44], states[..., :44])
    assert (from_full - spatial).abs().max() < 1e-6


def test_rotation_is_formed_in_float32_for_bfloat16_states():
    rope = OneToAllRotaryPosEmbed(128, LENGTH)
    states = torch.randn(1, LENGTH, 1, 128, generator=torch.Generator().manual_seed(1)).bfloat16()
    expected = _rotate_in_float64(states, _complex_table(LENGTH, 1, 1)).to(torch.bfloat16)
    rotated = rotate(states, _factors(rope, LENGTH, 1, 1))
    assert rotated.dtype == torch.bfloat16
    # equal but for sums that lie within float32 rounding of the middle between two bfloat16 values
    assert (rotated != expected).float().mean() < 1e-3


def test_full_and_spatial_rotation_agree_in_a_single_frame():
    rope = OneToAllRotaryPosEmbed(128, LENGTH)
    table = _factors(rope, 1, 24, 40)
    states = torch.randn(1, 24 * 40, 2, 128)
    full, spatial = rotate(states, table), rotate_spatial(states, table, rope.temporal_dim)
    assert torch.equal(full[..., :44], states[..., :44])
    assert (full - spatial).abs().max() < 1e-6


def test_tables_are_made_once_per_grid():
    rope = OneToAllRotaryPosEmbed(128, LENGTH)
    assert rope.table(3, 4, 5, CPU) is rope.table(3, 4, 5, CPU)
    assert rope.table(3, 4, 5, CPU) is not rope.table(3, 5, 4, CPU)


def test_a_grid_longer_than_the_table_is_refused():
    with pytest.raises(ValueError, match="1024"):
        OneToAllRotaryPosEmbed(128, LENGTH).table(1, 1, LENGTH + 1, CPU)


def _table_at(frame: int, height: int, width: int):
    """The table of one frame that stands at position ``frame``."""
    return _factors(OneToAllRotaryPosEmbed(128, LENGTH), frame + 1, height, width)[:, -height * width :]


def test_reference_blocks_do_not_see_the_frame_position():
    torch.manual_seed(0)
    tokens, time = torch.randn(1, 6, 128), TimeModulation(torch.randn(1, 6, 128))
    spatial = OneToAllSelfAttentionBlock(SIZES, spatial_rope=True)
    outputs = [spatial(tokens, time, _table_at(frame, 2, 3)) for frame in (0, 1000)]
    assert torch.equal(*outputs)


def test_reference_attention_uses_the_spatial_rotation_of_the_video_tokens():
    """Moving all video tokens by 1000 frames changes neither their distances nor the reference attention."""
    torch.manual_seed(0)
    block = OneToAllTransformerBlock(SIZES).double()
    tokens, text, reference = (torch.randn(1, count, 128).double() for count in (6, 4, 6))
    time, table = TimeModulation(torch.randn(1, 6, 128)), _table_at(0, 2, 3)

    def conditions(video, reference=table):
        return PassConditions(text, time, video, reference)

    near, far = (block(tokens, conditions(_table_at(frame, 2, 3)), reference) for frame in (0, 1000))
    assert (near - far).abs().max() < 1e-5
    # and it does see where in the frame they are
    moved = table.roll(1, dims=1)
    assert (near - block(tokens, conditions(table, moved), reference)).abs().max() > 1e-3
