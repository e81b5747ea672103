"""A LoRA file changes the weights by exactly what its tensors say, whatever its family of names."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict
from safetensors.torch import save_file

from libs.errors import InputError, ModelFilesError
from libs.one_to_all.engine import AnimationEngine
from libs.one_to_all.engine_cache import EngineSpec
from libs.one_to_all.events import FramesReady
from libs.one_to_all.memory.choice import PlanRequest, choose_plan
from libs.one_to_all.memory.options import ClipSize, MemoryOptions
from libs.one_to_all.memory.plan import DeviceBudget, MemoryBudget
from libs.one_to_all.options import SamplingOptions
from libs.one_to_all.weights.lora import fuse_lora
from libs.one_to_all.weights.lora_file import LoraFile, read_contents
from libs.one_to_all.weights.lora_names import match_names, targets_of

RANK = 3
# this network's module -> Wan2.1's own name
MODULES = {
    "blocks.1.attn1.to_q": "blocks.1.self_attn.q",
    "blocks.1.attn1.to_out.0": "blocks.1.self_attn.o",
    "blocks.2.attn2.to_v": "blocks.2.cross_attn.v",
    "blocks.0.ffn.net.0.proj": "blocks.0.ffn.0",
    "blocks.3.ffn.net.2": "blocks.3.ffn.2",
    "condition_embedder.time_embedder.linear_2": "time_embedding.2",
    "condition_embedder.text_embedder.linear_1": "text_embedding.0",
    "condition_embedder.time_proj": "time_projection.1",
    "proj_out": "head.head",
}
FAMILIES = {
    "peft": ("base_model.model.{ours}.lora_A.weight", "base_model.model.{ours}.lora_B.weight", None),
    "diffusers": ("transformer.{ours}.lora_A.weight", "transformer.{ours}.lora_B.weight", "transformer.{ours}.alpha"),
    "two prefixes": (
        "base_model.model.transformer.{ours}.lora_A.weight",
        "base_model.model.transformer.{ours}.lora_B.weight",
        None,
    ),
    "bare": ("{ours}.lora_A.default.weight", "{ours}.lora_B.default.weight", None),
    "wan": (
        "diffusion_model.{wan}.lora_down.weight",
        "diffusion_model.{wan}.lora_up.weight",
        "diffusion_model.{wan}.alpha",
    ),
    "wan, A and B": ("diffusion_model.{wan}.lora_A.weight", "diffusion_model.{wan}.lora_B.weight", None),
    "DiffSynth": (
        "pipe.dit.{wan}.lora_A.default.weight",
        "pipe.dit.{wan}.lora_B.default.weight",
        None,
    ),
    "a named adapter": ("{wan}.lora_A.my_adapter.weight", "{wan}.lora_B.my_adapter.weight", None),
    "a whole checkpoint's": (
        "model.diffusion_model.{wan}.lora_down.weight",
        "model.diffusion_model.{wan}.lora_up.weight",
        "model.diffusion_model.{wan}.alpha",
    ),
    "compiled, old diffusers": ("_orig_mod.{ours}.lora.down.weight", "_orig_mod.{ours}.lora.up.weight", None),
    "VideoX-Fun": (
        "lora_unet__{flat}.lora_down.weight",
        "lora_unet__{flat}.lora_up.weight",
        "lora_unet__{flat}.alpha",
    ),
    "LyCORIS": ("lycoris_{flat}.lora_down.weight", "lycoris_{flat}.lora_up.weight", "lycoris_{flat}.alpha"),
    "flattened": ("lora_unet_{flat}.lora_down.weight", "lora_unet_{flat}.lora_up.weight", "lora_unet_{flat}.alpha"),
}


@pytest.fixture
def network(small_transformer):
    return small_transformer()


def _names(ours: str, family: str) -> list[str | None]:
    wan = MODULES[ours]
    places = {"ours": ours, "wan": wan, "flat": wan.replace(".", "_")}
    return [None if name is None else name.format(**places) for name in FAMILIES[family]]


def _lora(network, family: str, alpha: float | None) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Tensors of a file, and parameter -> the difference that they mean."""
    generator = torch.Generator().manual_seed(1)
    tensors, differences = {}, {}
    for ours in MODULES:
        weight = network.get_submodule(ours).weight
        down = torch.randn(RANK, weight.shape[1], generator=generator)
        up = torch.randn(weight.shape[0], RANK, generator=generator) * 0.01
        down_name, up_name, alpha_name = _names(ours, family)
        tensors |= {down_name: down, up_name: up}
        scale = 1.0
        if alpha is not None and alpha_name is not None:
            tensors[alpha_name] = torch.tensor(alpha)
            scale = alpha / RANK
        differences[f"{ours}.weight"] = scale * (up @ down)
    return tensors, differences


