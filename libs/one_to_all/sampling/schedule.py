"""The noise schedule, diffusers' flow-matching one with the shift this network was trained for, and the Euler step.

Light to import: diffusers is loaded when a scheduler is built.

Source: docs/specification.md#scheduler. The shift is applied in the constructor and again in ``set_timesteps``;
that is how the network was used.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from diffusers import FlowMatchEulerDiscreteScheduler

SHIFT = 7.0
"""Shift of the noise levels towards high noise, with which the network was trained: the default of every clip."""

UNWRITTEN_SHIFT = 7.0
"""The shift that names of chunks and origins of clips leave out: that of all clips from before it was recorded.

It never changes. Another ``SHIFT`` is written, so that no chunk made with this one is reused. See
``libs.stages.clip.chunk_prefix``.
"""

TRAIN_TIMESTEPS = 1000
"""Noise levels the network was trained with; a clip has at most as many steps."""


def build_scheduler(shift: float = SHIFT) -> "FlowMatchEulerDiscreteScheduler":
    """A fresh scheduler; ``set_timesteps`` is the caller's."""
    from diffusers import FlowMatchEulerDiscreteScheduler  # noqa: PLC0415

    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=TRAIN_TIMESTEPS, shift=shift, use_dynamic_shifting=False)


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
