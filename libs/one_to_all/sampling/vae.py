"""Pictures to normalised latents and back, through diffusers' ``AutoencoderKLWan``.

Source: docs/specification.md#pipeline, steps 4 and 8, and #precision for the order of rounding in bfloat16:
mean and standard deviation are rounded before 1/std is formed, and un-normalising divides by that 1/std.
"""

import torch
from diffusers import AutoencoderKLWan


@torch.no_grad()
def encode_latents(vae: AutoencoderKLWan, video: torch.Tensor) -> torch.Tensor:
    """Video [1, 3, T, H, W] in [-1, 1] -> normalised latents [1, 16, (T-1)//4+1, H/8, W/8].

    The mean of the distribution is taken, never a sample.
    """
    latents = vae.encode(video).latent_dist.mode()
    mean, inverse_std = _statistics(vae, latents)
    return (latents - mean) * inverse_std


@torch.no_grad()
def decode_latents(vae: AutoencoderKLWan, latents: torch.Tensor) -> torch.Tensor:
    """Normalised latents [1, 16, F, h, w] -> video [1, 3, 4F-3, 8h, 8w], clamped to [-1, 1]."""
    mean, inverse_std = _statistics(vae, latents)
    video: torch.Tensor = vae.decode(latents / inverse_std + mean, return_dict=False)[0]
    return video


def _statistics(vae: AutoencoderKLWan, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and 1/std of the latents, [1, 16, 1, 1, 1], in the dtype and on the device of ``like``."""
    mean, std = (
        torch.tensor(values).to(like.device, like.dtype).view(1, -1, 1, 1, 1)
        for values in (vae.config.latents_mean, vae.config.latents_std)
    )
    return mean, 1.0 / std
