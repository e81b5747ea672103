"""Attention of the network: projections, RMS norm over all heads, rotary embedding, reference keys and values.

The attention product itself is diffusers' ``dispatch_attention_fn``, so that its back-ends (flash, sage, ...) and
context parallelism apply. See ``blocks`` for what surrounds an attention.

Source: docs/specification.md#blocks (attention, main block step 2) and #precision.
"""

from typing import Any, NamedTuple

import torch
from diffusers.hooks._helpers import AttentionProcessorMetadata, AttentionProcessorRegistry
from diffusers.models.attention import AttentionModuleMixin
from diffusers.models.attention_dispatch import dispatch_attention_fn
from torch import nn
from torch.nn import functional

from libs.one_to_all.network.activation_cache import CacheSlot
from libs.one_to_all.network.rope import RotaryFactors, rotate, rotate_spatial, spatial_from_full


class BlockSizes(NamedTuple):
    """Sizes that all blocks of a network have in common.

    Attributes:
        dim: model width; equals ``heads * head dim``.
        ffn_dim: hidden width of a feed-forward.
        heads: number of heads.
        temporal_dim: head dims that spatial-only rotation leaves alone.
        eps: of all layer and RMS norms.
    """

    dim: int
    ffn_dim: int
    heads: int
    temporal_dim: int
    eps: float


class OneToAllSelfAttnProcessor:
    """Self attention of the video tokens, plus (where given) attention from the same queries to the reference."""

    _attention_backend: Any = None
    _parallel_config: Any = None

    def __call__(
        self,
        attn: "OneToAllAttention",
        hidden_states: torch.Tensor,
        rotary_emb: RotaryFactors,
        reference_hidden_states: torch.Tensor | None = None,
        reference_rotary_emb: RotaryFactors | None = None,
    ) -> torch.Tensor:
        """[B, N, D] -> [B, N, D]; ``reference_hidden_states`` is [B, S, D] with the table of the reference grid."""
        query = attn.split_heads(attn.norm_q(attn.to_q(hidden_states)))
        key = attn.split_heads(attn.norm_k(attn.to_k(hidden_states)))
        value = attn.split_heads(attn.to_v(hidden_states))

        if attn.spatial_rope:
            rotated_query = rotate_spatial(query, rotary_emb, attn.temporal_dim)
            rotated_key = rotate_spatial(key, rotary_emb, attn.temporal_dim)
        else:
            rotated_query, rotated_key = rotate(query, rotary_emb), rotate(key, rotary_emb)
        output = dispatch_attention_fn(
            rotated_query,
            rotated_key,
            value,
            backend=self._attention_backend,
            # The reference extractor's tokens are whole on every rank; only the main stream is cut.
            parallel_config=None if attn.spatial_rope else self._parallel_config,
        ).flatten(2, 3)

        if reference_hidden_states is not None:
            assert reference_rotary_emb is not None
            reference_key = attn.split_heads(attn.norm_added_k(attn.add_k_proj(reference_hidden_states)))
            reference_value = attn.split_heads(attn.add_v_proj(reference_hidden_states))
            output = output + dispatch_attention_fn(
                spatial_from_full(query, rotated_query, attn.temporal_dim),
                rotate_spatial(reference_key, reference_rotary_emb, attn.temporal_dim),
                reference_value,
                backend=self._attention_backend,
                parallel_config=None,
            ).flatten(2, 3)
        return attn.to_out[0](output)


class OneToAllTextAttnProcessor:
    """Attention from the video tokens to the projected text; no rotary embedding, no mask."""

    _attention_backend: Any = None
    _parallel_config: Any = None

    def __call__(
        self,
        attn: "OneToAllAttention",
        hidden_states: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        text_keys: CacheSlot[tuple[torch.Tensor, torch.Tensor]] | None = None,
    ) -> torch.Tensor:
        """[B, N, D] and text [B, L, D] -> [B, N, D]; ``text_keys`` keeps key and value of this text between calls."""

        def project_text() -> tuple[torch.Tensor, torch.Tensor]:
            key = attn.split_heads(attn.norm_k(attn.to_k(encoder_hidden_states)))
            return key, attn.split_heads(attn.to_v(encoder_hidden_states))

        query = attn.split_heads(attn.norm_q(attn.to_q(hidden_states)))
        key, value = project_text() if text_keys is None else text_keys.get_or_compute(project_text)
        output = dispatch_attention_fn(query, key, value, backend=self._attention_backend, parallel_config=None)
        return attn.to_out[0](output.flatten(2, 3))


class RMSNorm(nn.Module):
    """RMS norm over the last dimension: [..., D] -> [..., D].

    Mean square in float32, the normalised value rounded to the input's dtype *before* the weight is applied; diffusers'
    norm gives the same bits in three times the memory traffic.
    """

    def __init__(self, dim: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """``hidden_states`` normalised and weighted."""
        return functional.rms_norm(hidden_states, self.weight.shape, eps=self.eps) * self.weight


class OneToAllAttention(nn.Module, AttentionModuleMixin):
    """One attention: self attention, self attention with reference keys and values, or attention to text.

    Args:
        sizes: of all blocks.
        reference: adds ``add_k_proj``, ``add_v_proj`` and ``norm_added_k`` for reference features.
        text: keys and values come from text.
        spatial_rope: rotate spatial dims only (reference extractor).
    """

    _default_processor_cls = OneToAllSelfAttnProcessor
    _available_processors = [OneToAllSelfAttnProcessor, OneToAllTextAttnProcessor]  # noqa: RUF012  # diffusers' name
    _supports_qkv_fusion = False
    processor: Any

    def __init__(
        self, sizes: BlockSizes, *, reference: bool = False, text: bool = False, spatial_rope: bool = False
    ) -> None:
        super().__init__()
        dim, eps = sizes.dim, sizes.eps
        self.heads = sizes.heads
        self.temporal_dim = sizes.temporal_dim
        self.spatial_rope = spatial_rope
        self.is_cross_attention = text
        self.use_bias = True

        self.to_q = nn.Linear(dim, dim)
        self.to_k = nn.Linear(dim, dim)
        self.to_v = nn.Linear(dim, dim)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])
        self.norm_q = RMSNorm(dim, eps)
        self.norm_k = RMSNorm(dim, eps)
        if reference:
            self.add_k_proj = nn.Linear(dim, dim)
            self.add_v_proj = nn.Linear(dim, dim)
            self.norm_added_k = RMSNorm(dim, eps)
        self.processor = OneToAllTextAttnProcessor() if text else OneToAllSelfAttnProcessor()

    def split_heads(self, states: torch.Tensor) -> torch.Tensor:
        """[B, N, D] -> [B, N, heads, head dim]."""
        return states.unflatten(2, (self.heads, -1))

    def forward(self, hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> torch.Tensor:
        """The processor's result; see its ``__call__`` for the arguments."""
        return self.processor(self, hidden_states, *args, **kwargs)


def _unchanged_hidden_states(_module: nn.Module, *args: Any, **kwargs: Any) -> Any:
    return kwargs["hidden_states"] if "hidden_states" in kwargs else args[0]


for _processor in (OneToAllSelfAttnProcessor, OneToAllTextAttnProcessor):
    AttentionProcessorRegistry.register(
        _processor, AttentionProcessorMetadata(skip_processor_output_fn=_unchanged_hidden_states)
    )
