"""What is computed once is computed once, and the result is what computing it every time would give."""

import weakref

import pytest
import torch

from libs.one_to_all.network import ActivationCache
from libs.one_to_all.sampling.denoise import ChunkConditions, ChunkTask, ClipConditions, denoise, draw_noise
from libs.one_to_all.sampling.guidance import plan_guidance
from libs.one_to_all.sampling.schedule import build_scheduler

STEPS, FRAMES, SIZE = 3, 9, 32
LATENT = SIZE // 8


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def _clip(transformer) -> ClipConditions:
    text_dim = transformer.config.text_dim
    return ClipConditions(
        prompt=_random(1, 7, text_dim),
        negative_prompt=_random(1, 9, text_dim),
        image_latents=_random(1, 32, 1, LATENT, LATENT),
        black_latents=_random(1, 32, 1, LATENT, LATENT) * 0.5,
        reference_pose=_random(1, 3, 1, SIZE, SIZE),
    )


def _chunk(previous: bool) -> ChunkConditions:
    known = _random(1, 16, 2, LATENT, LATENT) if previous else None
    return ChunkConditions(_random(1, 3, FRAMES, SIZE, SIZE), known)


class _Calls:
    """Counts how often modules run."""

    def __init__(self, transformer: torch.nn.Module, *names: str) -> None:
        self.count = dict.fromkeys(names, 0)
        for name in names:
            transformer.get_submodule(name).register_forward_hook(self._counter(name))

    def _counter(self, name):
        def count(*_):
            self.count[name] += 1

        return count


@pytest.mark.parametrize("previous", [False, True])
@pytest.mark.parametrize("intermediate", ["without_image", "without_pose"])
def test_each_result_is_computed_once_in_a_clip_of_two_chunks(small_transformer, intermediate, previous):
    transformer = small_transformer()
    calls = _Calls(
        transformer,
        "condition_embedder.text_embedder",
        "blocks.0.attn2.to_k",
        "blocks.0.attn2.to_q",
        "image_to_cond",
        "input_hint_block",
        "refextractor",
        "condition_embedder",
        "controlnet.blocks.0",
        "blocks.0",
        "blocks.0.attn1",
    )
    clip, activations, chunks = _clip(transformer), ActivationCache(), 2
    guidance = plan_guidance(2.0, 1.5, 1.0, intermediate)
    for _ in range(chunks):
        noise = draw_noise((1, 16, 3, LATENT, LATENT), 42, torch.device("cpu"), torch.float32)
        steps = denoise(
            transformer, build_scheduler(), ChunkTask(guidance, clip, _chunk(previous), noise, STEPS), activations
        )
        held = [activations.result_count("step") for _ in steps]
        assert held == held[:1] * STEPS, "what belongs to a step is forgotten with it"
        assert activations.result_count("chunk") == activations.result_count("step") == 0, (
            "and all but the clip's before decoding"
        )
    passes = 3 * STEPS * chunks
    with_black_pose = intermediate == "without_pose"
    assert calls.count == {
        "blocks.0": passes,
        "blocks.0.attn2.to_q": passes,
        # two of three passes see the same image
        "blocks.0.attn1": 2 * STEPS * chunks,
        # once per clip
        "condition_embedder.text_embedder": 2,
        "blocks.0.attn2.to_k": 2,
        "image_to_cond": 2,
        # the reference pose once per clip, the pose video once per chunk; the black ones only where they are used
        "input_hint_block": (1 + chunks) + (2 * chunks if with_black_pose else 0),
        # once per step and image
        "refextractor": 2 * STEPS * chunks,
        # once per step and time
        "condition_embedder": STEPS * chunks * (2 if previous else 1),
        # never in the unconditional pass
        "controlnet.blocks.0": 2 * STEPS * chunks,
    }


@pytest.mark.parametrize("previous", [False, True])
@pytest.mark.parametrize("intermediate", ["without_image", "without_pose"])
def test_the_activation_cache_changes_no_bit(small_transformer, intermediate, previous, monkeypatch):
    transformer = small_transformer(num_layers=3, num_control_layers=2, num_reference_layers=2)
    noise = draw_noise((1, 16, 3, LATENT, LATENT), 42, torch.device("cpu"), torch.float32)

    def run() -> list[torch.Tensor]:
        guidance = plan_guidance(2.0, 1.5, 0.8, intermediate)
        steps = denoise(
            transformer, build_scheduler(), ChunkTask(guidance, _clip(transformer), _chunk(previous), noise, STEPS)
        )
        return [step.latents for step in steps]

    shared = run()
    monkeypatch.setattr(ActivationCache, "get_or_compute", lambda self, scope, name, inputs, compute: compute())
    monkeypatch.setattr(ActivationCache, "first_self_attention", lambda self, inputs: None)
    assert all(torch.equal(*pair) for pair in zip(shared, run(), strict=True))


def test_skipping_the_control_branch_changes_no_bit(small_transformer):
    transformer = small_transformer()
    inputs = {
        "hidden_states": _random(1, 16, 3, LATENT, LATENT),
        "timestep": torch.tensor([500.0]),
        "encoder_hidden_states": _random(1, 7, transformer.config.text_dim),
        "controlnet_cond": _random(1, 3, FRAMES, SIZE, SIZE),
        "image_latents": _random(1, 32, 1, LATENT, LATENT),
        "image_pose": _random(1, 3, 1, SIZE, SIZE),
    }
    with_pose = transformer(**inputs).sample
    skipped = transformer(**inputs, conditioning_scale=0).sample
    assert torch.equal(skipped, transformer(**{**inputs, "controlnet_cond": None}, conditioning_scale=0.0).sample)
    assert not torch.equal(skipped, with_pose)
    for project in transformer.controlnet_zero:  # the branch runs, and adds exact zeros
        project.weight.zero_()
        project.bias.zero_()
    assert torch.equal(skipped, transformer(**inputs).sample)


def test_poses_are_required_unless_their_strength_is_zero(small_transformer):
    transformer = small_transformer()
    with pytest.raises(ValueError, match="controlnet_cond"):
        transformer(
            _random(1, 16, 3, LATENT, LATENT),
            torch.tensor([500.0]),
            _random(1, 7, transformer.config.text_dim),
            None,
            _random(1, 32, 1, LATENT, LATENT),
            None,
        )


def test_the_activation_cache_knows_tensors_by_identity():
    activations, calls = ActivationCache(), []
    one, equal = torch.zeros(3), torch.zeros(3)
    for tensor in (one, one, equal):
        activations.get_or_compute("chunk", "piece", (tensor,), lambda: calls.append(1))
    assert len(calls) == 2
    activations.start_step()
    activations.get_or_compute("chunk", "piece", (one,), lambda: calls.append(1))
    assert len(calls) == 2
    known = weakref.ref(equal)
    del tensor, equal
    assert known() is not None, "or another tensor could come to have its identity"
    activations.start_chunk()
    assert known() is None
    activations.get_or_compute("chunk", "piece", (one,), lambda: calls.append(1))
    assert len(calls) == 3


def test_large_text_keys_are_not_kept():
    activations = ActivationCache()
    assert activations.text_keys(torch.empty(1, 512, 5120, dtype=torch.bfloat16, device="meta"), 40) is None
    small = torch.zeros(1, 512, 1536, dtype=torch.bfloat16)
    assert activations.text_keys(small, 30) is activations.text_keys(small, 30)
