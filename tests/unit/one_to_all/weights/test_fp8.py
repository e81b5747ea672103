"""FP8 layers: what they compute, what casting and moving leaves alone, and formats of other programs."""

import json
import math
import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from libs.model_repo.files.parameters import TensorInfo
from libs.model_repo.operations.quantize import quantize_weight
from libs.one_to_all.weights.fp8 import (
    Fp8Linear,
    dequantize_other_layers,
    hold_weights_in_fp8,
    problem_of_scales,
)
from libs.one_to_all.weights.loading import load_transformer

_NAMES = {torch.float8_e4m3fn: "F8_E4M3", torch.float8_e5m2: "F8_E5M2"}


def _linear(weight: torch.Tensor, scale: torch.Tensor | None, bias: torch.Tensor | None) -> Fp8Linear:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None))
    tensors = {"0.weight": TensorInfo(_NAMES[weight.dtype], tuple(weight.shape))}
    state = {"0.weight": weight}
    if scale is not None:
        tensors["0.scale_weight"] = TensorInfo("F16", tuple(scale.shape))
        state["0.scale_weight"] = scale
    if bias is not None:
        tensors["0.bias"] = TensorInfo("F32", tuple(bias.shape))
        state["0.bias"] = bias
    hold_weights_in_fp8(model, tensors)
    assert {name: tuple(value.shape) for name, value in model.state_dict().items()} == {
        name: info.shape for name, info in tensors.items()
    }
    model.load_state_dict(state, assign=True)
    layer = model[0]
    assert isinstance(layer, Fp8Linear)
    return layer


@pytest.mark.parametrize("stored", [torch.float8_e4m3fn, torch.float8_e5m2])
@pytest.mark.parametrize("scale_shape", [None, (), (1,), (6,), (6, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_computes_with_stored_times_scale(
    stored: torch.dtype, scale_shape: tuple[int, ...] | None, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 8).to(stored)
    count = math.prod(scale_shape) if scale_shape is not None else 0
    scale = None if scale_shape is None else (torch.rand(count) + 0.5).half().reshape(scale_shape)
    bias = torch.randn(6)
    layer, inputs = _linear(weight, scale, bias), torch.randn(3, 8).to(dtype)
    factor = torch.ones(6, 1) if scale is None else scale.float().reshape(-1, 1).expand(6, 1)
    expected = nn.functional.linear(inputs, (weight.float() * factor).to(dtype), bias.to(dtype))
    channel_scale = layer.channel_scale()  # as a kernel takes it
    assert channel_scale.is_contiguous()
    assert torch.equal(channel_scale, factor.t())
    found = layer(inputs)
    assert found.dtype == dtype
    assert torch.equal(found, expected)


@pytest.mark.parametrize("scales", [{}, {"a": ()}, {"a": (1,)}, {"a": (6,)}, {"a": (6, 1)}])
def test_scales_may_be_one_number_or_one_per_channel_or_none_at_all(scales: dict[str, tuple[int, ...]]) -> None:
    tensors = {f"{name}.scale_weight": TensorInfo("F32", shape) for name, shape in scales.items()}
    assert problem_of_scales(tensors | {"a.weight": TensorInfo("F8_E4M3", (6, 8))}) is None


def test_names_that_the_network_does_not_have_are_left_to_loading() -> None:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(2, 2))
    hold_weights_in_fp8(model, {"other.weight": TensorInfo("F8_E4M3", (2, 2))})
    assert model.state_dict().keys() == {"0.weight", "0.bias"}


def test_the_marker_of_other_programs_is_dropped_after_loading(fp8_repository, tmp_path) -> None:
    root = shutil.copytree(fp8_repository.root, tmp_path / "marked")
    layout = replace(fp8_repository, root=root)
    save_file({"scaled_fp8": torch.empty(0, dtype=torch.float8_e4m3fn)}, root / "mark.safetensors")
    index = json.loads(layout.index.read_text())
    index["weight_map"]["scaled_fp8"] = "mark.safetensors"
    layout.index.write_text(json.dumps(index))
    loaded = [load_transformer(one, torch.device("cpu"), torch.float32) for one in (layout, fp8_repository)]
    assert loaded[0].state_dict().keys() == loaded[1].state_dict().keys()


def test_casting_the_module_leaves_weight_and_scale_as_they_are() -> None:
    weight, scale = quantize_weight(torch.randn(4, 4))
    layer = _linear(weight.clone(), scale.clone(), torch.randn(4))
    layer.to(torch.bfloat16)
    assert layer.weight.dtype == torch.float8_e4m3fn
    assert layer.scale_weight is not None
    assert torch.equal(layer.scale_weight, scale)
    assert layer.bias.dtype == torch.bfloat16
    layer.to("meta")
    assert layer.weight.is_meta and layer.weight.dtype == torch.float8_e4m3fn
    layer.to_empty(device="cpu")
    assert layer.weight.device.type == "cpu"


def test_convolutions_in_fp8_are_dequantized_once() -> None:
    torch.manual_seed(0)
    plain = torch.randn(4, 2, 3, 3)
    stored = plain.to(torch.float8_e4m3fn)
    with torch.device("meta"):
        model = nn.Sequential(nn.Conv2d(2, 4, 3, bias=False))
    shapes = {"0.weight": TensorInfo("F8_E4M3", (4, 2, 3, 3)), "0.scale_weight": TensorInfo("F16", (4, 1, 1, 1))}
    hold_weights_in_fp8(model, shapes | {"scaled_fp8": TensorInfo("F8_E4M3", (0,))})
    scale = torch.full((4, 1, 1, 1), 2.0).half()
    marker = torch.empty(0, dtype=torch.float8_e4m3fn)
    model.load_state_dict({"0.weight": stored, "0.scale_weight": scale, "scaled_fp8": marker}, assign=True)
    dequantize_other_layers(model, torch.float32)
    assert model.state_dict().keys() == {"0.weight"}
    assert torch.equal(model[0].weight, stored.float() * 2)
