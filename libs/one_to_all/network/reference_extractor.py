"""The reference extractor: features of the reference image for the main blocks' reference attention.

It sees the image latents and the timestep only, neither pose nor text nor noise, so its result is shared by all passes
of a step that use the same image. Source: docs/specification.md#forward-pass, step 2.
"""

import torch
from torch import nn

from libs.one_to_all.network.attention import BlockSizes
from libs.one_to_all.network.blocks import OneToAllSelfAttentionBlock
from libs.one_to_all.network.modulation import OneToAllTimeTextEmbedding, TimeModulation
from libs.one_to_all.network.rope import RotaryFactors


class OneToAllReferenceExtractor(nn.Module):
    """Reference blocks, and a projection of the embedded image and of each block's output.

    Args:
        sizes: of all blocks.
        in_channels: latent channels of image and mask together.
        num_layers: reference blocks.
        freq_dim: width of the time sinusoid.
        patch_size: (t, y, x) of a patch.
    """

    def __init__(
        self, sizes: BlockSizes, in_channels: int, num_layers: int, freq_dim: int, patch_size: tuple[int, int, int]
    ) -> None:
        super().__init__()
        dim = sizes.dim
        self.patch_embedding = nn.Conv3d(in_channels, dim, kernel_size=patch_size, stride=patch_size)
        self.condition_embedder = OneToAllTimeTextEmbedding(dim, freq_dim)
        self.blocks = nn.ModuleList(OneToAllSelfAttentionBlock(sizes, spatial_rope=True) for _ in range(num_layers))
        self.ref_blocks = nn.ModuleList(nn.Linear(dim, dim) for _ in range(num_layers + 1))

    def forward(
        self, image_latents: torch.Tensor, timestep: torch.Tensor, rotary_emb: RotaryFactors
    ) -> list[torch.Tensor]:
        """Image latents [B, 2C, 1, h, w] and timestep [B] -> ``num_layers + 1`` features, each [B, S, D]."""
        tokens = self.patch_embedding(image_latents).flatten(2).transpose(1, 2).contiguous()
        _, projection = self.condition_embedder(timestep, tokens.dtype)
        time = TimeModulation(projection)
        features = [self.ref_blocks[0](tokens)]
        for block, project in zip(self.blocks, self.ref_blocks[1:], strict=True):
            tokens = block(tokens, time, rotary_emb)
            features.append(project(tokens))
        return features
