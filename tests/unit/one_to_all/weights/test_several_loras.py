"""Several LoRAs at a time, names as they are published, and files that fit only in part."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from libs.errors import ModelFilesError
from libs.model_repo.variants import get_variant
from libs.one_to_all.weights.lora import UnfusedLora, fuse_lora
from libs.one_to_all.weights.lora_file import LoraFile, bytes_beside_fp8, check_fits, describe_skipped
from libs.one_to_all.weights.lora_names import match_names

NETWORK = {"num_layers": 2, "num_control_layers": 1, "num_reference_layers": 1}
SANDBOX = get_variant("sandbox")


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed + sum(shape))) * 0.1


def write(path, tensors, strength=1.0, strict=True) -> LoraFile:
    save_file(tensors, path)
    return LoraFile(path, strength, strict)


@pytest.fixture
def loras(tmp_path, small_transformer) -> LoraFile:
    """Two files that change one layer, its bias and a table; by factors of other ranks, LoKr and whole differences."""
    layer = small_transformer(**NETWORK).blocks[0].attn1.to_q
    rows, columns = layer.weight.shape
    first = {
        "diffusion_model.blocks.0.self_attn.q.lora_down.weight": random(2, columns),
        "diffusion_model.blocks.0.self_attn.q.lora_up.weight": random(rows, 2),
        "diffusion_model.blocks.0.self_attn.q.diff_b": random(rows),
        "diffusion_model.blocks.0.self_attn.k.lokr_w1": random(2, 2),
        "diffusion_model.blocks.0.self_attn.k.lokr_w2": random(rows // 2, columns // 2),
        "diffusion_model.blocks.0.diff_m": random(1, 6, rows),
    }
    second = {
        "lora_unet__blocks_0_self_attn_q.lora_down.weight": random(3, columns, seed=1),
        "lora_unet__blocks_0_self_attn_q.lora_up.weight": random(rows, 3, seed=1),
        "lora_unet__blocks_0_self_attn_q.alpha": torch.tensor(1.5),
        "blocks.0.self_attn.k.lokr_w1": random(2, 2, seed=1),
        "blocks.0.self_attn.k.lokr_w2": random(rows // 2, columns // 2, seed=1),
        "pipe.dit.blocks.0.diff_m": random(1, 6, rows, seed=1),
    }
    one, other = write(tmp_path / "one.safetensors", first, 0.8), write(tmp_path / "two.safetensors", second, -0.5)
    return replace(one, others=(other,))


CHANGED = ("blocks.0.attn1.to_q.weight", "blocks.0.attn1.to_k.weight", "blocks.0.scale_shift_table")


def test_the_changes_of_several_files_are_summed(small_transformer, loras):
    both, start = small_transformer(**NETWORK), small_transformer(**NETWORK)
    fuse_lora(both, loras)
    total = {name: torch.zeros_like(start.get_parameter(name)) for name in CHANGED}
    for one in (replace(loras, others=()), *loras.others):
        alone = small_transformer(**NETWORK)
        fuse_lora(alone, one)
        for name in CHANGED:
            change = alone.get_parameter(name) - start.get_parameter(name)
            assert change.abs().max() > 0, name
            total[name] += change
    for name in CHANGED:
        assert torch.allclose(both.get_parameter(name), start.get_parameter(name) + total[name], atol=1e-6), name


def test_one_file_is_fused_as_it_was_before_there_could_be_several(small_transformer, loras):
    network, start = small_transformer(**NETWORK), small_transformer(**NETWORK)
    one = replace(loras, others=())
    fuse_lora(network, one)

    tensors = load_file(one.path)
    key = "diffusion_model.blocks.0.self_attn.q.lora_{}.weight"
    product = tensors[key.format("up")] @ tensors[key.format("down")]
    weight = start.blocks[0].attn1.to_q.weight
    assert torch.equal(network.blocks[0].attn1.to_q.weight, product.mul(0.8).add(weight))


def test_beside_fp8_several_files_equal_their_sum_and_go_without_a_trace(small_transformer, in_fp8, loras):
    network = in_fp8(small_transformer(**NETWORK))
    layers = [network.blocks[0].attn1.to_q, network.blocks[0].attn1.to_k]
    states = random(2, 5, layers[0].in_features, seed=3)
    table = network.blocks[0].scale_shift_table.clone()
    without = [layer(states) for layer in layers]
    unfused = UnfusedLora(network, torch.float32)
    changes = [torch.zeros_like(one) for one in without]
    for one in (replace(loras, others=()), *loras.others):
        assert unfused.set(one)
        for index, layer in enumerate(layers):
            changes[index] += layer(states) - without[index]
    assert unfused.set(loras)
    assert not unfused.set(replace(loras)), "the same files again change nothing"
    for layer, plain, change in zip(layers, without, changes, strict=True):
        assert change.abs().max() > 0
        assert torch.allclose(layer(states), plain + change, atol=1e-5)
    assert not torch.equal(network.blocks[0].scale_shift_table, table)
    assert unfused.set(None)
    assert torch.equal(network.blocks[0].scale_shift_table, table)
    assert all(torch.equal(layer(states), plain) for layer, plain in zip(layers, without, strict=True))


def test_a_published_mixture_of_dots_and_underscores_is_recognised():
    known, unknown = match_names(
        ["lora_unet_blocks_12.self_attn.k.lora_down.weight", "lora_unet_blocks_12.self_attn.k.alpha"],
        {"blocks.12.attn1.to_k"},
    )
    assert not unknown
    assert {one.target for one in known.values()} == {"blocks.12.attn1.to_k"}


def partly_fitting(path, **more) -> LoraFile:
    """As from image-to-video: modules that are not there, and a convolution with more inputs."""
    width = 128
    tensors = {
        "diffusion_model.blocks.0.ffn.2.diff_b": random(width),
        "diffusion_model.blocks.0.cross_attn.k_img.lora_down.weight": random(2, width),
        "diffusion_model.blocks.0.cross_attn.k_img.lora_up.weight": random(width, 2),
        "diffusion_model.patch_embedding.diff": random(width, 36, 1, 2, 2),
        **more,
    }
    return write(path, tensors, strict=False)


def test_what_fits_no_module_is_skipped_and_listed_where_a_request_allows_it(tmp_path):
    lora = partly_fitting(tmp_path / "i2v.safetensors")
    with pytest.raises(ModelFilesError, match=r"2 tensors match no module of this network: .*k_img"):
        check_fits(lora.path, SANDBOX)
    skipped = check_fits(lora.path, SANDBOX, strict=False)
    assert skipped == (
        "diffusion_model.blocks.0.cross_attn.k_img.lora_down.weight",
        "diffusion_model.blocks.0.cross_attn.k_img.lora_up.weight",
        "diffusion_model.patch_embedding.diff",
    )
    assert describe_skipped(skipped).startswith("3 tensors fit no module and are skipped: diffusion_model.blocks.0.")
    assert bytes_beside_fp8(lora, get_variant("sandbox-fp8"), 4) == 128 * 4


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"double_blocks.0.img_attn_qkv.lora_A.weight": torch.ones(2, 2)}, "is for another model"),
        ({"blocks.0.ffn.2.diff_b": torch.ones(5120)}, "does not fit"),
    ],
)
def test_a_file_of_which_nothing_fits_is_refused_all_the_same(tmp_path, tensors, message):
    lora = write(tmp_path / "other.safetensors", tensors, strict=False)
    with pytest.raises(ModelFilesError, match=message):
        check_fits(lora.path, SANDBOX, strict=False)


def test_parts_without_which_the_rest_means_something_else_are_not_skipped(tmp_path):
    lora = partly_fitting(tmp_path / "dora.safetensors", **{"blocks.0.ffn.2.dora_scale": torch.ones(128, 1)})
    with pytest.raises(ModelFilesError, match="is a DoRA"):
        check_fits(lora.path, SANDBOX, strict=False)
