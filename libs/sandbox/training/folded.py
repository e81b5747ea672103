"""The Wan autoencoder's forward pass over a whole clip at once, several times faster than its chunked way.

diffusers' class encodes and decodes chunk after chunk with caches. Here frames are folded into the batch and most
convolutions are two-dimensional: at full and half resolution only the newest tap of a causal convolution is used,
because training leaves the older ones at zero there. A test holds it to the class's own result.

x is [B * T, C, H, W], frames of a clip in a row.
"""

from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - the customary name
from torch import nn

Module = Any
"""Of diffusers; to a type checker its parts are "Tensor or Module"."""


def encode(autoencoder: Module, video: torch.Tensor) -> torch.Tensor:
    """Video [B, 3, 4n + 1, H, W] in [-1, 1] -> raw latent means [B, z, n + 1, H/8, W/8]."""
    batch, _, time, height, width = video.shape
    x = video.transpose(1, 2).reshape(batch * time, 3, height // 2, 2, width // 2, 2)
    x = x.permute(0, 1, 5, 3, 2, 4).reshape(batch * time, 12, height // 2, width // 2)
    encoder = autoencoder.encoder
    x = _convolve(encoder.conv_in, x)
    stage = 0
    for block in encoder.down_blocks:
        if not hasattr(block, "resample"):
            x = _residual(block, x, time if stage == 2 else 1)
            continue
        x, time = _halve_time(block, block.resample(x), time)
        stage += 1
    x = _middle(encoder.mid_block, x, time)
    x = _convolve(encoder.conv_out, _activated(encoder.norm_out, x), time)
    quant = autoencoder.quant_conv
    x = F.conv2d(x, quant.weight[:, :, 0], quant.bias)[:, : autoencoder.config.z_dim]
    return x.view(batch, time, *x.shape[1:]).transpose(1, 2)


def decode(autoencoder: Module, latents: torch.Tensor) -> torch.Tensor:
    """Raw latents [B, z, n + 1, h, w] -> video [B, 3, 4n + 1, 8h, 8w], not clamped."""
    batch, _, time, height, width = latents.shape
    x = latents.transpose(1, 2).reshape(batch * time, -1, height, width)
    post_quant, decoder = autoencoder.post_quant_conv, autoencoder.decoder
    x = F.conv2d(x, post_quant.weight[:, :, 0], post_quant.bias)
    x = _middle(decoder.mid_block, _convolve(decoder.conv_in, x, time), time)
    for stage, block in enumerate(decoder.up_blocks):
        for unit in block.resnets:
            x = _residual(unit, x, time if stage == 0 else 1)
        if block.upsamplers is not None:
            sampler = block.upsamplers[0]
            x, time = _double_time(sampler, x, time)
            x = sampler.resample(x)
    x = _convolve(decoder.conv_out, _activated(decoder.norm_out, x))
    _, _, height, width = x.shape
    x = x.view(batch, time, 3, 2, 2, height, width).permute(0, 2, 1, 5, 4, 6, 3)
    return x.reshape(batch, 3, time, 2 * height, 2 * width)


def _activated(norm: Module, x: torch.Tensor) -> torch.Tensor:
    """RMS norm over channels, then SiLU."""
    scale = torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-12)
    return F.silu(x * scale * norm.gamma.view(1, -1, 1, 1))


def _earlier(x: torch.Tensor, time: int, frames: int) -> torch.Tensor:
    """What was seen ``frames`` frames before; zeros before the first."""
    clips = x.view(-1, time, *x.shape[1:])
    if frames >= time:
        return torch.zeros_like(x)
    return F.pad(clips[:, : time - frames], (0, 0, 0, 0, 0, 0, frames, 0)).flatten(0, 1)


def _convolve(convolution: nn.Conv3d, x: torch.Tensor, time: int = 1) -> torch.Tensor:
    """A causal convolution; with ``time`` 1 its newest tap alone."""
    weight = convolution.weight
    padding = weight.shape[-1] // 2
    if weight.shape[2] > 1 and time > 1:
        x = torch.cat((_earlier(x, time, 2), _earlier(x, time, 1), x), dim=1)
        joined = torch.cat((weight[:, :, 0], weight[:, :, 1], weight[:, :, 2]), dim=1)
        return F.conv2d(x, joined, convolution.bias, padding=padding)
    return F.conv2d(x, weight[:, :, -1], convolution.bias, padding=padding)


def _residual(unit: Module, x: torch.Tensor, time: int) -> torch.Tensor:
    shortcut = x if isinstance(unit.conv_shortcut, nn.Identity) else _convolve(unit.conv_shortcut, x)
    x = _convolve(unit.conv1, _activated(unit.norm1, x), time)
    return shortcut + _convolve(unit.conv2, _activated(unit.norm2, x), time)


def _attention(block: Module, x: torch.Tensor) -> torch.Tensor:
    batch, channels, height, width = x.shape
    scale = torch.rsqrt(x.square().mean(dim=1, keepdim=True) + 1e-12)
    qkv = block.to_qkv(x * scale * block.norm.gamma.view(1, -1, 1, 1))
    query, key, value = qkv.view(batch, 1, 3 * channels, height * width).transpose(2, 3).chunk(3, dim=-1)
    seen = F.scaled_dot_product_attention(query.contiguous(), key.contiguous(), value.contiguous())
    return x + block.proj(seen.squeeze(1).transpose(1, 2).reshape(batch, channels, height, width))


def _middle(block: Module, x: torch.Tensor, time: int) -> torch.Tensor:
    first, second = block.resnets
    return _residual(second, _attention(block.attentions[0], _residual(first, x, time)), time)


def _halve_time(block: Module, x: torch.Tensor, time: int) -> tuple[torch.Tensor, int]:
    """Each pair of frames after the first, with the frame before it, becomes one."""
    if time == 1:
        return x, 1
    clips = x.view(-1, time, *x.shape[1:])
    weight = block.time_conv.weight[..., 0, 0]
    joined = torch.cat((clips[:, 0:-2:2], clips[:, 1:-1:2], clips[:, 2::2]), dim=2).flatten(0, 1)
    kernel = torch.cat((weight[:, :, 0], weight[:, :, 1], weight[:, :, 2]), dim=1)[..., None, None]
    halved = (time - 1) // 2
    later = F.conv2d(joined, kernel, block.time_conv.bias)
    clips = torch.cat((clips[:, :1], later.view(-1, halved, *later.shape[1:])), dim=1)
    return clips.flatten(0, 1), halved + 1


def _double_time(sampler: Module, x: torch.Tensor, time: int) -> tuple[torch.Tensor, int]:
    """Each frame after the first becomes two."""
    if time == 1:
        return x, 1
    clips = x.view(-1, time, *x.shape[1:])
    later, count = clips[:, 1:].flatten(0, 1), time - 1
    weight = sampler.time_conv.weight[..., 0, 0]
    joined = torch.cat((_earlier(later, count, 2), _earlier(later, count, 1), later), dim=1)
    kernel = torch.cat((weight[:, :, 0], weight[:, :, 1], weight[:, :, 2]), dim=1)[..., None, None]
    doubled = F.conv2d(joined, kernel, sampler.time_conv.bias)
    doubled = doubled.view(-1, count, 2, x.shape[1], *x.shape[2:]).flatten(1, 2)
    return torch.cat((clips[:, :1], doubled), dim=1).flatten(0, 1), 1 + 2 * count
