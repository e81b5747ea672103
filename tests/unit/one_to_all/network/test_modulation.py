"""Modulated norms and gated sums: both forms of the arithmetic agree, also for replaced tokens."""

import pytest
import torch

from libs.one_to_all.network.modulation import TimeModulation, TokenValue, add_gated, block_modulation, modulate

TOKENS, WIDTH, REPLACED = 12, 16, (2, 6)


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def _time(dtype: torch.dtype, replaced: bool, place: tuple[int, int] = REPLACED) -> TimeModulation:
    projection = _random(1, 6, WIDTH).to(dtype)
    if not replaced:
        return TimeModulation(projection)
    mask = torch.zeros(1, TOKENS, 1, dtype=torch.bool)
    mask[:, slice(*place)] = True
    return TimeModulation(projection, _random(2, 6, WIDTH)[:1].to(dtype), mask, place)


@pytest.mark.parametrize("replaced", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_both_forms_agree(dtype: torch.dtype, replaced: bool) -> None:
    time = _time(dtype, replaced)
    (shift, scale, gate), _ = block_modulation(_random(1, 6, WIDTH), time)
    normed, stream, output = _random(1, TOKENS, WIDTH), _random(3, TOKENS, WIDTH).to(dtype), _random(3, TOKENS, WIDTH)
    results = []
    for gradients in (True, False):
        with torch.set_grad_enabled(gradients):
            results.append(
                (modulate(normed, shift, scale, time, dtype), add_gated(stream, output.to(dtype), gate, time))
            )
    for spelled_out, fused in zip(*results, strict=True):
        assert fused.dtype == dtype
        # products are not rounded before they are summed: at most the last bit differs
        assert torch.allclose(spelled_out.float(), fused.float(), rtol=torch.finfo(dtype).eps, atol=1e-6)


@pytest.mark.parametrize("place", [REPLACED, (0, 0), (0, TOKENS)])
def test_replaced_tokens_have_their_own_values(place: tuple[int, int]) -> None:
    """A rank of several may hold some, none or nothing but replaced tokens."""
    time, stream = _time(torch.float32, True, place), _random(1, TOKENS, WIDTH)
    gate = TokenValue(torch.zeros(1, 1, WIDTH), torch.ones(1, 1, WIDTH))
    with torch.no_grad():
        changed = (add_gated(stream, torch.ones_like(stream), gate, time) != stream).all(dim=-1).flatten()
    assert changed.nonzero().flatten().tolist() == list(range(*place))


def test_sums_are_rounded_once() -> None:
    stream, output = _random(1, 4096, WIDTH).bfloat16(), _random(2, 4096, WIDTH)[:1].bfloat16()
    gate = TokenValue(_random(1, 1, WIDTH))
    exact = (stream.double() + output.double() * gate.value.double()).to(torch.bfloat16)
    with torch.no_grad():
        found = add_gated(stream, output, gate, TimeModulation(torch.zeros(1, 6, WIDTH)))
    # equal but for sums that lie within float32 rounding of the middle between two bfloat16 values
    assert (found != exact).float().mean() < 1e-3
