"""The networks beside the transformer, of real or small size, with random weights made on the device.

What does not belong here: the transformer (``subject``).
"""

from collections.abc import Callable

import torch
from diffusers import AutoencoderKLWan
from transformers import UMT5Config, UMT5EncoderModel

_SMALL = {"d_model": 256, "d_ff": 512, "num_layers": 2, "num_heads": 4, "vocab_size": 1000}
_FULL = {"d_model": 4096, "d_ff": 10240, "num_layers": 24, "num_heads": 64, "vocab_size": 256384}
_TOKENS = 512


def prompt_call(device: torch.device, dtype: torch.dtype, *, small: bool) -> Callable[[], object]:
    """Encodes a prompt of full length with a UMT5 encoder."""
    config = UMT5Config(**(_SMALL if small else _FULL), d_kv=64, feed_forward_proj="gated-gelu")
    with torch.device("meta"):
        encoder = UMT5EncoderModel(config).to(dtype)
    encoder = encoder.to_empty(device=device).eval().requires_grad_(False)
    for parameter in encoder.parameters():
        parameter.normal_(0, 0.02)
    tokens = torch.arange(_TOKENS, device=device)[None]
    mask = torch.ones_like(tokens)
    return lambda: encoder(tokens, mask)


def random_vae(device: torch.device, dtype: torch.dtype, *, small: bool) -> AutoencoderKLWan:
    """Wan2.1's VAE."""
    vae = AutoencoderKLWan(base_dim=8 if small else 96, num_res_blocks=1 if small else 2)
    return vae.to(device, dtype).eval().requires_grad_(False)
