"""Named schedules, lists of sigmas, and the samplers on them."""

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

from libs.errors import InputError
from libs.one_to_all.options import SamplingOptions
from libs.one_to_all.sampling.denoise import ChunkConditions, ChunkTask, ClipConditions, denoise, draw_noise
from libs.one_to_all.sampling.guidance import plan_guidance
from libs.one_to_all.sampling.schedule import (
    EulerSampler,
    UniPCSampler,
    build_sampler,
    build_scheduler,
    explicit_sigmas,
    noise_levels,
)

SIXTH = [1, 0.972, 0.933, 0.875, 0.778, 0.583, 0]


def velocity_of(latents: torch.Tensor, index: int) -> torch.Tensor:
    """A smooth stand-in for the network."""
    return torch.sin(latents.float() * 1.3 + index).to(latents.dtype)


def walk(sampler, latents: torch.Tensor, steps: int) -> torch.Tensor:
    for index in range(steps):
        latents = sampler.step(latents, velocity_of(latents, index), index)
    return latents


def test_linear_is_spaced_as_public_setups_have_it():
    assert [round(sigma, 3) for sigma in explicit_sigmas("linear", 6, 7.0)] == SIXTH
    reference = FlowMatchEulerDiscreteScheduler(shift=7.0)
    reference.set_timesteps(sigmas=np.linspace(1, 0, 7)[:-1])
    levels = noise_levels(build_scheduler(), "linear", 6, 7.0)
    assert torch.allclose(levels.sigmas, reference.sigmas, atol=1e-6)
    assert torch.allclose(levels.timesteps, reference.timesteps, atol=1e-3)


def test_distilled_has_the_levels_that_step_distilled_loras_were_trained_for():
    sigmas = explicit_sigmas("distilled", 4, 5.0)
    assert sigmas == pytest.approx([1, 0.9375, 0.8333333, 0.625, 0], abs=1e-6)
    timesteps = torch.tensor([1000, 750, 500, 250]) / 1000
    shifted = 5 * timesteps / (1 + 4 * timesteps)
    assert torch.allclose(noise_levels(build_scheduler(), "distilled", 4, 5.0).timesteps, shifted * 1000)


def test_default_is_the_scheduler_itself_bit_for_bit():
    reference = build_scheduler()
    reference.set_timesteps(30)
    levels = noise_levels(build_scheduler(), "default", 30, 7.0)
    assert torch.equal(levels.sigmas, reference.sigmas)
    assert torch.equal(levels.timesteps, reference.timesteps)


def test_sigmas_are_taken_as_given():
    assert explicit_sigmas((1.0, 0.5), 2, 7.0) == (1.0, 0.5, 0.0)


@pytest.mark.parametrize("name", ["default", "linear"])
def test_euler_goes_where_diffusers_goes(name):
    levels = noise_levels(build_scheduler(), name, 5, 7.0)
    reference = build_scheduler()
    reference.set_timesteps(5)
    reference.sigmas, reference.timesteps = levels.sigmas, levels.timesteps
    theirs = noise = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    for index, timestep in enumerate(reference.timesteps):
        theirs = reference.step(velocity_of(theirs, index), timestep, theirs, return_dict=False)[0]
    assert torch.equal(walk(EulerSampler(levels), noise, 5), theirs)


@pytest.mark.parametrize("steps", [1, 2, 3, 8])
@pytest.mark.parametrize("first", [1.0, 0.98])
def test_unipc_is_that_of_diffusers_on_the_same_sigmas(steps, first):
    sigmas = tuple(first * (1 - index / steps) for index in range(steps))
    levels = noise_levels(build_scheduler(), sigmas, steps, 7.0)
    reference = UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=1.0)
    reference.set_timesteps(sigmas=levels.sigmas[:-1].double().numpy())
    theirs = noise = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    for index, timestep in enumerate(reference.timesteps):
        theirs = reference.step(velocity_of(theirs, index), timestep, theirs, return_dict=False)[0]
    ours = walk(build_sampler("unipc", levels), noise, steps)
    assert torch.isfinite(ours).all()
    assert torch.equal(ours, theirs)


