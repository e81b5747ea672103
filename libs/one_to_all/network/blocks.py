"""Transformer blocks: the main block, and the smaller block that control branch and reference extractor share.

Belongs here: the order of norms, attentions, modulation and sums in one block, in the precision the specification asks
for. Does not: how blocks are chained (``transformer``, ``reference_extractor``), the sums (``modulation``).

Source: docs/specification.md#blocks and #precision. Layer norms, modulation and gated residuals are computed in
float32 and rounded to the stream's dtype once per step; the text residual is added in the stream's dtype.
"""

import torch
from diffusers.hooks._helpers import TransformerBlockMetadata, TransformerBlockRegistry
from diffusers.models.attention import FeedForward
from diffusers.models.normalization import FP32LayerNorm
from torch import nn

from libs.one_to_all.network.attention import OneToAllAttention
from libs.one_to_all.network.modulation import TimeModulation, gated_sum, modulated, parts_of
from libs.one_to_all.network.rope import RotaryFactors


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
        rotary_emb: RotaryFactors,
        control_tokens: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """[B, N, D] -> [B, N, D]; ``control_tokens`` [B, N, D] are added to the input (first control block only)."""
        if control_tokens is not None:
            hidden_states = hidden_states + control_tokens
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = parts_of(self.scale_shift_table, time)
        normed = modulated(self.norm1(hidden_states.float()), scale, shift, time, hidden_states.dtype)
        hidden_states = gated_sum(hidden_states, self.attn1(normed, rotary_emb), gate, time)
        normed = modulated(self.norm3(hidden_states.float()), ffn_scale, ffn_shift, time, hidden_states.dtype)
        return gated_sum(hidden_states, self.ffn(normed), ffn_gate, time)


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
        rotary_emb: RotaryFactors,
        reference_hidden_states: torch.Tensor,
        reference_rotary_emb: RotaryFactors,
        control_residual: torch.Tensor | None = None,
        text_keys: list[torch.Tensor] | None = None,
        attended: list[torch.Tensor] | None = None,
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
            attended: hands the stream behind step 1 from one call to the next with the same inputs but for text: an
                empty list is filled, a filled one is used and emptied.
        """
        if control_residual is not None:
            hidden_states = hidden_states + control_residual
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = parts_of(self.scale_shift_table, time)

        # 1. self attention and reference attention
        if attended:
            hidden_states = attended.pop()
        else:
            normed = modulated(self.norm1(hidden_states.float()), scale, shift, time, hidden_states.dtype)
            output = self.attn1(normed, rotary_emb, reference_hidden_states, reference_rotary_emb)
            hidden_states = gated_sum(hidden_states, output, gate, time)
            if attended is not None:
                attended.append(hidden_states)

        # 2. attention to text, neither modulated nor gated
        normed = self.norm2(hidden_states)
        hidden_states = hidden_states + self.attn2(normed, encoder_hidden_states, text_keys)

        # 3. feed-forward
        normed = modulated(self.norm3(hidden_states.float()), ffn_scale, ffn_shift, time, hidden_states.dtype)
        return gated_sum(hidden_states, self.ffn(normed), ffn_gate, time)


for _block in (OneToAllTransformerBlock, OneToAllSelfAttentionBlock):
    TransformerBlockRegistry.register(
        _block, TransformerBlockMetadata(return_hidden_states_index=0, return_encoder_hidden_states_index=None)
    )
