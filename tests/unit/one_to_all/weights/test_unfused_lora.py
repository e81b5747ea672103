"""A LoRA beside FP8 weights: as exact as one fused in float32, and gone without a trace when it is taken away."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from libs.errors import ModelFilesError
from libs.model_repo.operations.quantize import quantize_weight
from libs.model_repo.variants import get_variant
from libs.one_to_all.engine import AnimationEngine
from libs.one_to_all.engine_cache import EngineSpec
from libs.one_to_all.events import FramesReady
from libs.one_to_all.memory.offload import BlockOffload
from libs.one_to_all.memory.options import ClipSize, MemoryOptions
from libs.one_to_all.options import SamplingOptions
from libs.one_to_all.weights.fp8 import ADAPTER_PARAMETERS, Fp8Linear, compute_in_fp8
from libs.one_to_all.weights.lora import UnfusedLora, fuse_lora
from libs.one_to_all.weights.lora_file import LoraFile, bytes_beside_fp8
from libs.requests.documents.animation_request import ResolvedRequest
from libs.stages.request.requested_lora import lora_of_engine, requested_loras

CPU = torch.device("cpu")
NETWORK = {"num_layers": 3, "num_control_layers": 2, "num_reference_layers": 2}
OTHER_PARAMETERS = (
    "blocks.0.norm2.weight",
    "blocks.1.attn1.norm_q.weight",
    "scale_shift_table",
    "patch_embedding.weight",
)


@pytest.fixture
def network(small_transformer, in_fp8):
    return in_fp8(small_transformer(**NETWORK))


def _write_lora(path: Path, network: torch.nn.Module, seed: int = 1, rank: int = 3) -> LoraFile:
    """For every FP8 layer of all three lists and beside them, with biases, norms, a table and a convolution."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, layer in network.named_modules():
        if isinstance(layer, Fp8Linear):
            tensors[f"{name}.lora_A.weight"] = torch.randn(rank, layer.in_features, generator=generator)
            tensors[f"{name}.lora_B.weight"] = torch.randn(layer.out_features, rank, generator=generator) * 0.02
            tensors[f"{name}.alpha"] = torch.tensor(2.0)
            tensors[f"{name}.diff_b"] = torch.randn(layer.out_features, generator=generator) * 0.05
    for name in OTHER_PARAMETERS:
        owner = name.removesuffix(".weight")
        tensors[f"{owner}.diff"] = torch.randn(network.get_parameter(name).shape, generator=generator) * 0.1
    path.parent.mkdir(exist_ok=True)
    save_file(tensors, path)
    return LoraFile(path, strength=0.8)


def _dequantized(network: torch.nn.Module) -> torch.nn.Module:
    """The same network with its FP8 weights in float32, as layers of torch."""
    for path, layer in [one for one in network.named_modules() if isinstance(one[1], Fp8Linear)]:
        plain = torch.nn.Linear(layer.in_features, layer.out_features)
        plain.weight.data, plain.bias.data = layer.dequantized(torch.float32), layer.bias.data.clone()
        parent, _, attribute = path.rpartition(".")
        setattr(network.get_submodule(parent), attribute, plain.requires_grad_(False))
    return network