def test_unipc_is_of_higher_order_than_euler():
    """On dx/dsigma = x, whose solution is known, its error shrinks much faster."""
    errors = {}
    for name in ("euler", "unipc"):
        levels = noise_levels(build_scheduler(), "linear", 16, 1.0)
        latents = torch.ones(1, 1)
        sampler = build_sampler(name, levels)
        for index in range(16):
            latents = sampler.step(latents, latents, index)
        errors[name] = abs(float(latents) - float(torch.exp(torch.tensor(-1.0))))
    assert errors["unipc"] < errors["euler"] / 5


def test_unipc_keeps_its_sums_in_float32():
    levels = noise_levels(build_scheduler(), "linear", 6, 7.0)
    sampler = UniPCSampler(levels)
    latents = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert walk(sampler, latents, 6).dtype == torch.bfloat16
    assert all(output.dtype == torch.float32 for output in sampler._scheduler.model_outputs if output is not None)


def test_a_chunk_is_denoised_on_its_schedule_and_keeps_known_latents(small_transformer):
    transformer = small_transformer(num_layers=2, num_control_layers=1, num_reference_layers=1)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))

    pictures = random(1, 32, 1, 4, 4), random(1, 32, 1, 4, 4) * 0.5, random(1, 3, 1, 32, 32)
    clip = ClipConditions(random(1, 7, transformer.config.text_dim), None, *pictures)
    noise = draw_noise((1, 16, 3, 4, 4), 42, torch.device("cpu"), torch.float32)
    known = random(1, 16, 2, 4, 4)
    chunk = ChunkConditions(random(1, 3, 9, 32, 32), known)

    def latents(steps: int, **changes) -> torch.Tensor:
        task = ChunkTask(plan_guidance(1.0, 0.0), clip, chunk, noise, steps, **changes)
        *_, last = denoise(transformer, build_scheduler(), task)
        assert (last.step, last.step_count) == (steps, steps)
        assert torch.equal(last.latents[:, :, :2], known)
        return last.latents

    listed = latents(4, schedule=explicit_sigmas("distilled", 4, 5.0)[:-1], sampler="unipc")
    assert torch.equal(latents(4, schedule="distilled", shift=5.0, sampler="unipc"), listed)
    assert not torch.equal(latents(4, schedule="distilled", shift=5.0), listed)
    assert not torch.equal(latents(4), latents(4, schedule="linear"))


def options(steps: int, image: float = 1.0, pose: float = 1.0, **changes) -> SamplingOptions:
    return SamplingOptions("", "", steps, image, pose, **changes)


@pytest.mark.parametrize(
    ("steps", "changes", "message"),
    [
        (6, {"schedule": "distilled", "shift": 5.0}, "schedule distilled has 4 steps and shift 5, not 6 steps"),
        (4, {"schedule": "distilled"}, "not 4 steps and shift 7"),
        (2, {"schedule": (1.0,)}, "schedule has 1 sigmas for 2 steps"),
        (2, {"schedule": (0.5, 0.5)}, "descending"),
        (1, {"schedule": (1.5,)}, "above 0 and at most 1"),
        (1, {"schedule": (float("nan"),)}, "above 0 and at most 1"),
        (0 + 1, {"schedule": ()}, "at least one sigma"),
        (4, {"pose_guidance_alone": True}, "pose guidance above 1"),
        (4, {"pose_guidance_alone": True, "image": 2.0, "pose": 1.5}, "image guidance of at most 1"),
    ],
)
def test_options_that_do_not_agree_are_refused(steps, changes, message):
    with pytest.raises(InputError, match=message):
        options(steps, **changes)


def test_only_what_is_chosen_is_written():
    plain = options(4).describe()
    assert not plain.keys() & {"schedule", "sampler", "shift", "pose_guidance_alone"}
    chosen = options(2, pose=1.5, schedule=(1.0, 0.5), sampler="unipc", pose_guidance_alone=True).describe()
    assert (chosen["schedule"], chosen["sampler"], chosen["pose_guidance_alone"]) == ([1.0, 0.5], "unipc", True)
