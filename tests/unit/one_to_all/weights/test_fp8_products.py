"""FP8 compute: scales and layout against the same quantized product in float64, its error, and falling back."""

import logging
from types import SimpleNamespace

import pytest
import torch

from libs.model_repo.operations.quantize import quantize_weight
from libs.one_to_all.compilation import apply_speed
from libs.one_to_all.engine import AnimationEngine
from libs.one_to_all.speed_options import SpeedOptions
from libs.one_to_all.weights import fp8
from libs.one_to_all.weights.fp8 import (
    Fp8Linear,
    compute_in_fp8,
    fits_kernel,
    quantize_rows,
    scaled_linear,
    why_not_in_fp8,
)

CPU = torch.device("cpu")


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_use_the_whole_range(dtype: torch.dtype) -> None:
    states = (_random(5, 48) * torch.logspace(-6, 6, 5)[:, None]).to(dtype)
    states[3] = 0
    quantized, scale = quantize_rows(states)
    assert quantized.dtype == torch.float8_e4m3fn and scale.dtype == torch.float32
    assert quantized.float().abs().amax(dim=1).tolist() == [448, 448, 448, 0, 448]
    restored, exact = quantized.double() * scale.double(), states.double()
    # half a step of three bits of mantissa; half a step of the smallest numbers, next to zero
    assert ((restored - exact).abs() <= (exact.abs() * 2**-4).maximum(scale.double() * 2**-10) * 1.01).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("leading", [(7,), (1, 33), (2, 3, 5)])
def test_the_fp8_product_equals_that_of_the_quantized_numbers(dtype, with_bias, leading) -> None:
    states, bias = _random(*leading, 64).to(dtype), _random(32, seed=1).to(dtype) if with_bias else None
    weight, weight_scale = quantize_weight(_random(32, 64, seed=2) * torch.logspace(-2, 2, 32)[:, None])
    found = scaled_linear(states, weight, weight_scale.float().t().contiguous(), bias)
    assert found.dtype == dtype and found.shape == (*leading, 32)
    quantized, row_scale = quantize_rows(states.flatten(0, -2))
    emulated = (quantized.double() * row_scale.double()) @ (weight.double() * weight_scale.double()).t()
    emulated = (emulated if bias is None else emulated + bias.double()).unflatten(0, leading)
    rounding = torch.finfo(dtype).eps + 1e-6  # of the result, and of float32 sums
    assert (found.double() - emulated).abs().max() <= rounding * emulated.abs().max()


def test_kernels_take_weights_with_sides_of_multiples_of_sixteen() -> None:
    assert fits_kernel(torch.empty(32, 64, dtype=torch.float8_e4m3fn))
    assert not fits_kernel(torch.empty(32, 60, dtype=torch.float8_e4m3fn))
    assert not fits_kernel(torch.empty(32, 64, dtype=torch.float8_e5m2))


def test_says_why_a_device_cannot_form_fp8_products(monkeypatch: pytest.MonkeyPatch) -> None:
    assert why_not_in_fp8(CPU) is None
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (8, 6))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "An old card")
    assert why_not_in_fp8(torch.device("cuda")) == "An old card has compute capability 8.6, FP8 needs 8.9"
    monkeypatch.setattr(fp8, "scaled_linear", lambda states, *_: torch.zeros_like(states))
    assert "off by 100%" in str(why_not_in_fp8(CPU))

    def refuse(*_args):
        raise RuntimeError("no kernel\nhere")

    monkeypatch.setattr(fp8, "scaled_linear", refuse)
    assert why_not_in_fp8(CPU) == "no kernel here"


def test_the_network_computes_in_fp8_when_asked(small_transformer, in_fp8, velocity) -> None:
    transformer = in_fp8(small_transformer())
    unfit = transformer.blocks[0].attn1.to_q
    unfit.weight = torch.nn.Parameter(unfit.weight.float().to(torch.float8_e5m2), requires_grad=False)
    de_quantized = velocity(transformer)
    engine = AnimationEngine(SimpleNamespace(transformer=transformer), CPU, torch.float32)
    assert engine.precision == "torch.float32"
    lines = apply_speed(transformer, SpeedOptions(fp8_compute=True), CPU, torch.float32)
    layers = [layer for layer in transformer.modules() if isinstance(layer, Fp8Linear)]
    computing = [layer for layer in layers if layer.computes_in_fp8]
    assert lines[0] == f"FP8 compute in {len(computing)} of {len(computing) + 1} layers with FP8 weights"
    assert not unfit.computes_in_fp8
    assert engine.precision == "torch.float32, FP8 products"
    assert 0 < len(computing) < len(layers)
    assert not transformer.proj_out.computes_in_fp8
    error = (velocity(transformer) - de_quantized).norm() / de_quantized.norm()
    assert 1e-3 < error < 0.05, error


def test_fp8_compute_falls_back_with_a_clear_line(small_transformer, in_fp8, velocity, monkeypatch, caplog) -> None:
    transformer = in_fp8(small_transformer())
    before = velocity(transformer)
    monkeypatch.setattr(fp8, "why_not_in_fp8", lambda device: "an old card has compute capability 8.0, FP8 needs 8.9")
    with caplog.at_level(logging.INFO):
        apply_speed(transformer, SpeedOptions(fp8_compute=True), CPU, torch.float32)
    assert "FP8 weights are de-quantized instead: an old card" in caplog.text
    assert torch.equal(velocity(transformer), before)


def test_a_network_without_fp8_weights_says_so(small_transformer) -> None:
    transformer = small_transformer()
    assert "no FP8 weights" in compute_in_fp8(transformer, transformer._no_split_modules, CPU)