def _file(folder: Path, tensors: dict[str, torch.Tensor], metadata: dict[str, str] | None = None) -> Path:
    path = folder / "distilled.safetensors"
    save_file(tensors, path, metadata)
    return path


def _before(network) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in network.state_dict().items()}


def _assert_changed_by(network, before, differences, strength=1.0) -> None:
    for name, tensor in network.state_dict().items():
        if name not in differences:
            assert torch.equal(tensor, before[name]), name
            continue
        expected = before[name] + strength * differences[name]
        assert (tensor - expected).abs().max() < 1e-6, name
        assert (tensor - before[name]).abs().max() > 1e-4, name


@pytest.mark.parametrize("alpha", [None, 1.5])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_of_names_gives_the_same_delta(network, tmp_path, family, alpha):
    before = _before(network)
    tensors, differences = _lora(network, family, alpha)
    fuse_lora(network, LoraFile(_file(tmp_path, tensors), strength=0.5))
    _assert_changed_by(network, before, differences, strength=0.5)


def test_a_fused_lora_equals_the_result_of_peft(network, small_transformer, tmp_path):
    """Against peft's own adapter, with alpha where diffusers writes it."""
    configuration = LoraConfig(r=RANK, lora_alpha=7, target_modules=["to_k", "net.2"], init_lora_weights=False)
    adapted = small_transformer()
    adapted.add_adapter(configuration)
    tensors = {f"transformer.{name}": tensor for name, tensor in get_peft_model_state_dict(adapted).items()}
    metadata = {"lora_adapter_metadata": json.dumps({"transformer.r": RANK, "transformer.lora_alpha": 7})}
    path = _file(tmp_path, {name: tensor.contiguous() for name, tensor in tensors.items()}, metadata)
    fuse_lora(network, LoraFile(path))
    adapted.fuse_lora()
    adapted.unload_lora()
    expected = adapted.state_dict()
    assert expected.keys() == network.state_dict().keys()
    assert not torch.equal(network.blocks[0].attn1.to_k.weight, small_transformer().blocks[0].attn1.to_k.weight)
    for name, tensor in network.state_dict().items():
        assert (tensor - expected[name]).abs().max() < 1e-6, name


def test_alpha_patterns_and_rank_stabilized_scales(network, tmp_path):
    before = _before(network)
    tensors, differences = _lora(network, "diffusers", None)
    patterns = {"to_q": 12, "proj_out": 9, "o_v": 99}  # a module of this name, not one that ends so
    described = {"lora_alpha": 6, "alpha_pattern": patterns, "use_rslora": True}
    described = {f"transformer.{name}": value for name, value in described.items()}
    path = _file(tmp_path, tensors, {"lora_adapter_metadata": json.dumps(described)})
    fuse_lora(network, LoraFile(path))
    alphas = {"blocks.1.attn1.to_q.weight": 12, "proj_out.weight": 9}
    scaled = {name: value * alphas.get(name, 6) / RANK**0.5 for name, value in differences.items()}
    _assert_changed_by(network, before, scaled)


