"""The manifest against the reference implementation's state dicts and against the real class."""

import gzip
import json
from pathlib import Path

import pytest

from libs.model_repo.files.parameters import (
    TensorInfo,
    compare_tensors,
    expected_parameters,
    is_quantized,
    scale_name,
)
from libs.model_repo.variants import VARIANTS, get_variant

_GOLDEN = Path(__file__).resolve().parents[4] / "shared" / "golden" / "model"


@pytest.mark.parametrize(("variant", "file"), [("14b", "14b"), ("1.3b_1", "1.3b"), ("1.3b_2", "1.3b")])
def test_equals_the_reference_state_dict(variant: str, file: str) -> None:
    path = _GOLDEN / f"state_dict_{file}.json.gz"
    if not path.is_file():
        pytest.skip(f"{path} is not on this machine")
    golden = json.loads(gzip.decompress(path.read_bytes()))
    found = expected_parameters(get_variant(variant).network)
    assert {name: list(shape) for name, shape in found.items()} == golden["shapes"]
    assert len(found) == golden["num_tensors"]


def test_equals_the_real_class_of_the_sandbox() -> None:
    import torch

    from libs.one_to_all.network import OneToAllTransformer3DModel

    network = get_variant("sandbox").network
    with torch.device("meta"):
        model = OneToAllTransformer3DModel(**vars(network))
    assert {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()} == expected_parameters(network)


def test_the_linear_layers_but_no_embedding_are_quantized() -> None:
    shapes = expected_parameters(get_variant("14b").network)
    chosen = {name for name, shape in shapes.items() if is_quantized(name, shape)}
    assert "blocks.0.attn1.to_q.weight" in chosen
    assert "blocks.39.ffn.net.2.weight" in chosen
    assert "refextractor.ref_blocks.7.weight" in chosen
    assert not {name for name in chosen if "embed" in name or "norm" in name or name.endswith(".bias")}
    weights = sum(_values(shapes[name]) for name in chosen)
    assert weights > 0.95 * sum(map(_values, shapes.values()))


def _values(shape: tuple[int, ...]) -> int:
    count = 1
    for extent in shape:
        count *= extent
    return count


def _plain(variant: str, dtype: str = "BF16") -> dict[str, TensorInfo]:
    return {name: TensorInfo(dtype, shape) for name, shape in expected_parameters(VARIANTS[variant].network).items()}


def _fp8(dtype: str = "F8_E4M3", scale_rank: int = 2) -> dict[str, TensorInfo]:
    tensors = _plain("sandbox")
    for name, tensor in list(tensors.items()):
        if is_quantized(name, tensor.shape):
            tensors[name] = TensorInfo(dtype, tensor.shape)
            scale = {0: (), 1: tensor.shape[:1], 2: (tensor.shape[0], 1)}[scale_rank]
            tensors[scale_name(name)] = TensorInfo("F16", scale)
    return tensors


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_a_checkpoint_in_any_usual_dtype_passes(dtype: str) -> None:
    assert compare_tensors(VARIANTS["sandbox"], _plain("sandbox", dtype)) == []


@pytest.mark.parametrize("dtype", ["F8_E4M3", "F8_E5M2"])
@pytest.mark.parametrize("scale_rank", [0, 1, 2])
def test_fp8_checkpoints_made_either_way_pass(dtype: str, scale_rank: int) -> None:
    assert compare_tensors(VARIANTS["sandbox-fp8"], _fp8(dtype, scale_rank)) == []


def test_differences_are_named() -> None:
    tensors = _plain("sandbox")
    del tensors["proj_out.bias"]
    tensors["proj_out.weight"] = TensorInfo("BF16", (64, 64))
    tensors["patch_embedding.bias"] = TensorInfo("I32", tensors["patch_embedding.bias"].shape)
    tensors["blocks.4.norm2.bias"] = TensorInfo("BF16", (128,))
    messages = [problem.message for problem in compare_tensors(VARIANTS["sandbox"], tensors)]
    assert messages == [
        "blocks.4.norm2.bias is not a parameter of sandbox",
        "patch_embedding.bias has dtype I32, expected one of BF16, F16, F32",
        "proj_out.bias is missing",
        "proj_out.weight has shape [64, 64], expected [64, 128]",
    ]


def test_fp8_is_refused_where_it_does_not_belong() -> None:
    assert compare_tensors(VARIANTS["sandbox"], _fp8())
    assert compare_tensors(VARIANTS["sandbox-fp8"], _plain("sandbox"))
    tensors = _fp8()
    tensors["blocks.0.attn1.to_q.scale_weight"] = TensorInfo("F16", (3,))
    (problem,) = compare_tensors(VARIANTS["sandbox-fp8"], tensors)
    assert "expected one scale or 128" in problem.message
