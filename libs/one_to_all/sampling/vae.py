"""Between uint8 pictures and normalised latents, through diffusers' ``AutoencoderKLWan``.

Source: docs/specification.md#pipeline, steps 4 and 8: [0, 255] to [-1, 1] in float32, and back with truncation. See
#precision for the order of rounding in bfloat16: mean and standard deviation are rounded before 1/std is formed, and
un-normalising divides by that 1/std.
"""

import numpy as np
import torch
from diffusers import AutoencoderKLWan


def signed_from_uint8(pixels: np.ndarray, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """uint8 [T, H, W, 3] -> [1, 3, T, H, W] in [-1, 1]: u / 255 * 2 - 1 in float32, then cast."""
    tensor = torch.from_numpy(np.require(pixels, requirements=("C", "W"))).to(device)
    tensor = tensor.permute(3, 0, 1, 2).unsqueeze(0).to(torch.float32, memory_format=torch.contiguous_format)
    return tensor.div_(255).mul_(2).sub_(1).to(dtype)


def mask_from_uint8(mask: np.ndarray, device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """uint8 [H, W] -> [1, 3, 1, H, W] in [-1, 1]: a picture whose three channels are the mask."""
    picture = np.broadcast_to(mask[None, :, :, None], (1, *mask.shape, 3))
    return signed_from_uint8(picture, device, dtype)


def uint8_from_signed(video: torch.Tensor) -> np.ndarray:
    """[1, 3, T, H, W] in [-1, 1] -> uint8 [T, H, W, 3]: v / 2 + 0.5 in the video's dtype, clamped, * 255, truncated.

    Works frame by frame: beside the result only one frame is held in float32.
    """
    _, channels, frames, height, width = video.shape
    pixels = np.empty((frames, height, width, channels), np.uint8)
    for index in range(frames):
        unit = (video[0, :, index] / 2 + 0.5).clamp(0, 1).float()
        pixels[index] = unit.mul_(255).to(torch.uint8).permute(1, 2, 0).cpu().numpy()
    return pixels


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
