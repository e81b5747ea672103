"""Transformer blocks: the main block, and the smaller block that control branch and reference extractor share.

Belongs here: norms, modulation, gates and residuals of one block, in the precision the specification asks for. Does
not: how blocks are chained (``transformer``, ``reference_extractor``).

Source: golden model specification, sections 3 and 6. Layer norms, modulation and gated residuals are computed in
float32 and rounded to the stream's dtype once per step; the text residual is added in the stream's dtype.
"""

from typing import NamedTuple

import torch
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from diffusers.models.attention import FeedForward
from diffusers.models.normalization import FP32LayerNorm
from torch import nn

from libs.one_to_all.attention import OneToAllAttention
from libs.one_to_all.rope import RotaryTable


class TimeModulation(NamedTuple):
    """What the time embedding contributes to one step, for all tokens or for two groups of tokens.

    ``projection`` [B, 6, D] holds shift, scale, gate of the attention, then of the feed-forward. With token
    replacement ``replaced_projection`` is the same made from t = 0, and ``replaced_tokens`` (bool [1, N, 1]) says which
    tokens use it.
    """

    projection: torch.Tensor
    replaced_projection: torch.Tensor | None = None
    replaced_tokens: torch.Tensor | None = None


class _Modulation:
    """The six float32 parts of one block, picked per token only when asked for: a picked part has full stream size."""

    def __init__(self, table: torch.Tensor, time: TimeModulation) -> None:
        self._parts = (table + time.projection.float()).chunk(6, dim=1)
        self._mask = time.replaced_tokens
        if time.replaced_projection is not None:
            self._replaced = (table + time.replaced_projection.float()).chunk(6, dim=1)

    def part(self, index: int, offset: float = 0.0) -> torch.Tensor:
        """Part ``index`` plus ``offset``: [B, 1, D], or [B, N, D] where two groups of tokens differ."""
        if self._mask is None:
            return self._parts[index] + offset if offset else self._parts[index]
        return torch.where(self._mask, self._replaced[index] + offset, self._parts[index] + offset)


class OneToAllSelfAttentionBlock(nn.Module):
    """Self attention and feed-forward with modulation; a control block, or (``spatial_rope``) a reference block."""

    def __init__(
        self, dim: int, ffn_dim: int, heads: int, temporal_dim: int, eps: float, *, spatial_rope: bool = False
    ) -> None:
        super().__init__()
        self.norm1 = FP32LayerNorm(dim, eps, elementwise_affine=False)
        self.attn1 = OneToAllAttention(dim, heads, temporal_dim, eps, spatial_rope=spatial_rope)
        self.norm3 = FP32LayerNorm(dim, eps, elementwise_affine=False)
        self.ffn = FeedForward(dim, inner_dim=ffn_dim, activation_fn="gelu-approximate")
        self.scale_shift_table = nn.Parameter(torch.randn(1, 6, dim) / dim**0.5)

    def forward(
        self,
        hidden_states: torch.Tensor,
        time: TimeModulation,
        rotary_emb: RotaryTable,
        control_tokens: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """[B, N, D] -> [B, N, D]; ``control_tokens`` [B, N, D] are added to the input (first control block only)."""
        if control_tokens is not None:
            hidden_states = hidden_states + control_tokens
        modulation = _Modulation(self.scale_shift_table, time)
        normed = _modulated(self.norm1, hidden_states, modulation, 0)
        hidden_states = _gated_sum(hidden_states, self.attn1(normed, rotary_emb), modulation.part(2))
        normed = _modulated(self.norm3, hidden_states, modulation, 3)
        return _gated_sum(hidden_states, self.ffn(normed), modulation.part(5))


class OneToAllTransformerBlock(nn.Module):
    """Main block: self attention with reference features, attention to text, feed-forward."""

    def __init__(self, dim: int, ffn_dim: int, heads: int, temporal_dim: int, eps: float) -> None:
        super().__init__()
        self.norm1 = FP32LayerNorm(dim, eps, elementwise_affine=False)
        self.attn1 = OneToAllAttention(dim, heads, temporal_dim, eps, reference=True)
        self.norm2 = FP32LayerNorm(dim, eps, elementwise_affine=True)
        self.attn2 = OneToAllAttention(dim, heads, temporal_dim, eps, text=True)
        self.norm3 = FP32LayerNorm(dim, eps, elementwise_affine=False)
        self.ffn = FeedForward(dim, inner_dim=ffn_dim, activation_fn="gelu-approximate")
        self.scale_shift_table = nn.Parameter(torch.randn(1, 6, dim) / dim**0.5)

    def forward(
        self,
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        time: TimeModulation,
        rotary_emb: RotaryTable,
        reference_hidden_states: torch.Tensor,
        reference_rotary_emb: RotaryTable,
        control_residual: torch.Tensor | None = None,
        text_keys: list[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """One main block.

        Args:
            hidden_states: [B, N, D], N = (F+1) * S tokens.
            encoder_hidden_states: projected text [B, L, D].
            time: modulation of this step.
            rotary_emb: table of the N tokens.
            reference_hidden_states: this block's reference feature [B, S, D].
            reference_rotary_emb: table of the S reference tokens.
            control_residual: [B, N, D], added to the input. It is the control branch's answer to the *previous* block;
                adding it here rather than between blocks keeps it inside what a block cache stores and replays.
            text_keys: see ``OneToAllTextAttnProcessor``.
        """
        if control_residual is not None:
            hidden_states = hidden_states + control_residual
        modulation = _Modulation(self.scale_shift_table, time)

        # 1. self attention and reference attention
        normed = _modulated(self.norm1, hidden_states, modulation, 0)
        output = self.attn1(normed, rotary_emb, reference_hidden_states, reference_rotary_emb)
        hidden_states = _gated_sum(hidden_states, output, modulation.part(2))

        # 2. attention to text, neither modulated nor gated
        normed = self.norm2(hidden_states)
        hidden_states = hidden_states + self.attn2(normed, encoder_hidden_states, text_keys)

        # 3. feed-forward
        normed = _modulated(self.norm3, hidden_states, modulation, 3)
        return _gated_sum(hidden_states, self.ffn(normed), modulation.part(5))


def _modulated(norm: FP32LayerNorm, hidden_states: torch.Tensor, modulation: _Modulation, first: int) -> torch.Tensor:
    """LN(x) * (1 + scale) + shift in float32, rounded to the stream's dtype; shift is part ``first``, scale follows."""
    normed = norm(hidden_states.float()) * modulation.part(first + 1, offset=1.0)
    return (normed + modulation.part(first)).to(hidden_states.dtype)


def _gated_sum(hidden_states: torch.Tensor, output: torch.Tensor, gate: torch.Tensor) -> torch.Tensor:
    """X + gate * output in float32, rounded to the stream's dtype."""
    return (hidden_states.float() + output * gate).to(hidden_states.dtype)


for _block in (OneToAllTransformerBlock, OneToAllSelfAttentionBlock):
    TransformerBlockRegistry.register(
        _block, TransformerBlockMetadata(return_hidden_states_index=0, return_encoder_hidden_states_index=None)
    )
