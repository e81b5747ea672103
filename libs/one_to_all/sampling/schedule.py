"""The noise schedule: diffusers' flow-matching Euler scheduler with the shift this network was trained for.

Light to import: diffusers is loaded when a scheduler is built.

Source: docs/specification.md#scheduler. The shift is applied in the constructor and again in ``set_timesteps``;
that is how the network was used.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusers import FlowMatchEulerDiscreteScheduler

SHIFT = 7.0
"""Shift of the noise levels towards high noise. It determines every clip, and stands nowhere else."""

TRAIN_TIMESTEPS = 1000
"""Noise levels the network was trained with; a clip has at most as many steps."""


def build_scheduler() -> "FlowMatchEulerDiscreteScheduler":
    """A fresh scheduler; ``set_timesteps`` is the caller's."""
    from diffusers import FlowMatchEulerDiscreteScheduler  # noqa: PLC0415

    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=TRAIN_TIMESTEPS, shift=SHIFT, use_dynamic_shifting=False)
