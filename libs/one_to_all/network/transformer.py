"""The network: from noisy latents and conditions to a velocity, top to bottom in ``forward``.

It chains the parts of this package, and tells diffusers what it needs to know about the model (offload, compilation,
caches, LoRA, context parallelism).

Source: docs/specification.md#module-tree and #forward-pass. Notation: B batch, D model width, F latent frames, h, w
latent size, S = h/2 * w/2 tokens per frame, N = (F+1) * S tokens, L text tokens, T pixel frames, H, W pixel size.
"""

import math
from typing import NamedTuple

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

from libs.one_to_all.network.activation_cache import ActivationCache
from libs.one_to_all.network.attention import BlockSizes
from libs.one_to_all.network.block_cache import replays_other_blocks
from libs.one_to_all.network.blocks import OneToAllSelfAttentionBlock, OneToAllTransformerBlock, PassConditions
from libs.one_to_all.network.encoders import OneToAllPoseEncoder, OneToAllPrefixEncoder
from libs.one_to_all.network.modulation import (
    OneToAllTimeTextEmbedding,
    TimeModulation,
    modulate,
    output_modulation,
)
from libs.one_to_all.network.reference_extractor import OneToAllReferenceExtractor
from libs.one_to_all.network.rope import OneToAllRotaryPosEmbed

REPLACED_LATENT_FRAMES = 2
"""Latent frames taken over from the previous chunk: 5 pixel frames, encoded as 1 + 4."""


class OneToAllControlBranch(nn.Module):
    """Holds the control blocks under the key prefix the checkpoints use; the transformer runs them."""

    def __init__(self, blocks: list[OneToAllSelfAttentionBlock]) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)


class TokenGrid(NamedTuple):
    """Tokens of the main stream by axis; ``frames`` counts the prefix."""

    frames: int
    height: int
    width: int

    @property
    def per_frame(self) -> int:
        """Tokens of one frame."""
        return self.height * self.width


