"""The schedule's shift is an option of a clip: it reaches the scheduler, and names what it was used for."""

import pytest
import torch

from libs.errors import InputError
from libs.one_to_all.options import SamplingOptions
from libs.one_to_all.sampling.denoise import ChunkConditions, ChunkTask, ClipConditions, denoise, draw_noise
from libs.one_to_all.sampling.guidance import plan_guidance
from libs.one_to_all.sampling.schedule import SHIFT, UNWRITTEN_SHIFT, build_scheduler

OPTIONS = SamplingOptions("a puppet", "", 4, 2.0, 1.5)


def _first_latents(transformer, scheduler, **changes) -> torch.Tensor:
    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))

    text_dim = transformer.config.text_dim
    pictures = random(1, 32, 1, 4, 4), random(1, 32, 1, 4, 4) * 0.5, random(1, 3, 1, 32, 32)
    clip = ClipConditions(random(1, 7, text_dim), random(1, 9, text_dim), *pictures)
    noise = draw_noise((1, 16, 3, 4, 4), 42, torch.device("cpu"), torch.float32)
    chunk = ChunkConditions(random(1, 3, 9, 32, 32), None)
    task = ChunkTask(plan_guidance(1.0, 0.0), clip, chunk, noise, 4, **changes)
    return next(denoise(transformer, scheduler, task)).latents


def test_a_chunk_is_denoised_with_the_shift_it_asks_for(small_transformer):
    transformer = small_transformer(num_layers=2, num_control_layers=1, num_reference_layers=1)
    default = _first_latents(transformer, build_scheduler())
    assert torch.equal(_first_latents(transformer, build_scheduler(), shift=SHIFT), default)
    other = _first_latents(transformer, build_scheduler(), shift=3.0)
    assert not torch.equal(other, default)
    assert torch.equal(other, _first_latents(transformer, build_scheduler(3.0), shift=3.0))


def test_only_another_shift_than_that_of_the_first_clips_is_written():
    assert OPTIONS.shift == SHIFT == UNWRITTEN_SHIFT == 7.0
    assert "shift" not in OPTIONS.describe()
    other = SamplingOptions("a puppet", "", 4, 2.0, 1.5, shift=5.0)
    assert other.describe() == {**OPTIONS.describe(), "shift": 5.0}


@pytest.mark.parametrize("shift", [0.0, -1.0, float("nan"), float("inf")])
def test_an_invalid_shift_is_refused(shift):
    with pytest.raises(InputError, match=r"shift=.* must be a number above 0"):
        SamplingOptions("", "", 4, 2.0, 1.5, shift=shift)