def test_whole_deltas_of_weights_biases_norms_and_tables(network, tmp_path):
    before = _before(network)
    changes = {
        "diffusion_model.blocks.1.self_attn.q.diff_b": "blocks.1.attn1.to_q.bias",
        "diffusion_model.blocks.1.cross_attn.norm_k.diff": "blocks.1.attn2.norm_k.weight",
        "diffusion_model.blocks.0.norm3.diff": "blocks.0.norm2.weight",
        "diffusion_model.blocks.0.norm3.diff_b": "blocks.0.norm2.bias",
        "diffusion_model.blocks.2.modulation.diff": "blocks.2.scale_shift_table",
        "diffusion_model.blocks.1.diff_m": "blocks.1.scale_shift_table",
        "lora_unet_blocks_0.diff_m": "blocks.0.scale_shift_table",
        "diffusion_model.head.diff_m": "scale_shift_table",
        "diffusion_model.patch_embedding.diff": "patch_embedding.weight",
    }
    generator = torch.Generator().manual_seed(2)
    tensors = {name: torch.randn(before[ours].shape, generator=generator) for name, ours in changes.items()}
    tensors["diffusion_model.head.diff_m"] = tensors["diffusion_model.head.diff_m"][0]  # without its leading 1
    differences = {ours: tensors[name] for name, ours in changes.items()}
    patch = before["patch_embedding.weight"]
    down, up = torch.randn(RANK, *patch.shape[1:]), torch.randn(patch.shape[0], RANK, 1, 1, 1)
    tensors |= {"patch_embedding.lora_down.weight": down, "patch_embedding.lora_up.weight": up}
    differences["patch_embedding.weight"] = differences["patch_embedding.weight"] + torch.einsum(
        "orxyz,rchwd->ochwd", up, down
    )
    width = before["blocks.1.attn1.to_q.bias"].shape[0]
    down, up, up_bias = torch.randn(RANK, width), torch.randn(width, RANK), torch.randn(width)
    parts = {"lora_down.weight": down, "lora_up.weight": up, "lora_up.bias": up_bias, "alpha": torch.tensor(1.5)}
    tensors |= {f"diffusion_model.blocks.1.self_attn.q.{part}": tensor for part, tensor in parts.items()}
    differences["blocks.1.attn1.to_q.weight"] = 1.5 / RANK * up @ down
    differences["blocks.1.attn1.to_q.bias"] = differences["blocks.1.attn1.to_q.bias"] + 1.5 / RANK * up_bias
    fuse_lora(network, LoraFile(_file(tmp_path, tensors)))
    _assert_changed_by(network, before, differences)


