"""Noise schedules, by name or as a list of sigmas, and the samplers that step from one noise level to the next.

Light to import: torch and diffusers are loaded when levels or a sampler are made.

- ``default``: diffusers' flow-matching schedule as the network was used, with the shift applied in the constructor and
  again in ``set_timesteps`` (docs/specification.md#scheduler).
- ``linear``: evenly spaced from 1 to 0, shifted once. Step-distilled LoRAs are commonly used with it.
- ``distilled``: the four levels that step-distilled LoRAs of Wan2.1 were trained for.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal, Protocol

from libs.errors import InputError

if TYPE_CHECKING:
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler

ScheduleName = Literal["default", "linear", "distilled"]
Schedule = ScheduleName | tuple[float, ...]
"""A named schedule, or the sigma before each step, descending within (0, 1]; the last step always ends at 0."""

SamplerName = Literal["euler", "unipc"]

SHIFT = 7.0
"""Shift of the noise levels towards high noise, with which the network was trained: the default of every clip."""

UNWRITTEN_SHIFT = 7.0
"""The shift that names of chunks and origins of clips leave out: that of all clips from before it was recorded.

It never changes. Another ``SHIFT`` is written, so that no chunk made with this one is reused. See
``libs.stages.clip.chunk_prefix``.
"""

DISTILLED_STEPS = 4
DISTILLED_SHIFT = 5.0
"""Of the schedule ``distilled``: timesteps 1000, 750, 500, 250, shifted by 5."""

TRAIN_TIMESTEPS = 1000
"""Noise levels the network was trained with; a clip has at most as many steps."""


@dataclass(frozen=True, eq=False)
class NoiseLevels:
    """The noise levels of a chunk.

    Args:
        sigmas: float32 on the CPU, one before each step and 0 after the last.
        timesteps: float32 on the CPU, what the network is told at each step.
    """

    sigmas: "torch.Tensor"
    timesteps: "torch.Tensor"


class Sampler(Protocol):
    """Takes one chunk from noise to latents, step by step; it may remember the steps before."""

    def step(self, latents: "torch.Tensor", velocity: "torch.Tensor", index: int) -> "torch.Tensor":
        """The latents after step ``index`` (from 0), in the velocity's dtype."""


def check_schedule(schedule: Schedule, steps: int, shift: float) -> None:
    """Raise unless ``schedule`` has this number of steps and this shift.

    Raises:
        InputError: says what is expected.
    """
    if isinstance(schedule, str):
        if schedule == "distilled" and (steps, shift) != (DISTILLED_STEPS, DISTILLED_SHIFT):
            raise InputError(
                f"schedule distilled has {DISTILLED_STEPS} steps and shift {DISTILLED_SHIFT:g}, not {steps} steps and "
                f"shift {shift:g}: use the schedule linear for others"
            )
        return
    if problem := problem_of_sigmas(schedule):
        raise InputError(f"schedule {problem}")
    if len(schedule) != steps:
        raise InputError(f"schedule has {len(schedule)} sigmas for {steps} steps: one for each step is expected")


def problem_of_sigmas(sigmas: Sequence[float]) -> str | None:
    """What is wrong with a list of sigmas, as the end of a sentence; None if nothing is."""
    if not sigmas:
        return "must have at least one sigma"
    if not all(math.isfinite(sigma) and 0 < sigma <= 1 for sigma in sigmas):
        return "must have sigmas above 0 and at most 1 (a 0 at the end may be left out)"
    if any(after >= before for before, after in pairwise(sigmas)):
        return "must have descending sigmas, each below the one before"
    return None


def explicit_sigmas(schedule: Schedule, steps: int, shift: float) -> tuple[float, ...] | None:
    """The sigmas of a schedule that says them itself, 0 at the end included; None for ``default``."""
    if schedule == "default":
        return None
    if not isinstance(schedule, str):
        return (*schedule, 0.0)
    levels = (1 - index / steps for index in range(steps + 1))
    return tuple(shift * level / (1 + (shift - 1) * level) for level in levels)


