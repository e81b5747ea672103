"""Time and text embeddings, built from diffusers' parts.

Source: docs/specification.md#embeddings-and-rope and #precision: the sinusoid is float32 with cosines first,
everything after it runs in the stream's dtype.
"""

import torch
from diffusers.models.embeddings import PixArtAlphaTextProjection, TimestepEmbedding, Timesteps
from torch import nn
from torch.nn import functional


class OneToAllTimeTextEmbedding(nn.Module):
    """Time embedding and its projection to six modulation parts; with ``text_dim`` also the text projection."""

    def __init__(self, dim: int, freq_dim: int, text_dim: int | None = None) -> None:
        super().__init__()
        self.timesteps_proj = Timesteps(num_channels=freq_dim, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedder = TimestepEmbedding(in_channels=freq_dim, time_embed_dim=dim)
        self.time_proj = nn.Linear(dim, 6 * dim)
        if text_dim is not None:
            self.text_embedder = PixArtAlphaTextProjection(text_dim, dim, act_fn="gelu_tanh")

    def forward(self, timestep: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Timestep [B] (float, up to 1000) -> time embedding [B, D] and modulation [B, 6, D], both in ``dtype``."""
        sinusoid = self.timesteps_proj(timestep).to(dtype)
        embedding = self.time_embedder(sinusoid)
        return embedding, self.time_proj(functional.silu(embedding)).unflatten(1, (6, -1))
