"""The noise schedule: diffusers' flow-matching Euler scheduler with the shift this network was trained for.

Source: docs/specification.md#scheduler. The shift is applied in the constructor and again in ``set_timesteps``;
that is how the network was used.
"""

from diffusers import FlowMatchEulerDiscreteScheduler

SHIFT = 7.0
TRAIN_TIMESTEPS = 1000


def build_scheduler() -> FlowMatchEulerDiscreteScheduler:
    """A fresh scheduler; ``set_timesteps`` is the caller's."""
    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=TRAIN_TIMESTEPS, shift=SHIFT, use_dynamic_shifting=False)
