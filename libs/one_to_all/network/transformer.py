"""The network: from noisy latents and conditions to a velocity, top to bottom in ``forward``.

Belongs here: how the pieces are chained, and what diffusers needs to know about the model (offload, compilation,
caches, LoRA, context parallelism). Does not: the pieces themselves (``rope``, ``attention``, ``blocks``, ``encoders``,
``embeddings``, ``reference_extractor``), sampling, loading.

Source: docs/specification.md#module-tree and #forward-pass. Notation: B batch, D model width, F latent frames, h, w
latent size, S = h/2 * w/2 tokens per frame, N = (F+1) * S tokens, L text tokens, T pixel frames, H, W pixel size.
"""

import math

import torch
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders import PeftAdapterMixin
from diffusers.models._modeling_parallel import ContextParallelInput, ContextParallelOutput
from diffusers.models.attention import AttentionMixin
from diffusers.models.cache_utils import CacheMixin
from diffusers.models.modeling_outputs import Transformer2DModelOutput
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.normalization import FP32LayerNorm
from torch import nn

from libs.one_to_all.network.activation_cache import ForwardMemo
from libs.one_to_all.network.block_cache import replays_other_blocks
from libs.one_to_all.network.blocks import OneToAllSelfAttentionBlock, OneToAllTransformerBlock
from libs.one_to_all.network.embeddings import OneToAllTimeTextEmbedding
from libs.one_to_all.network.encoders import OneToAllPoseEncoder, OneToAllPrefixEncoder
from libs.one_to_all.network.modulation import Part, TimeModulation, modulated
from libs.one_to_all.network.reference_extractor import OneToAllReferenceExtractor
from libs.one_to_all.network.rope import OneToAllRotaryPosEmbed

REPLACED_LATENT_FRAMES = 2
"""Latent frames taken over from the previous chunk: 5 pixel frames, encoded as 1 + 4."""


class OneToAllControlBranch(nn.Module):
    """Holds the control blocks under the key prefix the checkpoints use; the transformer runs them."""

    def __init__(self, blocks: list[OneToAllSelfAttentionBlock]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)


class TokenReplaceMask(nn.Module):
    """Which tokens belong to frames taken over from the previous chunk; a module so that the mask can be split."""

    def forward(self, frames: int, tokens_per_frame: int, device: torch.device) -> torch.Tensor:
        """Bool [1, frames * tokens per frame, 1]; frame 0 is the prefix, then come the replaced frames."""
        frame = torch.arange(frames, device=device)
        replaced = (frame >= 1) & (frame <= REPLACED_LATENT_FRAMES)
        return replaced.repeat_interleave(tokens_per_frame).view(1, -1, 1)


