"""The product's own forward pass, fed with what training keeps: pose features and prompts without their padding."""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.nn.functional as F  # noqa: N812 - the customary name

from libs.one_to_all.forward_memo import ForwardMemo, Scope
from libs.sandbox.training.transformer_start import FROZEN_POSE_STAGES

Piece = TypeVar("Piece")


class _GivenPoses(ForwardMemo):
    """Hands the transformer pose tokens that were made elsewhere; remembers nothing, so that gradients flow."""

    def __init__(self, pose_tokens: torch.Tensor | None) -> None:
        super().__init__()
        self._pose_tokens = pose_tokens

    def once(
        self,
        scope: Scope,  # noqa: ARG002
        piece: str,
        inputs: tuple[torch.Tensor, ...],  # noqa: ARG002
        compute: Callable[[], Piece],
    ) -> Piece:
        """The given pose tokens; everything else is computed anew."""
        if piece == "control tokens" and self._pose_tokens is not None:
            return self._pose_tokens  # type: ignore[return-value]
        return compute()

    def text_keys(self, text: torch.Tensor, num_layers: int) -> None:
        """Nothing is remembered."""


class _WithoutPadding:
    """Attention to a prompt whose padding is one row; ``bias`` [B, 1, 1, L] says how much each row counts."""

    bias: torch.Tensor

    def __call__(self, attention: Any, hidden_states: torch.Tensor, text: torch.Tensor, *_: Any) -> torch.Tensor:
        query = attention.split_heads(attention.norm_q(attention.to_q(hidden_states)))
        key = attention.split_heads(attention.norm_k(attention.to_k(text)))
        value = attention.split_heads(attention.to_v(text))
        query, key, value = (states.transpose(1, 2) for states in (query, key, value))
        output = F.scaled_dot_product_attention(query, key, value, attn_mask=self.bias)
        return attention.to_out[0](output.transpose(1, 2).flatten(2, 3))


class TrainingForward:
    """Calls a transformer in training; see ``__call__``."""

    def __init__(self, transformer: Any) -> None:
        self.transformer = transformer
        self._text = _WithoutPadding()
        for block in transformer.blocks:
            block.attn2.processor = self._text

    def __call__(
        self,
        latents: torch.Tensor,
        sigma: float,
        text: tuple[torch.Tensor, torch.Tensor],
        reference: torch.Tensor,
        reference_pose: torch.Tensor | None,
        poses: torch.Tensor | None,
        token_replace: bool = False,
    ) -> torch.Tensor:
        """The velocity [B, 16, F, h, w].

        Args:
            latents: noisy, normalised.
            sigma: noise level.
            text: rows and their bias (``TrainingPrompts.batch``).
            reference: latents of image and mask, normalised [B, 32, 1, h, w].
            reference_pose: features of its drawing, [B, 16, 1, H/4, W/4].
            poses: features of the clip's drawings; None leaves the pose out.
            token_replace: the first two latent frames are known.
        """
        tokens = None
        if poses is not None:
            maps = torch.cat((self.pose_maps(reference_pose), self.pose_maps(poses)), dim=2)
            tokens = maps.flatten(2).transpose(1, 2).contiguous()
        rows, self._text.bias = text
        unused = torch.zeros(1)
        velocity: torch.Tensor = self.transformer(
            latents,
            torch.full((len(latents),), 1000.0 * sigma),
            rows,
            unused,
            reference,
            unused,
            conditioning_scale=0.0 if tokens is None else 1.0,
            token_replace=token_replace,
            memo=_GivenPoses(tokens),
            return_dict=False,
        )[0]
        return velocity

    def pose_maps(self, features: torch.Tensor | None) -> torch.Tensor:
        """The trained rest of the pose encoder: features to [B, D, F, H/16, W/16]."""
        encoder = self.transformer.input_hint_block
        states = features
        for block in encoder.down_blocks[FROZEN_POSE_STAGES:]:
            states = block(states)
        maps: torch.Tensor = encoder.conv_out(states)
        return maps
