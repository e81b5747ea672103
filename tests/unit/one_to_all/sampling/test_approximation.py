"""Approximate modes leave out what they say, for one clip, and nothing when they are off."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from libs.errors import InputError
from libs.one_to_all.network import use_block_cache
from libs.one_to_all.sampling.approximation import EXACT, QUALITIES, Approximation
from libs.one_to_all.sampling.denoise import ChunkConditions, ChunkTask, ClipConditions, denoise, draw_noise
from libs.one_to_all.sampling.guidance import plan_guidance
from libs.one_to_all.sampling.schedule import build_scheduler

STEPS, FRAMES, SIZE = 4, 9, 32
LATENT = SIZE // 8
REPLAY_ALWAYS = Approximation(block_cache_threshold=1e9)


def _random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape) + seed))


@pytest.fixture
def transformer(small_transformer):
    return small_transformer(num_layers=4, num_control_layers=2, num_reference_layers=2)


def _denoise(transformer, approximation: Approximation = EXACT, known: torch.Tensor | None = None, seed: int = 0):
    text_dim = transformer.config.text_dim
    clip = ClipConditions(
        prompt=_random(1, 7, text_dim),
        negative_prompt=_random(1, 9, text_dim),
        image_latents=_random(1, 32, 1, LATENT, LATENT),
        black_latents=_random(1, 32, 1, LATENT, LATENT) * 0.5,
        reference_pose=_random(1, 3, 1, SIZE, SIZE),
    )
    chunk = ChunkConditions(_random(1, 3, FRAMES, SIZE, SIZE, seed=seed), known)
    noise = draw_noise((1, 16, 3, LATENT, LATENT), 42, torch.device("cpu"), torch.float32)
    guidance = plan_guidance(2.0, 1.5)
    scheduler = build_scheduler()
    return denoise(transformer, scheduler, ChunkTask(guidance, clip, chunk, noise, STEPS, approximation))


def _latents(*arguments, **more) -> list[torch.Tensor]:
    return [step.latents for step in _denoise(*arguments, **more)]


def _equal(one: list[torch.Tensor], other: list[torch.Tensor]) -> list[bool]:
    return [torch.equal(*pair) for pair in zip(one, other, strict=True)]


@pytest.fixture
def count_calls(transformer):
    def count(*names: str) -> dict[str, int]:
        calls = dict.fromkeys(names, 0)

        def counter(name):
            def add(*_):
                calls[name] += 1

            return add

        for name in names:
            transformer.get_submodule(name).register_forward_hook(counter(name))
        return calls

    return count


@pytest.mark.parametrize("known", [None, _random(1, 16, 2, LATENT, LATENT)])
def test_a_threshold_of_zero_changes_no_bit(transformer, known):
    exact = _latents(transformer, known=known)
    assert all(_equal(_latents(transformer, Approximation(block_cache_threshold=0.0), known=known), exact))


def test_a_cached_pass_runs_the_first_block_only(transformer, count_calls):
    # blocks themselves are called in any case: what counts is whether their parts are
    calls = count_calls("blocks.0.ffn", "blocks.1.ffn", "blocks.3.ffn", "controlnet.blocks.1", "input_hint_block")
    _latents(transformer, REPLAY_ALWAYS)
    assert calls == {
        "blocks.0.ffn": 3 * STEPS,
        "blocks.1.ffn": 3,
        "blocks.3.ffn": 3,
        "controlnet.blocks.1": 2,  # the unconditional pass has no pose
        "input_hint_block": 2,
    }


def test_a_chunk_sees_nothing_of_the_one_before(transformer):
    first = _latents(transformer, REPLAY_ALWAYS)
    other = _latents(transformer, REPLAY_ALWAYS, seed=1)
    assert not torch.equal(first[0], other[0])
    assert all(_equal(_latents(transformer, REPLAY_ALWAYS), first))


def test_nothing_is_left_for_an_exact_clip(transformer):
    exact = _latents(transformer)
    fast = _latents(transformer, REPLAY_ALWAYS)
    assert _equal(fast, exact) == [True] + [False] * (STEPS - 1)
    assert not transformer.is_cache_enabled
    assert all(_equal(_latents(transformer), exact))
    abandoned = _denoise(transformer, REPLAY_ALWAYS)
    next(abandoned)
    assert all(_equal(_latents(transformer), exact))


def test_nothing_is_left_of_a_chunk_that_is_left_or_fails(transformer):
    left = _denoise(transformer, REPLAY_ALWAYS)
    next(left)
    assert transformer.is_cache_enabled
    left.close()
    assert not transformer.is_cache_enabled

    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    handle = transformer.blocks[1].ffn.register_forward_hook(fail)
    with pytest.raises(torch.OutOfMemoryError):
        _latents(transformer, REPLAY_ALWAYS)
    handle.remove()
    assert not transformer.is_cache_enabled


def test_a_chunk_that_ends_late_does_not_end_the_cache_of_the_next(transformer):
    """A traceback can keep it for a while."""
    expected = _latents(transformer, REPLAY_ALWAYS)
    abandoned, following = _denoise(transformer, REPLAY_ALWAYS), _denoise(transformer, REPLAY_ALWAYS)
    next(abandoned)
    first = next(following).latents
    abandoned.close()
    assert transformer.is_cache_enabled
    assert all(_equal([first, *(step.latents for step in following)], expected))
    assert not transformer.is_cache_enabled


def test_each_pass_has_a_separate_state(transformer):
    common = {
        "hidden_states": _random(1, 16, 3, LATENT, LATENT),
        "controlnet_cond": _random(1, 3, FRAMES, SIZE, SIZE),
        "image_latents": _random(1, 32, 1, LATENT, LATENT),
        "image_pose": _random(1, 3, 1, SIZE, SIZE),
    }
    texts = {name: _random(1, 7, transformer.config.text_dim, seed=seed) for seed, name in enumerate("ab")}

    def run(calls: str, contexts: str) -> list[torch.Tensor]:
        use_block_cache(transformer, 1e9)
        outputs = []
        for index, (name, context) in enumerate(zip(calls, contexts, strict=True)):
            time = torch.tensor([900.0 - 100 * (index * 2 // len(calls))])
            with transformer.cache_context(context):
                outputs.append(transformer(**common, timestep=time, encoder_hidden_states=texts[name]).sample)
        use_block_cache(transformer, None)
        return outputs

    with torch.no_grad():
        together = run("abab", "abab")
        assert all(_equal(together[0::2], run("aa", "aa")))
        assert all(_equal(together[1::2], run("bb", "bb")))
        assert not torch.equal(run("abab", "aaaa")[3], together[3])


def test_what_the_control_branch_adds_is_replayed(transformer):
    inputs = {
        "hidden_states": _random(1, 16, 3, LATENT, LATENT),
        "timestep": torch.tensor([500.0]),
        "encoder_hidden_states": _random(1, 7, transformer.config.text_dim),
        "controlnet_cond": _random(1, 3, FRAMES, SIZE, SIZE),
        "image_latents": _random(1, 32, 1, LATENT, LATENT),
        "image_pose": _random(1, 3, 1, SIZE, SIZE),
    }
    with torch.no_grad():
        expected = transformer(**inputs).sample
        without = transformer(**inputs, conditioning_scale=0.0).sample
        use_block_cache(transformer, 0.01)
        outputs = []
        for _ in range(2):
            with transformer.cache_context("conditional"):
                outputs.append(transformer(**inputs).sample)
    assert torch.equal(outputs[0], expected)
    assert (outputs[1] - expected).abs().max() < 1e-4
    assert (without - expected).abs().max() > 1e-2


def test_late_steps_make_the_conditional_pass_only(transformer, count_calls):
    exact = _latents(transformer)
    calls = count_calls("blocks.0", "controlnet.blocks.0")
    half = _latents(transformer, Approximation(guided_share=0.5))
    assert calls == {"blocks.0": 3 * 2 + 2, "controlnet.blocks.0": 2 * 2 + 2}
    assert _equal(half, exact) == [True, True, False, False]


def test_no_guided_step_is_the_clip_without_guidance(transformer):
    unguided = _latents(transformer, Approximation(guided_share=0.0))
    assert not any(_equal(unguided, _latents(transformer)))
    assert plan_guidance(2.0, 1.5).unguided() == plan_guidance(1.0, 1.0)


@given(st.floats(0, 1), st.integers(1, 200))
def test_guided_steps(share, steps):
    guided = Approximation(guided_share=share).guided_steps(steps)
    assert share * steps <= guided <= share * steps + 1
    assert guided <= steps


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block_cache_threshold": -0.1}, "block_cache_threshold=-0.1"),
        ({"block_cache_threshold": float("nan")}, "block_cache_threshold=nan"),
        ({"block_cache_threshold": float("inf")}, "block_cache_threshold=inf"),
        ({"guided_share": 1.5}, "guided_share=1.5"),
        ({"guided_share": -0.5}, "guided_share=-0.5"),
    ],
)
def test_impossible_settings_are_named(options, message):
    with pytest.raises(InputError, match=message):
        Approximation(**options)


def test_exact_leaves_nothing_out():
    assert QUALITIES["exact"] == EXACT == Approximation()
    assert EXACT not in (QUALITIES["fast"], QUALITIES["draft"])


def test_a_divided_network_has_no_cache(transformer):
    transformer._parallel_config = object()
    with pytest.raises(InputError, match="quality: exact"):
        use_block_cache(transformer, 0.1)
    use_block_cache(transformer, None)
