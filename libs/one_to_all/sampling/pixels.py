"""Between uint8 pictures and the tensors of VAE and network.

Source: docs/specification.md#pipeline: [0, 255] to [-1, 1] in float32, and back with truncation.
"""

import numpy as np
import torch


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