def noise_levels(
    scheduler: "FlowMatchEulerDiscreteScheduler", schedule: Schedule, steps: int, shift: float
) -> NoiseLevels:
    """The noise levels of a chunk.

    Args:
        scheduler: as ``build_scheduler`` makes it, for the default schedule; one of another shift is not used.
        schedule: a name, or sigmas.
        steps: of the chunk.
        shift: of the noise levels; sigmas that are given are taken as they are.
    """
    import torch  # noqa: PLC0415

    sigmas = explicit_sigmas(schedule, steps, shift)
    if sigmas is not None:
        levels = torch.tensor(sigmas, dtype=torch.float32)
        return NoiseLevels(levels, levels[:-1] * TRAIN_TIMESTEPS)
    if scheduler.config.shift != shift:
        scheduler = build_scheduler(shift)
    scheduler.set_timesteps(steps)
    return NoiseLevels(scheduler.sigmas, scheduler.timesteps)


def build_scheduler(shift: float = SHIFT) -> "FlowMatchEulerDiscreteScheduler":
    """A fresh scheduler; ``set_timesteps`` is the caller's."""
    from diffusers import FlowMatchEulerDiscreteScheduler  # noqa: PLC0415

    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=TRAIN_TIMESTEPS, shift=shift, use_dynamic_shifting=False)


def build_sampler(name: SamplerName, levels: NoiseLevels) -> Sampler:
    """A fresh sampler for one chunk."""
    return EulerSampler(levels) if name == "euler" else UniPCSampler(levels)


class EulerSampler:
    """Euler's method: straight on along the velocity."""

    def __init__(self, levels: NoiseLevels) -> None:
        self._changes = levels.sigmas.diff()

    def step(self, latents: "torch.Tensor", velocity: "torch.Tensor", index: int) -> "torch.Tensor":
        """The latents after step ``index``; see :func:`euler_step`."""
        return euler_step(latents, velocity, self._changes[index])


class UniPCSampler:
    """diffusers' UniPC (order 2, bh2) on given noise levels; its state and sums are float32, rounded once a step.

    It corrects each step by the velocity of the next one, at no further pass of the network.
    """

    def __init__(self, levels: NoiseLevels) -> None:
        from diffusers import UniPCMultistepScheduler  # noqa: PLC0415

        self._scheduler = UniPCMultistepScheduler(
            num_train_timesteps=TRAIN_TIMESTEPS,
            prediction_type="flow_prediction",
            use_flow_sigmas=True,
            flow_shift=1.0,  # the levels are shifted already
            final_sigmas_type="zero",
        )
        self._scheduler.set_timesteps(sigmas=levels.sigmas[:-1].double().numpy())
        self._scheduler.set_begin_index(0)

    def step(self, latents: "torch.Tensor", velocity: "torch.Tensor", index: int) -> "torch.Tensor":
        """The latents after step ``index``; steps must be taken in order."""
        timestep = self._scheduler.timesteps[index]
        stepped = self._scheduler.step(velocity.float(), timestep, latents.float(), return_dict=False)[0]
        return stepped.to(velocity.dtype)


def euler_step(latents: "torch.Tensor", velocity: "torch.Tensor", sigma_change: "torch.Tensor") -> "torch.Tensor":
    """The latents after one Euler step, in the velocity's dtype.

    The change of sigma is rounded to that dtype, and so is its product with the velocity; the sum is formed in float32
    (docs/specification.md#precision). It is rounded here because kernels of CUDA would take a scalar of the
    CPU as it is: the same latents would step to others there.

    Args:
        latents: of any shape.
        velocity: of the same shape, on the same device.
        sigma_change: float32, one number on the CPU.
    """
    change = velocity * sigma_change.to(velocity.dtype)
    return (latents.float() + change).to(velocity.dtype)