def _kronecker(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """By its definition: every number of ``a`` times the whole of ``b``."""
    return torch.cat([torch.cat([number * b for number in row], 1) for row in a])


def _lycoris(network, family: str) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """Tensors of a file that LyCORIS writes, and parameter -> the difference that they mean."""
    generator = torch.Generator().manual_seed(3)
    tensors, differences = {}, {}
    for ours, wan in MODULES.items():
        rows, columns = network.get_submodule(ours).weight.shape
        shapes = {
            "LoKr": {"lokr_w1": (2, 4), "lokr_w2": (rows // 2, columns // 4)},
            "LoKr of factors": {
                "lokr_w1_a": (2, RANK),
                "lokr_w1_b": (RANK, 4),
                "lokr_w2_a": (rows // 2, RANK),
                "lokr_w2_b": (RANK, columns // 4),
            },
            "LoKr, one side of factors": {
                "lokr_w1": (2, 4),
                "lokr_w2_a": (rows // 2, RANK),
                "lokr_w2_b": (RANK, columns // 4),
            },
            "LoHa": {
                "hada_w1_a": (rows, RANK),
                "hada_w1_b": (RANK, columns),
                "hada_w2_a": (rows, RANK),
                "hada_w2_b": (RANK, columns),
            },
        }[family]
        parts = {part: torch.randn(shape, generator=generator) * 0.1 for part, shape in shapes.items()}
        tensors |= {f"diffusion_model.{wan}.{part}": tensor for part, tensor in parts.items()}
        tensors[f"diffusion_model.{wan}.alpha"] = torch.tensor(1.5)
        scale = 1.0 if family == "LoKr" else 1.5 / RANK  # without a rank, alpha means nothing
        if family == "LoHa":
            whole = (parts["hada_w1_a"] @ parts["hada_w1_b"]) * (parts["hada_w2_a"] @ parts["hada_w2_b"])
        else:
            sides = [
                parts[side] if side in parts else parts[f"{side}_a"] @ parts[f"{side}_b"]
                for side in ("lokr_w1", "lokr_w2")
            ]
            whole = _kronecker(*sides)
        differences[f"{ours}.weight"] = scale * whole
    return tensors, differences


@pytest.mark.parametrize("family", ["LoKr", "LoKr of factors", "LoKr, one side of factors", "LoHa"])
def test_lokr_and_loha_deltas(network, tmp_path, family):
    before = _before(network)
    tensors, differences = _lycoris(network, family)
    fuse_lora(network, LoraFile(_file(tmp_path, tensors), strength=-0.5))
    _assert_changed_by(network, before, differences, strength=-0.5)


def test_a_lokr_of_a_convolution(network, tmp_path):
    before = _before(network)
    rows, columns, *kernel = network.patch_embedding.weight.shape
    w1, w2 = torch.randn(2, 4), torch.randn(rows // 2, columns // 4, *kernel)
    tensors = {"diffusion_model.patch_embedding.lokr_w1": w1, "diffusion_model.patch_embedding.lokr_w2": w2}
    fuse_lora(network, LoraFile(_file(tmp_path, tensors)))
    whole = torch.einsum("ab,cdxyz->acbdxyz", w1, w2).reshape(rows, columns, *kernel)
    _assert_changed_by(network, before, {"patch_embedding.weight": whole})


def test_deltas_are_rounded_once(network, tmp_path):
    network = network.to(torch.bfloat16)
    before = _before(network)
    tensors, differences = _lora(network, "wan", 2.0)
    fuse_lora(network, LoraFile(_file(tmp_path, tensors)))
    for name, difference in differences.items():
        assert torch.equal(network.state_dict()[name], (before[name].float() + difference).to(torch.bfloat16)), name


def _without(tensors, end):
    return {name: tensor for name, tensor in tensors.items() if not name.endswith(end)}


def _with_first(tensors, end, change):
    name = next(name for name in tensors if name.endswith(end))
    return tensors | {name: change(tensors[name])}


def test_integer_alphas_and_factors_in_fp8(network, tmp_path):
    tensors, _ = _lora(network, "wan", 6.0)
    factors = {name: one.to(torch.float8_e4m3fn) for name, one in tensors.items() if one.dim()}
    before = _before(network)
    fuse_lora(
        network, LoraFile(_file(tmp_path, {**factors, **{n: a.int() for n, a in tensors.items() if not a.dim()}}))
    )
    down, up = _names("proj_out", "wan")[:2]
    expected = before["proj_out.weight"] + 6.0 / RANK * factors[up].float() @ factors[down].float()
    torch.testing.assert_close(network.proj_out.weight, expected)
    factors[up].view(torch.uint8)[0, 0] = 0x7F  # NaN
    with pytest.raises(ModelFilesError, match="not finite"):
        fuse_lora(network, LoraFile(_file(tmp_path, factors)))


_PATCHES = {"down": (4, 16), "up": (128, 4)}
BROKEN = {
    "another network": (
        lambda lora: lora | {"blocks.0.cross_attn.k_img.diff": torch.ones(2)},
        "1 tensor matches no module of this network: blocks.0.cross_attn.k_img.diff; this file is for image-to-video",
    ),
    "a text encoder's part": (
        lambda lora: lora | {"lora_te1_encoder_block_0.lora_down.weight": torch.ones(2, 2)},
        "also changes a text encoder",
    ),
    "a second network's part": (lambda lora: lora | {"transformer_2.blocks.0.ffn.0.diff_b": torch.ones(2)}, "Wan2.2"),
    "two adapters": (
        lambda lora: lora | {"blocks.1.attn1.to_q.lora_A.second.weight": torch.ones(RANK, 2)},
        "twice, as .*; a file with one adapter is expected",
    ),
    "half a LoKr": (lambda lora: lora | {"blocks.0.ffn.2.lokr_w1": torch.ones(2, 2)}, "one lokr_w1 and one lokr_w2"),
    "a LoKr of another size": (
        lambda lora: lora | {f"blocks.0.ffn.2.lokr_w{side}": torch.ones(2, 2) for side in (1, 2)},
        "does not fit",
    ),
    "factors of a LoKr that do not meet": (
        lambda lora: (
            lora
            | {"blocks.0.ffn.2.lokr_w1": torch.ones(1, 1), "blocks.0.ffn.2.lokr_w2_a": torch.ones(128, 2)}
            | {"blocks.0.ffn.2.lokr_w2_b": torch.ones(3, 256)}
        ),
        "does not fit",
    ),
    "a part of a LoHa": (lambda lora: lora | {"blocks.0.ffn.2.hada_w1_a": torch.ones(2, 2)}, "not the hada_w1_b part"),
    "two products": (
        lambda lora: lora | {f"blocks.3.ffn.2.lokr_w{side}": torch.ones(1, 1) for side in (1, 2)},
        "by several kinds of parts at once",
    ),
    "only an alpha": (
        lambda lora: lora | {"blocks.2.ffn.0.alpha": torch.tensor(1.0)},
        "not the factors that it scales",
    ),
    "an up bias alone": (lambda lora: lora | {"blocks.2.ffn.0.lora_up.bias": torch.ones(256)}, "not the up part"),
    "a long name": (lambda lora: lora | {"model." * 10_000 + "x": torch.ones(2)}, "matches no module"),
    "alpha 0": (lambda lora: _with_first(lora, ".alpha", lambda x: x * 0), r"alpha is 0\.0; a number above 0"),
    "a negative alpha": (lambda lora: _with_first(lora, ".alpha", lambda x: -x), r"alpha is -1\.0; a number above 0"),
    "an infinite alpha": (lambda lora: _with_first(lora, ".alpha", lambda x: x / 0), "alpha is inf"),
    "an alpha that is no number": (lambda lora: _with_first(lora, ".alpha", lambda x: x * torch.nan), "alpha is nan"),
    "a huge alpha": (lambda lora: _with_first(lora, ".alpha", lambda x: x * 1e30), "a number above 0 is expected"),
    "a block too many": (lambda lora: lora | {"blocks.99.ffn.0.diff_b": torch.ones(2)}, "blocks.99"),
    "a whole difference of another size": (lambda lora: lora | {"blocks.0.diff_m": torch.ones(1, 2)}, "does not fit"),
    "an unknown part": (lambda lora: lora | {"blocks.0.attn1.to_q.dora_scale": torch.ones(2)}, "is a DoRA"),
    "no up": (lambda lora: _without(lora, "q.lora_up.weight"), "not the up part"),
    "no down": (lambda lora: _without(lora, "q.lora_down.weight"), "not the down part"),
    "another width": (lambda lora: _with_first(lora, "lora_down.weight", lambda x: x[:, :-1].clone()), "does not fit"),
    "another height": (lambda lora: _with_first(lora, "lora_up.weight", lambda x: x[:-1].clone()), "does not fit"),
    "a bias of another height": (lambda lora: lora | {"blocks.1.self_attn.q.lora_up.bias": torch.ones(1)}, "not fit"),
    "a larger kernel": (
        lambda lora: (
            lora
            | {f"patch_embedding.lora_{part}.weight": torch.ones(*shape, 1, 2, 2) for part, shape in _PATCHES.items()}
        ),
        "does not fit",
    ),
    "another rank": (lambda lora: _with_first(lora, "lora_up.weight", lambda x: x[:, :-1].clone()), "does not fit"),
    "not finite": (lambda lora: _with_first(lora, "lora_up.weight", lambda x: x / 0), "not finite"),
    "twice": (lambda lora: lora | {"blocks.1.attn1.to_q.alpha": torch.tensor(1.0)}, "twice"),
    "empty": (lambda lora: {}, "no tensors"),
    "of rank 0": (
        lambda lora: _with_first(
            _with_first(lora, "q.lora_down.weight", lambda x: x[:0]), "q.lora_up.weight", lambda x: x[:, :0].clone()
        ),
        r"shape \[0, \d+\], which is not a matrix",
    ),
    "no matrix": (lambda lora: _with_first(lora, "lora_down.weight", lambda x: x.sum()), r"shape \[\], which is no"),
    "two alphas": (lambda lora: _with_first(lora, ".alpha", lambda x: torch.ones(2)), "is not one number"),
    "no alpha": (lambda lora: _with_first(lora, ".alpha", lambda x: torch.ones(0)), "is not one number"),
    "integers": (lambda lora: _with_first(lora, "lora_down.weight", lambda x: x.int()), "not finite"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_a_file_that_does_not_fit_is_refused_and_changes_nothing(network, tmp_path, case):
    before = _before(network)
    tensors, _ = _lora(network, "wan", 1.0)
    break_it, message = BROKEN[case]
    path = _file(tmp_path, break_it(tensors))
    with pytest.raises(ModelFilesError, match=message) as raised:
        fuse_lora(network, LoraFile(path))
    assert str(path) in str(raised.value)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())


def test_files_that_cannot_be_read(network, tmp_path):
    with pytest.raises(ModelFilesError, match=r"absent\.safetensors: is missing"):
        fuse_lora(network, LoraFile(tmp_path / "absent.safetensors"))
    path = _file(tmp_path, _lora(network, "wan", 1.0)[0])
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelFilesError, match="cannot be read"):
        fuse_lora(network, LoraFile(path))
    path.write_bytes(b"")
    with pytest.raises(ModelFilesError, match="cannot be read"):
        fuse_lora(network, LoraFile(path))
    with pytest.raises(InputError, match="strength=nan"):
        LoraFile(path, float("nan"))


METADATA = (
    "[1]",
    "null",
    "[" * 100_000,
    '{"lora_alpha":' * 100_000,
    '{"lora_alpha": "many"}',
    '{"lora_alpha": "4"}',
    '{"lora_alpha": true}',
    '{"lora_alpha": [4]}',
    '{"lora_alpha": null}',
    '{"lora_alpha": 0}',
    '{"lora_alpha": -4}',
    '{"lora_alpha": NaN}',
    '{"lora_alpha": -Infinity}',
    '{"lora_alpha": 1e400}',
    '{"lora_alpha": 1e-400}',
    f'{{"lora_alpha": 1{"0" * 400}}}',
    f'{{"lora_alpha": 1{"0" * 5000}}}',
    '{"alpha_pattern": [1]}',
    '{"alpha_pattern": {"to_q": "four"}}',
    '{"alpha_pattern": {"to_q": 1e400}}',
)


@pytest.mark.parametrize("metadata", METADATA, ids=lambda text: text[:40])
def test_an_unusable_alpha_in_the_metadata_is_refused(network, tmp_path, metadata):
    path = _file(tmp_path, _lora(network, "bare", None)[0], {"lora_adapter_metadata": metadata})
    with pytest.raises(ModelFilesError, match=r"distilled\.safetensors: .*lora_adapter_metadata") as raised:
        read_contents(path, {name: tuple(one.shape) for name, one in network.named_parameters()})
    assert not raised.value.retryable
    assert len(str(raised.value)) < 1000


ALPHA_BITS = {
    torch.float64: 8,
    torch.float32: 4,
    torch.float16: 2,
    torch.bfloat16: 2,
    torch.float8_e4m3fn: 1,
    torch.float8_e5m2: 1,
    torch.int64: 8,
    torch.int32: 4,
    torch.int16: 2,
    torch.uint8: 1,
}


@pytest.mark.parametrize("dtype", ALPHA_BITS, ids=str)
def test_alphas_are_read_as_torch_reads_them(network, tmp_path, dtype):
    tensors, _ = _lora(network, "wan", 1.0)
    shapes = {name: tuple(one.shape) for name, one in network.named_parameters()}
    for value in (1.0, 2.0, 12.0, 20.0, 0.875, 0.001953125, 0.015625):
        alpha = torch.tensor(value).to(dtype)
        if not alpha:
            continue
        path = _file(tmp_path, _with_first(tensors, "head.head.alpha", lambda _, alpha=alpha: alpha))
        assert read_contents(path, shapes).deltas["proj_out"].scale == alpha.double().item() / RANK


def test_no_two_targets_share_a_name(network):
    targets = targets_of(dict(network.named_parameters()))
    for target in targets:
        for name in (target, f"transformer.{target}", f"lora_unet_{target.replace('.', '_')}"):
            known, unknown = match_names([f"{name}.diff"], targets)
            assert not unknown
            assert known[f"{name}.diff"].target == target


def test_weights_in_fp8_are_refused(network, tmp_path):
    layer = network.blocks[1].attn1.to_q
    layer.weight = torch.nn.Parameter(layer.weight.to(torch.float8_e4m3fn), requires_grad=False)
    with pytest.raises(ModelFilesError, match="fused into weights held in FP8"):
        fuse_lora(network, LoraFile(_file(tmp_path, _lora(network, "wan", 1.0)[0])))


@pytest.fixture
def lora_in_place(own_repository, network) -> LoraFile:
    """A LoRA that lies where requests look for it."""
    path = own_repository.lora("distilled")
    path.parent.mkdir()
    save_file(_lora(network, "wan", 1.0)[0], path)
    return LoraFile(path)


def test_a_lora_is_fused_into_offloaded_blocks(own_repository, lora_in_place, make_inputs):
    budget = MemoryBudget((DeviceBudget("cpu", 0),))
    options = MemoryOptions(keyword="offload")
    plan = choose_plan(PlanRequest(own_repository, torch.float32, options, ClipSize(16, 16, 5)), budget)
    options = SamplingOptions("a dancer", "blurred", 2, 1.0, 0.0)
    clips = []
    for lora, followed in ((None, None), (lora_in_place, None), (lora_in_place, plan)):
        engine = AnimationEngine.load(own_repository, "cpu", lora=lora, plan=followed)
        events = engine.animate(make_inputs(5, 16, 16), options)
        clips.append(np.concatenate([event.frames for event in events if isinstance(event, FramesReady)]))
    assert engine.memory_plan.placement.transformer == "offloaded"
    np.testing.assert_array_equal(clips[1], clips[2])
    assert not np.array_equal(clips[0], clips[1])


def test_an_engine_with_a_lora_is_kept_beside_the_one_without(own_repository, lora_in_place, cache):
    plain, _ = cache.get_or_load(EngineSpec(own_repository, "cpu"))
    with_lora, load = cache.get_or_load(EngineSpec(own_repository, "cpu", lora=lora_in_place))
    assert load.cold
    assert cache.get_or_load(EngineSpec(own_repository, "cpu"))[0] is plain
    assert cache.get_or_load(EngineSpec(own_repository, "cpu", lora=lora_in_place))[0] is with_lora
    stronger, load = cache.get_or_load(EngineSpec(own_repository, "cpu", lora=replace(lora_in_place, strength=2.0)))
    assert load.cold
    weights = [engine.networks.transformer.proj_out.weight for engine in (plain, with_lora, stronger)]
    assert torch.equal(weights[0], AnimationEngine.load(own_repository, "cpu").networks.transformer.proj_out.weight)
    assert ((weights[2] - weights[0]) - 2 * (weights[1] - weights[0])).abs().max() < 1e-6
    assert not torch.equal(weights[0], weights[1])
    lora_in_place.path.touch()
    again, load = cache.get_or_load(EngineSpec(own_repository, "cpu", lora=lora_in_place))
    assert load.cold
    assert again is not with_lora
