"""Modulation: shift, scale and gate that the time embedding gives each token, and the arithmetic they are used in.

See ``blocks`` and ``transformer`` for where in the network they apply.

Source: docs/specification.md#embeddings-and-rope, #blocks (with token replacement) and #precision. The sinusoid of the
timestep is float32 with cosines first, the embedding after it runs in the stream's dtype; modulating is float32
arithmetic, rounded once. It has two forms: for a compiler (and for gradients) plain expressions, which it fuses;
otherwise one fused product-sum over all tokens and one over the replaced ones. Spelled out, each of them would move the
stream through memory several times, and the values of two groups of tokens would be written out as large as the stream.
"""

from typing import NamedTuple

import torch
from diffusers.models.embeddings import PixArtAlphaTextProjection, TimestepEmbedding, Timesteps
from torch import nn
from torch.nn import functional


class OneToAllTimeTextEmbedding(nn.Module):
    """Time embedding and its projection to six modulation values; with ``text_dim`` also the text projection."""

    def __init__(self, dim: int, freq_dim: int, text_dim: int | None = None) -> None:
        super().__init__()
        self.timesteps_proj = Timesteps(num_channels=freq_dim, flip_sin_to_cos=True, downscale_freq_shift=0)
        self.time_embedder = TimestepEmbedding(in_channels=freq_dim, time_embed_dim=dim)
        self.time_proj = nn.Linear(dim, 6 * dim)
        if text_dim is not None:
            self.text_embedder = PixArtAlphaTextProjection(text_dim, dim, act_fn="gelu_tanh")

    def forward(self, timestep: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        """Timestep [B] (float, up to 1000) -> time embedding [B, D] and projection [B, 6, D], both in ``dtype``."""
        sinusoid = self.timesteps_proj(timestep).to(dtype)
        embedding = self.time_embedder(sinusoid)
        return embedding, self.time_proj(functional.silu(embedding)).unflatten(1, (6, -1))


class TimeModulation(NamedTuple):
    """What the time embedding contributes to one step, for all tokens or for two groups of tokens.

    Attributes:
        projection: [B, 6, D]: shift, scale, gate of the attention, then of the feed-forward.
        replaced_projection: with token replacement, the projection made from t = 0.
        replaced_tokens: which tokens use it, bool [1, N, 1].
        replaced_range: the same as (first, behind the last): replaced tokens lie side by side.
    """

    projection: torch.Tensor
    replaced_projection: torch.Tensor | None = None
    replaced_tokens: torch.Tensor | None = None
    replaced_range: tuple[int, int] = (0, 0)

    @property
    def rows(self) -> slice:
        """The replaced tokens as rows of the stream."""
        return slice(*self.replaced_range)


class TokenValue(NamedTuple):
    """A shift, scale or gate, [B, 1, D]; ``replaced`` is that of replaced tokens, where there are any."""

    value: torch.Tensor
    replaced: torch.Tensor | None = None

    def plus_one(self) -> "TokenValue":
        """``1 + value`` for both groups of tokens."""
        return TokenValue(1 + self.value, None if self.replaced is None else 1 + self.replaced)

    def per_token(self, time: TimeModulation) -> torch.Tensor:
        """[B, 1, D], or [B, N, D] where two groups of tokens differ."""
        if self.replaced is None:
            return self.value
        assert time.replaced_tokens is not None
        return torch.where(time.replaced_tokens, self.replaced, self.value)


class Modulation(NamedTuple):
    """Shift, scale and gate of one attention or feed-forward."""

    shift: TokenValue
    scale: TokenValue
    gate: TokenValue


def block_modulation(table: torch.Tensor, time: TimeModulation) -> tuple[Modulation, Modulation]:
    """The float32 modulation of a block's self attention and of its feed-forward, from its ``table`` [1, 6, D]."""
    values = (table + time.projection.float()).chunk(6, dim=1)
    if time.replaced_projection is None:
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = (TokenValue(value) for value in values)
    else:
        replaced = (table + time.replaced_projection.float()).chunk(6, dim=1)
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = (
            TokenValue(*pair) for pair in zip(values, replaced, strict=True)
        )
    return Modulation(shift, scale, gate), Modulation(ffn_shift, ffn_scale, ffn_gate)


def output_modulation(
    table: torch.Tensor, embedding: torch.Tensor, replaced_embedding: torch.Tensor | None
) -> tuple[TokenValue, TokenValue]:
    """Shift and scale before the output projection, in the stream's dtype.

    Args:
        table: [1, 2, D].
        embedding: time embedding [B, D].
        replaced_embedding: with token replacement, that of t = 0.
    """
    shift, scale = (table + embedding.unsqueeze(1)).chunk(2, dim=1)
    if replaced_embedding is None:
        return TokenValue(shift), TokenValue(scale)
    replaced_shift, replaced_scale = (table + replaced_embedding.unsqueeze(1)).chunk(2, dim=1)
    return TokenValue(shift, replaced_shift), TokenValue(scale, replaced_scale)


def modulate(
    normed: torch.Tensor, shift: TokenValue, scale: TokenValue, time: TimeModulation, dtype: torch.dtype
) -> torch.Tensor:
    """``normed`` * (1 + scale) + shift: float32 [B, N, D] -> ``dtype``."""
    factor = scale.plus_one()
    if _spelled_out():
        return (normed * factor.per_token(time) + shift.per_token(time)).to(dtype)
    result = torch.empty_like(normed, dtype=dtype)
    torch.addcmul(shift.value, normed, factor.value, out=result)
    if factor.replaced is not None and shift.replaced is not None:
        rows = time.rows
        torch.addcmul(shift.replaced, normed[:, rows], factor.replaced, out=result[:, rows])
    return result


def add_gated(
    hidden_states: torch.Tensor, output: torch.Tensor, gate: TokenValue, time: TimeModulation
) -> torch.Tensor:
    """``hidden_states + gate * output``: [B, N, D] in the stream's dtype."""
    if _spelled_out():
        return (hidden_states.float() + output * gate.per_token(time)).to(hidden_states.dtype)
    result = torch.empty_like(hidden_states)
    torch.addcmul(hidden_states, output, gate.value, out=result)
    if gate.replaced is not None:
        rows = time.rows
        torch.addcmul(hidden_states[:, rows], output[:, rows], gate.replaced, out=result[:, rows])
    return result


def _spelled_out() -> bool:
    """Whether to use plain expressions: ``out=`` has no gradients, and hides from a compiler what it could fuse."""
    return torch.compiler.is_compiling() or torch.is_grad_enabled()
