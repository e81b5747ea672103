"""The two convolutional encoders: pose video to pose tokens, image latents to the prefix latent frame.

Both are chains of diffusers' own blocks, which compute exactly what the specification says: causal 3D convolutions with
replicate padding (HunyuanVideo's VAE encoder) and plain 2D residual units.

Source: docs/specification.md#convolutional-encoders.
"""

import torch
from diffusers.models.autoencoders.autoencoder_kl_hunyuan_video import HunyuanVideoCausalConv3d, HunyuanVideoDownBlock3D
from diffusers.models.unets.unet_2d_blocks import DownEncoderBlock2D
from torch import nn

_HIDDEN_CHANNELS = 16
_NORM_GROUPS = 4
_NORM_EPS = 1e-6
# (t, y, x) strides of the four stages: 4 in time and 16 in space together, as VAE and patches do
_POSE_STRIDES = ((1, 2, 2), (2, 2, 2), (2, 2, 2), (1, 2, 2))
_PREFIX_UNITS = 3


class OneToAllPoseEncoder(nn.Module):
    """Pose pictures to pose tokens.

    The group norms see the whole clip given, so encoding a video in pieces gives other numbers.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.conv_in = HunyuanVideoCausalConv3d(3, _HIDDEN_CHANNELS)
        self.down_blocks = nn.ModuleList(
            HunyuanVideoDownBlock3D(
                _HIDDEN_CHANNELS,
                _HIDDEN_CHANNELS,
                resnet_eps=_NORM_EPS,
                resnet_groups=_NORM_GROUPS,
                downsample_stride=stride,
                downsample_padding=0,
            )
            for stride in _POSE_STRIDES
        )
        self.conv_out = HunyuanVideoCausalConv3d(_HIDDEN_CHANNELS, dim)

    def forward(self, poses: torch.Tensor) -> torch.Tensor:
        """Poses in [-1, 1], [B, 3, T, H, W] -> [B, D, (T-1)//4+1, H/16, W/16]."""
        hidden_states = self.conv_in(poses)
        for block in self.down_blocks:
            hidden_states = block(hidden_states)
        return self.conv_out(hidden_states)


class OneToAllPrefixEncoder(nn.Module):
    """Image and mask latents of one frame to the latent frame that is put before the video."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(in_channels, _HIDDEN_CHANNELS, kernel_size=3, padding=1)
        self.down_blocks = nn.ModuleList(
            DownEncoderBlock2D(
                _HIDDEN_CHANNELS,
                _HIDDEN_CHANNELS,
                resnet_eps=_NORM_EPS,
                resnet_groups=_NORM_GROUPS,
                add_downsample=False,
            )
            for _ in range(_PREFIX_UNITS)
        )
        self.conv_out = nn.Conv2d(_HIDDEN_CHANNELS, out_channels, kernel_size=3, padding=1)

    def forward(self, image_latents: torch.Tensor) -> torch.Tensor:
        """[B, 2C, 1, h, w] -> [B, C, 1, h, w]."""
        hidden_states = self.conv_in(image_latents.squeeze(2))
        for block in self.down_blocks:
            hidden_states = block(hidden_states)
        return self.conv_out(hidden_states).unsqueeze(2)