class TokenReplaceMask(nn.Module):
    """Mask of the tokens whose frames are taken over from the previous chunk; a module, so that ranks can split it."""

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
        sizes = BlockSizes(dim, ffn_dim, num_attention_heads, self.rope.temporal_dim, eps)

        self.patch_embedding = nn.Conv3d(in_channels, dim, kernel_size=patch_size, stride=patch_size)
        self.condition_embedder = OneToAllTimeTextEmbedding(dim, freq_dim, text_dim)
        self.image_to_cond = OneToAllPrefixEncoder(image_channels, in_channels)
        self.input_hint_block = OneToAllPoseEncoder(dim)
        self.refextractor = OneToAllReferenceExtractor(
            sizes, image_channels, num_reference_layers, freq_dim, patch_size
        )
        self.blocks = nn.ModuleList(OneToAllTransformerBlock(sizes) for _ in range(num_layers))
        self.controlnet = OneToAllControlBranch([OneToAllSelfAttentionBlock(sizes) for _ in range(num_control_layers)])
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
        activations: ActivationCache | None = None,
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
            activations: results that passes share; without it everything is computed.
            return_dict: False returns a tuple.

        Returns:
            The velocity, [B, C, F, h, w].
        """
        activations = ActivationCache() if activations is None else activations
        grid = self._token_grid(hidden_states)
        # by the tensors the caller gave, which are the same objects in every pass of a step
        self_attended = activations.first_self_attention((hidden_states, timestep, image_latents))

        # 1. what does not depend on the noise
        text = self._project_text(encoder_hidden_states, activations)
        prefix = activations.get_or_compute(
            "clip", "prefix", (image_latents,), lambda: self.image_to_cond(image_latents)
        )
        time, embeddings = self._embed_time(timestep, token_replace, grid, hidden_states.dtype, activations)
        rotary_emb = torch.view_as_real(self.rope(*grid, hidden_states.device))
        reference_rotary_emb = torch.view_as_real(self.rope.table(1, grid.height, grid.width, hidden_states.device))
        features = activations.get_or_compute(
            "step",
            "reference features",
            (image_latents, timestep),
            lambda: self.refextractor(image_latents, timestep, reference_rotary_emb),
        )

        # 2. tokens of prefix and video
        hidden_states = self.patch_embedding(torch.cat((prefix, hidden_states), dim=2))
        hidden_states = hidden_states.flatten(2).transpose(1, 2).contiguous()  # [B, N, D]

        # 3. main blocks; the residual of control block j, which follows main block j+1, is added in main block j+2
        conditions = PassConditions(text, time, rotary_emb, reference_rotary_emb)
        text_keys = activations.text_keys(text, len(self.blocks))
        control = None
        if conditioning_scale != 0:
            control = _ControlPass(self, conditions, conditioning_scale, controlnet_cond, image_pose, activations)
        control_residual = None
        for index, block in enumerate(self.blocks):
            hidden_states = block(
                hidden_states,
                conditions,
                features[index // self.layers_per_reference_feature],
                control_residual,
                None if text_keys is None else text_keys[index],
                self_attended if index == 0 else None,
            )
            control_residual = None
            if index == 0 and replays_other_blocks(block):
                control = None  # what it would add is part of what is replayed
            if control is not None:
                control_residual = control.residual_after(index, hidden_states)
        if control_residual is not None:
            hidden_states = hidden_states + control_residual

        # 4. velocity
        velocity = self._velocity(hidden_states, time, embeddings, grid)
        return Transformer2DModelOutput(sample=velocity) if return_dict else (velocity,)

    def encode_poses(
        self, controlnet_cond: torch.Tensor | None, image_pose: torch.Tensor | None, activations: ActivationCache
    ) -> torch.Tensor:
        """Pose tokens [B, N, D] of video and reference pose; those of the reference pose sit on the prefix frame."""
        if controlnet_cond is None or image_pose is None:
            raise ValueError("controlnet_cond and image_pose are needed unless conditioning_scale is 0")

        def encode() -> torch.Tensor:
            reference = activations.get_or_compute(
                "clip", "reference pose", (image_pose,), lambda: self.input_hint_block(image_pose)
            )
            maps = torch.cat((reference, self.input_hint_block(controlnet_cond)), dim=2)
            return maps.flatten(2).transpose(1, 2).contiguous()

        return activations.get_or_compute("chunk", "control tokens", (controlnet_cond, image_pose), encode)

    def _token_grid(self, latents: torch.Tensor) -> TokenGrid:
        _, patch_height, patch_width = self.config.patch_size
        _, _, frames, height, width = latents.shape
        return TokenGrid(frames + 1, height // patch_height, width // patch_width)

    def _project_text(self, embeddings: torch.Tensor, activations: ActivationCache) -> torch.Tensor:
        return activations.get_or_compute(
            "clip", "text", (embeddings,), lambda: self.condition_embedder.text_embedder(embeddings)
        )

    def _embed_time(
        self,
        timestep: torch.Tensor,
        token_replace: bool,
        grid: TokenGrid,
        dtype: torch.dtype,
        activations: ActivationCache,
    ) -> tuple[TimeModulation, tuple[torch.Tensor, torch.Tensor | None]]:
        """The blocks' modulation, and time embeddings [B, D] of t and (with token replacement) of 0."""
        embedding, projection = activations.get_or_compute(
            "step", "time", (timestep,), lambda: self.condition_embedder(timestep, dtype)
        )
        if not token_replace:
            return TimeModulation(projection), (embedding, None)
        replaced_embedding, replaced_projection = activations.get_or_compute(
            "step",
            "time of replaced tokens",
            (timestep,),
            lambda: self.condition_embedder(torch.zeros_like(timestep), dtype),
        )
        mask, token_range = activations.get_or_compute(
            "chunk", "replaced tokens", (), lambda: self._replaced_tokens(grid, timestep.device)
        )
        modulation = TimeModulation(projection, replaced_projection, mask, token_range)
        return modulation, (embedding, replaced_embedding)

    def _replaced_tokens(self, grid: TokenGrid, device: torch.device) -> tuple[torch.Tensor, tuple[int, int]]:
        """The mask of replaced tokens among those of this rank, and the range where it is true."""
        mask = self.token_replace_mask(grid.frames, grid.per_frame, device)
        if mask.shape[1] == grid.frames * grid.per_frame:
            return mask, (grid.per_frame, (1 + REPLACED_LATENT_FRAMES) * grid.per_frame)
        positions = mask.flatten().nonzero().flatten().tolist()  # of a rank that has a part of the tokens
        return mask, (positions[0], positions[-1] + 1) if positions else (0, 0)

    def _velocity(
        self,
        hidden_states: torch.Tensor,
        time: TimeModulation,
        embeddings: tuple[torch.Tensor, torch.Tensor | None],
        grid: TokenGrid,
    ) -> torch.Tensor:
        """Output norm, modulation and projection: tokens [B, N, D] -> velocity [B, C, F, h, w] without the prefix.

        Table + embedding and 1 + scale are rounded to the stream's dtype, the rest is float32.
        """
        shift, scale = output_modulation(self.scale_shift_table, *embeddings)
        hidden_states = modulate(self.norm_out(hidden_states.float()), shift, scale, time, hidden_states.dtype)
        hidden_states = self.proj_out(hidden_states)  # [B, N, py * px * C], channel fastest
        hidden_states = hidden_states.unflatten(1, grid)
        hidden_states = hidden_states.unflatten(-1, (*self.config.patch_size[1:], -1))
        hidden_states = hidden_states[:, 1:].permute(0, 6, 1, 2, 4, 3, 5)  # [B, C, F, h', py, w', px]
        return hidden_states.flatten(5, 6).flatten(3, 4)


class _ControlPass:
    """The control branch during one pass: it goes on from the stream behind the first main block."""

    def __init__(
        self,
        network: OneToAllTransformer3DModel,
        conditions: PassConditions,
        strength: float,
        controlnet_cond: torch.Tensor | None,
        image_pose: torch.Tensor | None,
        activations: ActivationCache,
    ) -> None:
        self._network = network
        self._time, self._rotary_emb = conditions.time, conditions.rotary_emb
        self._strength = strength
        self._poses = (controlnet_cond, image_pose)
        self._activations = activations
        self._hidden_states: torch.Tensor | None = None

    def residual_after(self, index: int, hidden_states: torch.Tensor) -> torch.Tensor | None:
        """What is added to the stream after main block ``index``, which gave ``hidden_states``."""
        network = self._network
        if index == 0:
            self._hidden_states = hidden_states
        if not 1 <= index <= len(network.controlnet.blocks):
            return None
        tokens = network.encode_poses(*self._poses, self._activations) if index == 1 else None
        self._hidden_states = network.controlnet.blocks[index - 1](
            self._hidden_states, self._time, self._rotary_emb, tokens
        )
        residual: torch.Tensor = network.controlnet_zero[index - 1](self._hidden_states) * self._strength
        return residual
