"""Sizes of the trained networks, and the sampling they are trained for."""

from collections.abc import Sequence

from diffusers import AutoencoderKLWan

from libs.model_repo.variants import NetworkConfig

LATENT_CHANNELS = 16

NETWORK = NetworkConfig(
    num_attention_heads=2,
    attention_head_dim=64,
    num_layers=5,
    ffn_dim=384,
    num_control_layers=1,
    num_reference_layers=1,
    text_dim=64,
)
"""The transformer: 2.3 million weights."""

SIGMAS = (1.0, 0.9339809417724609, 0.7813525795936584, 0.046755723655223846)
"""Noise levels of the product's schedule at 4 steps; training looks at these above all."""


def new_autoencoder(mean: Sequence[float] | None = None, std: Sequence[float] | None = None) -> AutoencoderKLWan:
    """The sandbox's autoencoder, untrained: Wan2.1's class, 8 pixels and 4 frames a latent, with few channels.

    Args:
        mean: of its latents, by channel; for the pipeline that normalises them.
        std: their standard deviation.
    """
    return AutoencoderKLWan(
        base_dim=24,
        dim_mult=[1, 2, 3],
        num_res_blocks=1,
        z_dim=LATENT_CHANNELS,
        temperal_downsample=[True, True],
        in_channels=12,
        out_channels=12,
        patch_size=2,
        latents_mean=list(mean or [0.0] * LATENT_CHANNELS),
        latents_std=list(std or [1.0] * LATENT_CHANNELS),
    )