class OneToAllTransformer3DModel(ModelMixin, ConfigMixin, PeftAdapterMixin, CacheMixin, AttentionMixin):
    """The One-to-All Animation transformer; the defaults are the 14B network.

    Args:
        num_attention_heads: heads of every attention; model width D = heads * head dim.
        num_layers: main blocks.
        ffn_dim: hidden width of every feed-forward.
        num_control_layers: control blocks, fewer than main blocks.
        num_reference_layers: reference blocks; they give one feature more than there are blocks.
        attention_head_dim: width of a head.
        in_channels: latent channels of the video; the reference image has twice as many (image and mask).
        out_channels: latent channels of the velocity.
        text_dim: width of the text embeddings.
        freq_dim: width of the time sinusoid.
        rope_max_seq_len: longest axis, in tokens.
        patch_size: (t, y, x) of a patch; t is 1.
        eps: of all layer and RMS norms.
    """

    _supports_gradient_checkpointing = False
    _skip_layerwise_casting_patterns = (
        "patch_embedding",
        "condition_embedder",
        "norm",
        "input_hint_block",
        "image_to_cond",
    )
    _no_split_modules = ("OneToAllTransformerBlock", "OneToAllSelfAttentionBlock")
    _repeated_blocks = ("OneToAllTransformerBlock", "OneToAllSelfAttentionBlock")
    # The main stream is cut along its tokens; text, reference features and time embeddings are whole on every rank.
    _cp_plan = {  # noqa: RUF012  # diffusers' name
        "rope": {0: ContextParallelInput(split_dim=1, expected_dims=4, split_output=True)},
        "token_replace_mask": {0: ContextParallelInput(split_dim=1, expected_dims=3, split_output=True)},
        "blocks.0": {"hidden_states": ContextParallelInput(split_dim=1, expected_dims=3, split_output=False)},
        "controlnet.blocks.0": {
            "control_tokens": ContextParallelInput(split_dim=1, expected_dims=3, split_output=False)
        },
        "proj_out": ContextParallelOutput(gather_dim=1, expected_dims=3),
    }

    @register_to_config
    def __init__(
        self,
        num_attention_heads: int = 40,
        num_layers: int = 40,
        ffn_dim: int = 13824,
        num_control_layers: int = 1,
        num_reference_layers: int = 7,
        attention_head_dim: int = 128,
        in_channels: int = 16,
        out_channels: int = 16,
        text_dim: int = 4096,
        freq_dim: int = 256,
        rope_max_seq_len: int = 1024,
        patch_size: tuple[int, int, int] = (1, 2, 2),
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        if not 0 <= num_control_layers < num_layers:
            raise ValueError(f"num_control_layers={num_control_layers} must be below num_layers={num_layers}")
        if patch_size[0] != 1:
            raise ValueError(f"patch_size={patch_size}: patches of more than one frame are not part of this network")
        dim = num_attention_heads * attention_head_dim
        image_channels = 2 * in_channels

        self.rope = OneToAllRotaryPosEmbed(attention_head_dim, rope_max_seq_len)
        self.token_replace_mask = TokenReplaceMask()
        temporal_dim = self.rope.temporal_dim

        self.patch_embedding = nn.Conv3d(in_channels, dim, kernel_size=patch_size, stride=patch_size)
        self.condition_embedder = OneToAllTimeTextEmbedding(dim, freq_dim, text_dim)
        self.image_to_cond = OneToAllPrefixEncoder(image_channels, in_channels)
        self.input_hint_block = OneToAllPoseEncoder(dim)
        self.refextractor = OneToAllReferenceExtractor(
            image_channels,
            dim,
            ffn_dim,
            num_attention_heads,
            num_reference_layers,
            freq_dim,
            patch_size,
            temporal_dim,
            eps,
        )
        self.blocks = nn.ModuleList(
            OneToAllTransformerBlock(dim, ffn_dim, num_attention_heads, temporal_dim, eps) for _ in range(num_layers)
        )
        self.controlnet = OneToAllControlBranch(
            [
                OneToAllSelfAttentionBlock(dim, ffn_dim, num_attention_heads, temporal_dim, eps)
                for _ in range(num_control_layers)
            ]
        )
        self.controlnet_zero = nn.ModuleList(nn.Linear(dim, dim) for _ in range(num_control_layers))
        self.norm_out = FP32LayerNorm(dim, eps, elementwise_affine=False)
        self.proj_out = nn.Linear(dim, out_channels * math.prod(patch_size))
        self.scale_shift_table = nn.Parameter(torch.randn(1, 2, dim) / dim**0.5)
        self.layers_per_reference_feature = math.ceil(num_layers / (num_reference_layers + 1))

    def forward(
        self,
        hidden_states: torch.Tensor,
        timestep: torch.Tensor,
        encoder_hidden_states: torch.Tensor,
        controlnet_cond: torch.Tensor | None,
        image_latents: torch.Tensor,
        image_pose: torch.Tensor | None,
        conditioning_scale: float = 1.0,
        token_replace: bool = False,
        memo: ForwardMemo | None = None,
        return_dict: bool = True,
    ) -> Transformer2DModelOutput | tuple[torch.Tensor]:
        """One pass through the network.

        Args:
            hidden_states: noisy latents [B, C, F, h, w].
            timestep: [B], float32, up to 1000.
            encoder_hidden_states: text embeddings [B, L, text_dim]; padding rows take part.
            controlnet_cond: pose video in [-1, 1], [B, 3, T, H, W]; may be None where ``conditioning_scale`` is 0.
            image_latents: latents of image and mask [B, 2C, 1, h, w].
            image_pose: pose of the reference image in [-1, 1], [B, 3, 1, H, W]; None as above.
            conditioning_scale: strength of the pose; at exactly 0 the control branch is not run at all.
            token_replace: the first two latent frames are known, they get the modulation of t = 0.
            memo: remembers pieces between passes; see ``ForwardMemo``. Without it all pieces are computed.
            return_dict: False returns a tuple.

        Returns:
            The velocity, [B, C, F, h, w].
        """
        memo = ForwardMemo() if memo is None else memo
        dtype, device = hidden_states.dtype, hidden_states.device
        frames = hidden_states.shape[2] + 1
        first_attention = memo.first_attention((hidden_states, timestep, image_latents))
        _, patch_height, patch_width = self.config.patch_size
        height, width = hidden_states.shape[3] // patch_height, hidden_states.shape[4] // patch_width

        # 1. what does not change with the noise
        text = memo.once(
            "clip",
            "text",
            (encoder_hidden_states,),
            lambda: self.condition_embedder.text_embedder(encoder_hidden_states),
        )
        text_keys = memo.text_keys(text, len(self.blocks))
        prefix = memo.once("clip", "prefix", (image_latents,), lambda: self.image_to_cond(image_latents))
        rotary_emb = torch.view_as_real(self.rope(frames, height, width, device))
        reference_rotary_emb = torch.view_as_real(self.rope.table(1, height, width, device))
        features = memo.once(
            "step",
            "reference features",
            (image_latents, timestep),
            lambda: self.refextractor(image_latents, timestep, reference_rotary_emb),
        )
        time_embedding, time = self._time(memo, timestep, token_replace, frames, height * width, dtype)

        # 2. tokens of prefix and video
        hidden_states = self.patch_embedding(torch.cat((prefix, hidden_states), dim=2))
        hidden_states = hidden_states.flatten(2).transpose(1, 2).contiguous()  # [B, N, D]

        # 3. blocks; the answer of control block j to main block j+1 is added where main block j+2 begins
        control_hidden_states = control_residual = None
        with_control = conditioning_scale != 0
        for index, block in enumerate(self.blocks):
            hidden_states = block(
                hidden_states,
                text,
                time,
                rotary_emb,
                features[index // self.layers_per_reference_feature],
                reference_rotary_emb,
                control_residual,
                None if text_keys is None else text_keys[index],
                first_attention if index == 0 else None,
            )
            control_residual = None
            if index == 0 and replays_other_blocks(block):
                with_control = False  # what it would add is in what is replayed
            if not with_control:
                continue
            if index == 0:
                control_hidden_states = hidden_states
            elif index <= len(self.controlnet.blocks):
                control_tokens = None
                if index == 1:
                    control_tokens = self._control_tokens(memo, controlnet_cond, image_pose)
                control_hidden_states = self.controlnet.blocks[index - 1](
                    control_hidden_states, time, rotary_emb, control_tokens
                )
                control_residual = self.controlnet_zero[index - 1](control_hidden_states) * conditioning_scale
        if control_residual is not None:
            hidden_states = hidden_states + control_residual

        # 4. velocity
        hidden_states = self._final_modulation(hidden_states, time_embedding, time)
        hidden_states = self.proj_out(hidden_states)  # [B, N, py * px * C], channel fastest
        hidden_states = hidden_states.unflatten(1, (frames, height, width))
        hidden_states = hidden_states.unflatten(-1, (patch_height, patch_width, -1))
        hidden_states = hidden_states[:, 1:].permute(0, 6, 1, 2, 4, 3, 5)  # [B, C, F, h', py, w', px]
        velocity = hidden_states.flatten(5, 6).flatten(3, 4)
        return Transformer2DModelOutput(sample=velocity) if return_dict else (velocity,)

    def _time(
        self,
        memo: ForwardMemo,
        timestep: torch.Tensor,
        token_replace: bool,
        frames: int,
        tokens_per_frame: int,
        dtype: torch.dtype,
    ) -> tuple[tuple[torch.Tensor, torch.Tensor | None], TimeModulation]:
        """Time embeddings [B, D] of t and (with token replacement) of 0, and the blocks' modulation."""
        embedding, projection = memo.once("step", "time", (timestep,), lambda: self.condition_embedder(timestep, dtype))
        if not token_replace:
            return (embedding, None), TimeModulation(projection)

        def replaced() -> tuple[torch.Tensor, torch.Tensor]:
            return self.condition_embedder(torch.zeros_like(timestep), dtype)

        replaced_embedding, replaced_projection = memo.once("step", "time of replaced tokens", (timestep,), replaced)

        def place_of_replaced() -> tuple[torch.Tensor, tuple[int, int]]:
            return self._replaced_tokens(frames, tokens_per_frame, timestep.device)

        mask, place = memo.once("chunk", "replaced tokens", (), place_of_replaced)
        return (embedding, replaced_embedding), TimeModulation(projection, replaced_projection, mask, place)

    def _replaced_tokens(
        self, frames: int, tokens_per_frame: int, device: torch.device
    ) -> tuple[torch.Tensor, tuple[int, int]]:
        """The mask of the tokens here, and the range where it is true."""
        mask = self.token_replace_mask(frames, tokens_per_frame, device)
        if mask.shape[1] == frames * tokens_per_frame:
            return mask, (tokens_per_frame, (1 + REPLACED_LATENT_FRAMES) * tokens_per_frame)
        positions = mask.flatten().nonzero().flatten().tolist()  # a rank's share of the tokens
        return mask, (positions[0], positions[-1] + 1) if positions else (0, 0)

    def _control_tokens(
        self, memo: ForwardMemo, controlnet_cond: torch.Tensor | None, image_pose: torch.Tensor | None
    ) -> torch.Tensor:
        """Pose tokens [B, N, D]: those of the reference pose sit on the prefix frame."""
        if controlnet_cond is None or image_pose is None:
            raise ValueError("controlnet_cond and image_pose are needed unless conditioning_scale is 0")

        def encode() -> torch.Tensor:
            reference = memo.once("clip", "reference pose", (image_pose,), lambda: self.input_hint_block(image_pose))
            maps = torch.cat((reference, self.input_hint_block(controlnet_cond)), dim=2)
            return maps.flatten(2).transpose(1, 2).contiguous()

        return memo.once("chunk", "control tokens", (controlnet_cond, image_pose), encode)

    def _final_modulation(
        self,
        hidden_states: torch.Tensor,
        embeddings: tuple[torch.Tensor, torch.Tensor | None],
        time: TimeModulation,
    ) -> torch.Tensor:
        """LN(x) * (1 + scale) + shift; table + embedding and 1 + scale in the stream's dtype, the rest in float32."""
        embedding, replaced_embedding = embeddings
        shifts, scales = zip(
            *(
                (self.scale_shift_table + one.unsqueeze(1)).chunk(2, dim=1)
                for one in (embedding, replaced_embedding)
                if one is not None
            ),
            strict=True,
        )
        normed = self.norm_out(hidden_states.float())
        return modulated(normed, Part(*scales), Part(*shifts), time, hidden_states.dtype)