def _bits(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def _assert_same_bits(network: torch.nn.Module, before: dict[str, torch.Tensor]) -> None:
    after = network.state_dict()
    assert after.keys() == before.keys()
    for name, tensor in after.items():
        assert tensor.dtype == before[name].dtype
        assert torch.equal(tensor.float(), before[name].float()), name


def test_an_unfused_lora_equals_one_fused_without_fp8(network, small_transformer, in_fp8, velocity, tmp_path):
    without = velocity(network)
    lora = _write_lora(tmp_path / "one.safetensors", network)
    fused = _dequantized(in_fp8(small_transformer(**NETWORK)))
    assert (velocity(fused) - without).abs().max() < 1e-5
    fuse_lora(fused, lora)
    assert UnfusedLora(network, torch.float32).set(lora)
    expected = velocity(fused)
    assert (expected - without).norm() > 0.05 * without.norm()
    assert (velocity(network) - expected).norm() < 1e-5 * expected.norm()
    in_lists = {
        name.split(".")[0] for name, layer in network.named_modules() if getattr(layer, "lora_up", None) is not None
    }
    assert in_lists >= {"blocks", "controlnet", "refextractor", "controlnet_zero", "proj_out"}


@pytest.mark.parametrize("in_fp8_products", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_adapter_adds_up_times_down_to_a_layer(network, tmp_path, dtype, in_fp8_products):
    """Beside both kinds of product: the layer's own answer plus up (down x), in float64 within the dtype's rounding."""
    network.to(dtype)
    if in_fp8_products:
        compute_in_fp8(network, network._no_split_modules, CPU)
    layer = network.blocks[1].ffn.net[0].proj
    assert layer.computes_in_fp8 == in_fp8_products
    states = torch.randn(2, 5, layer.in_features, generator=torch.Generator().manual_seed(3)).to(dtype)
    bias = layer.bias.clone()
    lora = _write_lora(tmp_path / "one.safetensors", network)
    UnfusedLora(network, dtype).set(lora)
    found = layer(states)
    assert layer.lora_down.dtype == layer.lora_up.dtype == found.dtype == dtype
    factors = layer.lora_up.double() @ layer.lora_down.double()
    assert not torch.equal(layer.bias, bias)
    layer.remove_adapter()
    expected = layer(states).double() + states.double() @ factors.t()
    rounding = torch.finfo(dtype).eps + 1e-6
    assert (found.double() - expected).abs().max() <= 2 * rounding * expected.abs().max()


KINDS = {
    "LoKr": ("lokr_w1", "lokr_w2"),
    "LoKr and a whole difference": ("lokr_w1", "lokr_w2", "diff"),
    "a whole difference": ("diff",),
    "LoRA and a whole difference": ("lora_down.weight", "lora_up.weight", "alpha", "diff"),
    "LoKr of factors": ("lokr_w1", "lokr_w2_a", "lokr_w2_b", "alpha"),
    "LoHa": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "alpha"),
    "LoHa and a whole difference": ("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "diff"),
    "LoHa of large rank": ("large_w1_a", "large_w1_b", "large_w2_a", "large_w2_b"),
}


@pytest.mark.parametrize("in_fp8_products", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_lokr_and_whole_deltas_beside_both_products(network, small_transformer, tmp_path, kind, in_fp8_products):
    """What a layer gives more than before is its input times the difference that fusing adds."""
    shapes = {
        "lokr_w1": (2, 4),
        "lokr_w2": (128, 32),
        "lokr_w2_a": (128, 3),
        "lokr_w2_b": (3, 32),
        "diff": (256, 128),
        "lora_down.weight": (3, 128),
        "lora_up.weight": (256, 3),
        "alpha": (),
        **{"hada_w1_a": (256, 3), "hada_w1_b": (3, 128), "hada_w2_a": (256, 2), "hada_w2_b": (2, 128)},
        **{"large_w1_a": (256, 16), "large_w1_b": (16, 128), "large_w2_a": (256, 16), "large_w2_b": (16, 128)},
    }
    generator = torch.Generator().manual_seed(5)
    tensors = {part: torch.rand(shapes[part], generator=generator) + 0.1 for part in KINDS[kind]}
    lora = LoraFile(tmp_path / "one.safetensors", strength=-0.3)
    names = {part: f"blocks.1.ffn.0.{part.replace('large', 'hada')}" for part in tensors}
    save_file({names[part]: tensor for part, tensor in tensors.items()}, lora.path)
    plain = small_transformer(**NETWORK)
    weight = plain.blocks[1].ffn.net[0].proj.weight
    before = weight.clone()
    fuse_lora(plain, lora)
    if in_fp8_products:
        compute_in_fp8(network, network._no_split_modules, CPU)
    layer = network.blocks[1].ffn.net[0].proj
    states = torch.randn(2, 5, 128, generator=generator)
    without = layer(states)
    unfused = UnfusedLora(network, torch.float32)
    assert unfused.set(lora)
    held = sum(parameter.nbytes for name, parameter in layer.named_parameters() if name in ADAPTER_PARAMETERS)
    counted = bytes_beside_fp8(lora, get_variant("sandbox-fp8"), torch.float32.itemsize)
    assert held - counted in {0, torch.float32.itemsize}, "memory plans count it"
    assert held <= 4 * (weight.numel() + 1) or "diff" in KINDS[kind]
    found = layer(states) - without
    expected = states @ (weight - before).t()
    assert (found - expected).abs().max() < 1e-4 * expected.abs().max()
    assert unfused.set(None)
    assert torch.equal(layer(states), without)
    assert [name for name, _ in layer.named_parameters()] == ["weight", "bias", "scale_weight"]


def test_fusing_into_fp8_would_round_a_small_lora_away(network):
    """Why a LoRA stays unfused: a difference of 1 % of the weights, fused and quantized again, is mostly noise."""
    layer = network.blocks[0].attn1.to_q
    weight = layer.dequantized(torch.float32)
    generator = torch.Generator().manual_seed(0)
    difference = torch.randn(weight.shape[0], 2, generator=generator) @ torch.randn(
        2, weight.shape[1], generator=generator
    )
    difference *= 0.01 * weight.norm() / difference.norm()
    stored, scale = quantize_weight(weight + difference)
    fused = stored.float() * scale.float() - weight
    assert (fused - difference).norm() > difference.norm()


def test_removing_or_replacing_a_lora_leaves_no_trace(network, velocity, tmp_path):
    before, without = _bits(network), velocity(network)
    first = _write_lora(tmp_path / "one.safetensors", network)
    second = _write_lora(tmp_path / "two.safetensors", network, seed=2, rank=5)
    unfused = UnfusedLora(network, torch.float32)
    assert not unfused.set(None)
    results = {}
    for lora in (first, second, None, second, first, first, None):
        unfused.set(lora)
        made = velocity(network)
        assert torch.equal(results.setdefault(lora, made), made)
    assert torch.equal(results[None], without)
    assert not torch.allclose(results[first], results[second])
    _assert_same_bits(network, before)
    assert unfused.set(first)
    assert not unfused.set(first)
    first.path.touch()
    assert unfused.set(first), "the file may be another one"


def test_a_lora_can_be_replaced_while_blocks_are_offloaded(network, velocity, tmp_path):
    first = _write_lora(tmp_path / "one.safetensors", network)
    second = replace(first, strength=-0.4)
    unfused = UnfusedLora(network, torch.float32)
    expected = {}
    for lora in (first, second, None):
        unfused.set(lora)
        expected[lora] = velocity(network)
    before = _bits(network)
    offload = BlockOffload(network, CPU)
    sizes = {}
    for lora in (None, first, second, None, first):
        unfused.set(lora)
        offload.repack()
        assert torch.equal(velocity(network), expected[lora])
        assert sizes.setdefault(lora is None, offload.host_bytes) == offload.host_bytes
        assert {id(one) for one in offload.tensors} >= {id(one) for one in network.blocks.parameters()}
    assert sizes[False] > sizes[True]
    unfused.set(None)
    offload.remove()
    _assert_same_bits(network, before)


@pytest.mark.slow
def test_a_lora_can_be_replaced_in_compiled_blocks(small_transformer, in_fp8, velocity, tmp_path):
    network = in_fp8(small_transformer(num_layers=2))
    lora = _write_lora(tmp_path / "one.safetensors", network)
    another = _write_lora(tmp_path / "two.safetensors", network, seed=2, rank=5)
    unfused = UnfusedLora(network, torch.float32)
    expected = {}
    for one in (lora, another, None):
        unfused.set(one)
        expected[one] = velocity(network)
    torch._dynamo.reset()
    with torch._dynamo.config.patch(recompile_limit=32):
        network.compile_repeated_blocks(backend="eager", fullgraph=True)
        for one in (None, lora, another, None):
            unfused.set(one)
            assert (velocity(network) - expected[one]).abs().max() < 1e-5
    torch._dynamo.reset()


def test_a_lora_that_is_refused_changes_nothing(network, velocity, tmp_path):
    lora = _write_lora(tmp_path / "one.safetensors", network)
    unfused = UnfusedLora(network, torch.float32)
    unfused.set(lora)
    before = velocity(network)
    whole = tmp_path / "whole.safetensors"
    save_file({"blocks.0.attn1.to_q.lora_down.lora_A.weight": torch.zeros(2, 2)}, whole)
    with pytest.raises(ModelFilesError, match="matches no module of this network"):
        unfused.set(LoraFile(whole))
    with pytest.raises(ModelFilesError, match="is missing"):
        unfused.set(LoraFile(tmp_path / "absent.safetensors"))
    assert torch.equal(velocity(network), before)
    assert not unfused.set(lora)


def test_memory_that_runs_out_leaves_the_network_as_it_was_loaded(network, velocity, tmp_path, monkeypatch):
    without, calls = velocity(network), []
    set_low_rank_adapter = Fp8Linear.set_low_rank_adapter

    def fail_late(layer, *factors):
        calls.append(layer)
        if len(calls) > 5:
            raise torch.OutOfMemoryError("CUDA out of memory")
        set_low_rank_adapter(layer, *factors)

    monkeypatch.setattr(Fp8Linear, "set_low_rank_adapter", fail_late)
    unfused = UnfusedLora(network, torch.float32)
    lora = _write_lora(tmp_path / "one.safetensors", network)
    with pytest.raises(torch.OutOfMemoryError):
        unfused.set(lora)
    assert torch.equal(velocity(network), without)
    monkeypatch.undo()
    assert unfused.set(lora)


def _clip(engine, inputs) -> np.ndarray:
    events = engine.animate(inputs, SamplingOptions("a dancer", "blurred", 2, 2.0, 1.5))
    return np.concatenate([event.frames for event in events if isinstance(event, FramesReady)])


@pytest.mark.slow
@pytest.mark.parametrize("plan", [None, "offload"])
def test_a_cached_engine_replaces_its_lora(fp8_repository, make_inputs, tmp_path, cache, plan):
    layout, memory = fp8_repository, MemoryOptions(keyword=plan)
    fresh = AnimationEngine.load(layout, "cpu")
    inputs, without = make_inputs(5), _clip(fresh, make_inputs(5))
    first = _write_lora(tmp_path / "one.safetensors", fresh.networks.transformer)
    second = replace(first, strength=-1.0)
    expected = {lora: _clip(AnimationEngine.load(layout, "cpu", lora=lora), inputs) for lora in (first, second)}
    assert not np.array_equal(expected[first], without)
    assert not np.array_equal(expected[first], expected[second])
    engines = set()
    for lora in (first, None, second, first, None):
        engine, load = cache.get_or_load(EngineSpec(layout, "cpu", lora=lora, memory=memory), ClipSize(32, 32, 5))
        assert load.cold == (not engines)
        engines.add(engine)
        np.testing.assert_array_equal(_clip(engine, inputs), without if lora is None else expected[lora])
    assert len(engines) == 1
    with pytest.raises(ModelFilesError, match="is missing"):
        cache.get_or_load(EngineSpec(layout, "cpu", lora=LoraFile(tmp_path / "absent.safetensors"), memory=memory))
    _, load = cache.get_or_load(EngineSpec(layout, "cpu", memory=memory), ClipSize(32, 32, 5))
    assert not load.cold, "a LoRA that cannot be used costs no engine"


def test_fp8_weights_that_a_plan_chooses_take_a_lora(repository, fp8_repository, tmp_path, cache):
    """The request names the plain variant, whose folder holds the LoRA; its FP8 repository lies beside it."""
    layout = replace(repository, root=tmp_path / "plain")
    layout.root.symlink_to(repository.root)
    (tmp_path / fp8_repository.variant.folder).symlink_to(fp8_repository.root)
    memory = MemoryOptions(limit_bytes=1, keyword="resident", allow_fp8=True)
    engine, load = cache.get_or_load(EngineSpec(layout, "cpu", memory=memory), ClipSize(32, 32, 5))
    assert load.cold
    assert engine.precision == "torch.float32, weights of sandbox-fp8"
    held = engine.bytes_on(CPU)
    lora = _write_lora(tmp_path / "one.safetensors", engine.networks.transformer)
    with_lora, load = cache.get_or_load(EngineSpec(layout, "cpu", lora=lora, memory=memory), ClipSize(32, 32, 5))
    assert with_lora is engine
    assert not load.cold
    assert engine.bytes_on(CPU) > held
    sampling = engine.memory_plan.use.phases["sampling"]["transformer"]
    cache.get_or_load(EngineSpec(layout, "cpu", memory=memory), ClipSize(32, 32, 5))
    assert engine.bytes_on(CPU) == held
    assert engine.memory_plan.use.phases["sampling"]["transformer"] < sampling


def test_a_request_may_name_one_for_an_fp8_variant(fp8_repository, tmp_path):
    layout = replace(fp8_repository, root=tmp_path)
    request = ResolvedRequest.model_construct(lora="distilled", model=layout.variant.name)
    with pytest.raises(ModelFilesError, match="is missing"):
        requested_loras(request, layout)
    layout.lora("distilled").parent.mkdir()
    layout.lora("distilled").touch()
    with pytest.raises(
        ModelFilesError, match=r"distilled\.safetensors: has 0 bytes, too few .* cannot be read as a LoRA"
    ):
        requested_loras(request, layout)
    save_file({"diffusion_model.blocks.0.ffn.2.diff_b": torch.ones(128)}, layout.lora("distilled"))
    assert lora_of_engine(requested_loras(request, layout)) == LoraFile(tmp_path / "loras/distilled.safetensors")
    request = ResolvedRequest.model_construct(lora="distilled", lora_strength=0.5, model=layout.variant.name)
    assert lora_of_engine(requested_loras(request, layout)) == LoraFile(tmp_path / "loras/distilled.safetensors", 0.5)
    save_file({"diffusion_model.blocks.0.ffn.2.diff_b": torch.full((128,), torch.nan)}, layout.lora("distilled"))
    with pytest.raises(ModelFilesError, match=r"distilled\.safetensors: .*diff_b holds values that are not finite"):
        requested_loras(request, layout)
