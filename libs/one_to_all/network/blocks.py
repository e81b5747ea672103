"""Transformer blocks: the main block, and the smaller block that control branch and reference extractor share.

A block is the order of norms, attentions, modulation and sums, in the precision the specification asks for. See
``transformer`` and ``reference_extractor`` for how blocks are chained.

Source: docs/specification.md#blocks and #precision. Layer norms, modulation and gated residuals are computed in
float32 and rounded to the stream's dtype once per step; the text residual is added in the stream's dtype.
"""

from typing import NamedTuple

import torch
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from diffusers.models.attention import FeedForward
from diffusers.models.normalization import FP32LayerNorm
from torch import nn

from libs.one_to_all.network.activation_cache import CacheSlot
from libs.one_to_all.network.attention import BlockSizes, OneToAllAttention
from libs.one_to_all.network.modulation import TimeModulation, add_gated, block_modulation, modulate
from libs.one_to_all.network.rope import RotaryFactors


class OneToAllSelfAttentionBlock(nn.Module):
    """Self attention and feed-forward with modulation; a control block, or (``spatial_rope``) a reference block."""

    def __init__(self, sizes: BlockSizes, *, spatial_rope: bool = False) -> None:
        super().__init__()
        self.norm1 = FP32LayerNorm(sizes.dim, sizes.eps, elementwise_affine=False)
        self.attn1 = OneToAllAttention(sizes, spatial_rope=spatial_rope)
        self.norm3 = FP32LayerNorm(sizes.dim, sizes.eps, elementwise_affine=False)
        self.ffn = FeedForward(sizes.dim, inner_dim=sizes.ffn_dim, activation_fn="gelu-approximate")
        self.scale_shift_table = nn.Parameter(torch.randn(1, 6, sizes.dim) / sizes.dim**0.5)

    def forward(
        self,
        hidden_states: torch.Tensor,
        time: TimeModulation,
        rotary_emb: RotaryFactors,
        control_tokens: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """[B, N, D] -> [B, N, D]; ``control_tokens`` [B, N, D] are added to the input (first control block only)."""
        if control_tokens is not None:
            hidden_states = hidden_states + control_tokens
        attention, feed_forward = block_modulation(self.scale_shift_table, time)
        dtype = hidden_states.dtype

        normed = modulate(self.norm1(hidden_states.float()), attention.shift, attention.scale, time, dtype)
        hidden_states = add_gated(hidden_states, self.attn1(normed, rotary_emb), attention.gate, time)

        normed = modulate(self.norm3(hidden_states.float()), feed_forward.shift, feed_forward.scale, time, dtype)
        return add_gated(hidden_states, self.ffn(normed), feed_forward.gate, time)


class PassConditions(NamedTuple):
    """What all main blocks of one pass are given alike.

    Attributes:
        text: projected text [B, L, D].
        time: modulation of this step.
        rotary_emb: table of the N tokens.
        reference_rotary_emb: table of the S reference tokens.
    """

    text: torch.Tensor
    time: TimeModulation
    rotary_emb: RotaryFactors
    reference_rotary_emb: RotaryFactors


class OneToAllTransformerBlock(nn.Module):
    """Main block: self attention with reference features, attention to text, feed-forward."""

    def __init__(self, sizes: BlockSizes) -> None:
        super().__init__()
        self.norm1 = FP32LayerNorm(sizes.dim, sizes.eps, elementwise_affine=False)
        self.attn1 = OneToAllAttention(sizes, reference=True)
        self.norm2 = FP32LayerNorm(sizes.dim, sizes.eps, elementwise_affine=True)
        self.attn2 = OneToAllAttention(sizes, text=True)
        self.norm3 = FP32LayerNorm(sizes.dim, sizes.eps, elementwise_affine=False)
        self.ffn = FeedForward(sizes.dim, inner_dim=sizes.ffn_dim, activation_fn="gelu-approximate")
        self.scale_shift_table = nn.Parameter(torch.randn(1, 6, sizes.dim) / sizes.dim**0.5)

    def forward(
        self,
        hidden_states: torch.Tensor,
        conditions: PassConditions,
        reference_feature: torch.Tensor,
        control_residual: torch.Tensor | None = None,
        text_keys: CacheSlot[tuple[torch.Tensor, torch.Tensor]] | None = None,
        self_attended: CacheSlot[torch.Tensor] | None = None,
    ) -> torch.Tensor:
        """One main block.

        Args:
            hidden_states: [B, N, D], N = (F+1) * S tokens.
            conditions: what all main blocks are given alike.
            reference_feature: this block's reference feature [B, S, D].
            control_residual: [B, N, D], added to the input. It is the control branch's output for the *previous* block;
                adding it here rather than between blocks keeps it inside what a block cache stores and replays.
            text_keys: keeps this block's key and value of the text between calls.
            self_attended: hands the stream behind step 1 from one call to the next with the same inputs but for text.
        """
        if control_residual is not None:
            hidden_states = hidden_states + control_residual
        time, dtype = conditions.time, hidden_states.dtype
        attention, feed_forward = block_modulation(self.scale_shift_table, time)

        # 1. self attention and reference attention
        def self_attend() -> torch.Tensor:
            normed = modulate(self.norm1(hidden_states.float()), attention.shift, attention.scale, time, dtype)
            output = self.attn1(normed, conditions.rotary_emb, reference_feature, conditions.reference_rotary_emb)
            return add_gated(hidden_states, output, attention.gate, time)

        hidden_states = self_attend() if self_attended is None else self_attended.pop_or_compute(self_attend)

        # 2. attention to text, neither modulated nor gated
        normed = self.norm2(hidden_states)
        hidden_states = hidden_states + self.attn2(normed, conditions.text, text_keys)

        # 3. feed-forward
        normed = modulate(self.norm3(hidden_states.float()), feed_forward.shift, feed_forward.scale, time, dtype)
        return add_gated(hidden_states, self.ffn(normed), feed_forward.gate, time)


for _block in (OneToAllTransformerBlock, OneToAllSelfAttentionBlock):
    TransformerBlockRegistry.register(
        _block, TransformerBlockMetadata(return_hidden_states_index=0, return_encoder_hidden_states_index=None)
    )
