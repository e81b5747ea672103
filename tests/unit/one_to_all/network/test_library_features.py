"""What diffusers offers for its own models works for this one."""

import pytest
import torch
from diffusers import FirstBlockCacheConfig, PyramidAttentionBroadcastConfig
from peft import LoraConfig

from libs.one_to_all.network import OneToAllAttention, OneToAllTransformer3DModel

LATENT, SIZE, FRAMES = 4, 32, 9


@pytest.fixture
def transformer(small_transformer):
    return small_transformer()


def _inputs(transformer, timestep=500.0, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)

    def random(*shape):
        return torch.randn(shape, generator=generator).to(dtype)

    return {
        "hidden_states": random(1, 16, 3, LATENT, LATENT),
        "timestep": torch.tensor([timestep]),
        "encoder_hidden_states": random(1, 7, transformer.config.text_dim),
        "controlnet_cond": random(1, 3, FRAMES, SIZE, SIZE),
        "image_latents": random(1, 32, 1, LATENT, LATENT),
        "image_pose": random(1, 3, 1, SIZE, SIZE),
    }


def test_saved_and_loaded_by_the_library(transformer, tmp_path):
    transformer.save_pretrained(tmp_path)
    loaded = OneToAllTransformer3DModel.from_pretrained(tmp_path, local_files_only=True)
    assert loaded.config.num_layers == transformer.config.num_layers
    assert all(map(torch.equal, loaded.state_dict().values(), transformer.state_dict().values()))
    # its tensors lie elsewhere in memory, so that a processor may add in another order
    assert (loaded(**_inputs(loaded)).sample - transformer(**_inputs(transformer)).sample).abs().max() < 1e-5


def test_an_adapter_changes_the_output_until_it_is_disabled(transformer):
    before = transformer(**_inputs(transformer)).sample
    transformer.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_v"], init_lora_weights=False))
    assert not torch.equal(transformer(**_inputs(transformer)).sample, before)
    transformer.disable_adapters()
    assert torch.equal(transformer(**_inputs(transformer)).sample, before)


def test_first_block_cache(transformer):
    """Skipped blocks replay what the control branch added to the stream, too."""
    expected = transformer(**_inputs(transformer)).sample
    transformer.enable_cache(FirstBlockCacheConfig(threshold=1e-6))
    calls = []
    transformer.blocks[-1].attn1.register_forward_hook(lambda *_: calls.append(1))
    outputs = []
    for _ in range(2):
        with transformer.cache_context("conditional"):
            outputs.append(transformer(**_inputs(transformer)).sample)
    assert len(calls) == 1
    assert torch.equal(outputs[0], expected)
    assert (outputs[1] - expected).abs().max() < 1e-4
    transformer.disable_cache()
    assert torch.equal(transformer(**_inputs(transformer)).sample, expected)


def test_pyramid_attention_broadcast(transformer):
    transformer.enable_cache(
        PyramidAttentionBroadcastConfig(
            spatial_attention_block_skip_range=2,
            spatial_attention_timestep_skip_range=(0, 1000),
            current_timestep_callback=lambda: 500,
        )
    )
    expected = transformer(**_inputs(transformer)).sample
    assert torch.isfinite(expected).all()
    transformer.disable_cache()


def test_attention_backend(transformer):
    expected = transformer(**_inputs(transformer)).sample
    transformer.set_attention_backend("_native_math")
    processors = [module.processor for module in transformer.modules() if isinstance(module, OneToAllAttention)]
    assert {processor._attention_backend.value for processor in processors} == {"_native_math"}
    assert (transformer(**_inputs(transformer)).sample - expected).abs().max() < 1e-5
    transformer.set_attention_backend("native")


@pytest.mark.slow
def test_regional_compilation_has_no_graph_breaks(transformer):
    expected = transformer(**_inputs(transformer)).sample
    transformer.compile_repeated_blocks(backend="eager", fullgraph=True)
    assert (transformer(**_inputs(transformer)).sample - expected).abs().max() < 1e-6


def test_layerwise_casting_leaves_the_sensitive_layers_alone(transformer):
    expected = transformer(**_inputs(transformer)).sample
    transformer.enable_layerwise_casting(storage_dtype=torch.float8_e4m3fn, compute_dtype=torch.float32)
    assert transformer.blocks[0].attn1.to_q.weight.dtype == torch.float8_e4m3fn
    for name in ("patch_embedding", "condition_embedder.time_proj", "blocks.0.attn1.norm_q", "image_to_cond.conv_in"):
        assert transformer.get_submodule(name).weight.dtype == torch.float32
    output = transformer(**_inputs(transformer)).sample
    assert 0 < (output - expected).norm() / expected.norm() < 0.2
