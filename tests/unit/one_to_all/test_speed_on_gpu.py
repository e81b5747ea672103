"""On a card: attention back-ends, compiled blocks and FP8 products against what they replace, in bfloat16."""

import pytest
import torch

from libs.one_to_all.compilation import apply_speed
from libs.one_to_all.network import candidates, probe_attention
from libs.one_to_all.speed_options import SpeedOptions
from libs.one_to_all.weights.fp8 import quantize_rows, scaled_linear, why_not_in_fp8

DEVICE, DTYPE = torch.device("cuda:0"), torch.bfloat16
_LARGEST_DIFFERENCE = 0.02
"""Relative L2 of a velocity: the reference's own bfloat16 forwards are 0.01 off float32."""

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device"),
]


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(DEVICE, DTYPE)


def _velocity(transformer: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return transformer(
            _random(1, 16, 3, 4, 4),
            torch.tensor([500.0], device=DEVICE),
            _random(1, 7, transformer.config.text_dim),
            _random(1, 3, 9, 32, 32),
            _random(1, 32, 1, 4, 4),
            _random(1, 3, 1, 32, 32),
            token_replace=True,
        ).sample.double()


def _difference(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


def test_every_attention_that_works_gives_the_same_velocity(small_transformer) -> None:
    transformer = small_transformer().to(DEVICE, DTYPE)
    expected = _velocity(transformer)
    usable = [name for name in candidates(DEVICE) if probe_attention(name, DEVICE, DTYPE).usable]
    assert "native" in usable
    for name in usable:
        apply_speed(transformer, SpeedOptions(attention=name), DEVICE, DTYPE)
        assert _difference(_velocity(transformer), expected) < _LARGEST_DIFFERENCE, name


@pytest.mark.slow
def test_compiled_blocks_give_the_same_velocity(small_transformer) -> None:
    torch._dynamo.reset()
    transformer = small_transformer().to(DEVICE, DTYPE)
    expected = _velocity(transformer)
    apply_speed(transformer, SpeedOptions(attention="native", compile_blocks=True), DEVICE, DTYPE)
    assert _difference(_velocity(transformer), expected) < _LARGEST_DIFFERENCE


def test_fp8_products_are_those_of_the_quantized_numbers() -> None:
    problem = why_not_in_fp8(DEVICE)
    if problem is not None:
        pytest.skip(problem)
    states, bias = _random(333, 512), _random(256, seed=1)
    weight, scale = quantize_rows(_random(256, 512, seed=2))
    found = scaled_linear(states, weight, scale.t().contiguous(), bias).double()
    quantized, row_scale = quantize_rows(states)
    expected = (quantized.double() * row_scale.double()) @ (weight.double() * scale.double()).t() + bias.double()
    # rounded to bfloat16; the card's own sums of FP8 products keep fewer bits than float32
    assert (found - expected).abs().max() < 2**-7 * expected.abs().max()
