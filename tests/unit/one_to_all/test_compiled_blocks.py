"""Compiled blocks give what eager ones give: with known frames, shared attention and remembered text keys."""

import shutil

import pytest
import torch

from libs.one_to_all.compilation import apply_speed
from libs.one_to_all.sampling.denoise import ChunkConditions, ChunkTask, ClipConditions, denoise, draw_noise
from libs.one_to_all.sampling.guidance import Guidance, plan_guidance
from libs.one_to_all.sampling.schedule import build_scheduler
from libs.one_to_all.speed_options import SpeedOptions

CPU, FRAMES, SIZE, LATENT = torch.device("cpu"), 9, 32, 4


@pytest.fixture(autouse=True)
def _compile_anew():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def _latents(transformer, guidance: Guidance) -> torch.Tensor:
    text_dim = transformer.config.text_dim
    clip = ClipConditions(
        prompt=_random(1, 7, text_dim),
        negative_prompt=_random(1, 7, text_dim) * 0.5,
        image_latents=_random(1, 32, 1, LATENT, LATENT),
        black_latents=_random(1, 32, 1, LATENT, LATENT) * 0.5,
        reference_pose=_random(1, 3, 1, SIZE, SIZE),
    )
    chunk = ChunkConditions(_random(1, 3, FRAMES, SIZE, SIZE), _random(1, 16, 2, LATENT, LATENT))
    noise = draw_noise((1, 16, 3, LATENT, LATENT), 42, CPU, torch.float32)
    *_, last = denoise(transformer, build_scheduler(), ChunkTask(guidance, clip, chunk, noise, 2))
    return last.latents


@pytest.mark.slow
def test_all_passes_of_a_step_without_graph_breaks(small_transformer) -> None:
    transformer, guidance = small_transformer(num_layers=3), plan_guidance(2.0, 1.5)
    expected = _latents(transformer, guidance)
    transformer.compile_repeated_blocks(backend="eager", fullgraph=True)
    assert (_latents(transformer, guidance) - expected).abs().max() < 1e-5


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("c++") is None, reason="torch's CPU compiler needs a C++ compiler (c++)")
def test_really_compiled_blocks_compute_the_same(small_transformer) -> None:
    transformer, guidance = small_transformer(num_layers=2), plan_guidance(1.0, 0.0)
    expected = _latents(transformer, guidance)
    lines = apply_speed(transformer, SpeedOptions(compile_blocks=True), CPU, torch.float32)
    assert "compiled" in lines[-1]
    assert (_latents(transformer, guidance) - expected).abs().max() < 1e-5
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
