"""A tiny Wan video autoencoder whose weights are constructed, so that a decoded latent looks like what was encoded.

The class is diffusers' own ``AutoencoderKLWan`` in Wan2.1's shape with few channels. Residual branches and attention
are silent; what is left are the convolutions of the down and up samplers, and they are set to do this per colour:

- encoder: average pixels to a grid of 4, then describe each 2x2 of that grid by overlapping averages. With F_i the mean
  of the pair (2i, 2i+1) and G_i the mean of (2i+1, 2i+2), the latent holds F and H_i = G_i - (F_i + F_{i+1}) / 2, in
  both directions: 4 numbers per colour, 12 of 16 latent channels; four frames share one latent frame (their mean);
- decoder: F interpolated plus H moved by half a pair gives nearly the (1 2 1)/4 smoothed picture at a grid of 4. The
  overlap is what makes this possible with convolutions alone: after a nearest-neighbour up-sampling no convolution can
  tell the left pixel of a pair from the right one, but it can shift.

The RMS norm and the SiLU before the last convolutions would bend colours, so a large constant channel keeps the norm
constant, and each colour passes the SiLU twice with opposite signs: silu(u) - silu(-u) = u. What does not belong here:
the transformer (``network``), files (``repository``).
"""

from typing import Any

import torch
from diffusers import AutoencoderKLWan
from torch import nn

BASE_DIM = 8
COLOURS = 3
SHAPES = 4
"""Latent numbers per colour: FF, FH, HF, HH (vertical first)."""
USED_CHANNELS = COLOURS * SHAPES

LATENT_GAIN = 1.7
"""Normalised latent = gain * colour in [-1, 1]: about unit variance for pictures."""

_CONSTANT = 24.0  # of the channel that keeps the norm constant; colours are at most 1
_CONTRAST = 4.0  # of u in silu(u) - silu(-u); any value gives the identity
_LOG_VARIANCE = -12.0  # the posterior is practically its mean

_EVEN_PAIR = (0.5, 0.5, 0.0)  # F: a stride-2 convolution padded behind sees 2i, 2i+1, 2i+2
_ODD_PAIR = (0.0, 0.5, 0.5)  # G
# Decoding; exact would be (0.25, 0.5, 0.25), (0.5, 0, 0) and no sharpening. These values give puppets about 1 dB more.
_LINEAR = (0.2, 0.6, 0.2)  # after nearest up-sampling: nearly linear interpolation
_SHIFTED = (1.0, 0.0, 0.0)  # after nearest up-sampling: what lies one pixel to the left
_SHARPENING = (-0.1, 1.2, -0.1)


def build_autoencoder() -> AutoencoderKLWan:
    """The autoencoder in float32; the same weights every time."""
    autoencoder = AutoencoderKLWan(base_dim=BASE_DIM, num_res_blocks=1).eval().requires_grad_(False)
    for name, parameter in autoencoder.named_parameters():
        parameter.fill_(1.0 if name.endswith("gamma") else 0.0)
    _construct_encoder(autoencoder)
    _construct_decoder(autoencoder)
    return autoencoder


def latent_of_colour(colour: torch.Tensor) -> torch.Tensor:
    """Normalised latents [..., 16] of an even surface of ``colour`` [..., 3] in [-1, 1]."""
    latent = torch.zeros(*colour.shape[:-1], 16, dtype=colour.dtype)
    latent[..., 0:USED_CHANNELS:SHAPES] = LATENT_GAIN * colour
    return latent


def _construct_encoder(autoencoder: AutoencoderKLWan) -> None:
    encoder = autoencoder.encoder
    for colour in range(COLOURS):
        _tap(encoder.conv_in)[colour, colour, 1, 1] = 1.0
    for block in encoder.down_blocks:
        if isinstance(getattr(block, "conv_shortcut", None), nn.Conv3d):
            _pass_through(block.conv_shortcut)
        if hasattr(block, "time_conv"):  # of (previous, first, second): the mean of the two new frames
            for channel in range(block.dim):
                block.time_conv.weight[channel, channel, 1:, 0, 0] = 0.5
    first, second, third = (block.resample[1] for block in encoder.down_blocks if hasattr(block, "resample"))
    box = _outer(_EVEN_PAIR, _EVEN_PAIR)
    for colour in range(COLOURS):
        first.weight[colour, colour] = box
        second.weight[colour, colour] = box
        for index, (vertical, horizontal) in enumerate(_pairs(_EVEN_PAIR, _ODD_PAIR)):
            channel = colour * SHAPES + index
            third.weight[channel, colour] = _outer(vertical, horizontal)
            third.weight[USED_CHANNELS + channel, colour] = -_outer(vertical, horizontal)
    constant = 2 * USED_CHANNELS
    third.bias[constant] = _CONSTANT
    gain = _CONTRAST * _CONSTANT / third.out_channels**0.5
    encoder.norm_out.gamma.fill_(gain)

    # F stays F; H = G - (F here + F of the next pair) / 2
    f_from, h_from = {"F": (0.0, 1.0, 0.0)}, {"G": (0.0, 1.0, 0.0), "F": (0.0, -0.5, -0.5)}
    weight = _tap(encoder.conv_out)
    for colour in range(COLOURS):
        for index, (vertical, horizontal) in enumerate(_pairs(f_from, h_from)):
            output = colour * SHAPES + index
            for row, rows in vertical.items():
                for column, columns in horizontal.items():
                    source = colour * SHAPES + 2 * (row == "G") + (column == "G")
                    kernel = _outer(rows, columns) / _CONTRAST
                    weight[output, source] += kernel
                    weight[output, USED_CHANNELS + source] -= kernel

    mean, std = torch.tensor(autoencoder.config.latents_mean), torch.tensor(autoencoder.config.latents_std)
    z_dim = autoencoder.config.z_dim
    autoencoder.quant_conv.bias[:z_dim] = mean
    autoencoder.quant_conv.bias[z_dim:] = _LOG_VARIANCE
    for channel in range(USED_CHANNELS):
        autoencoder.quant_conv.weight[channel, channel] = std[channel] * LATENT_GAIN
        autoencoder.post_quant_conv.weight[channel, channel] = 1.0 / (std[channel] * LATENT_GAIN)
        autoencoder.post_quant_conv.bias[channel] = -mean[channel] / (std[channel] * LATENT_GAIN)


def _construct_decoder(autoencoder: AutoencoderKLWan) -> None:
    decoder = autoencoder.decoder
    for channel in range(USED_CHANNELS):
        if channel % SHAPES == 0:
            _tap(decoder.conv_in)[channel, channel] = _outer(_SHARPENING, _SHARPENING)
        else:
            _tap(decoder.conv_in)[channel, channel, 1, 1] = 1.0
    for block in decoder.up_blocks:
        for unit in block.resnets:
            if isinstance(unit.conv_shortcut, nn.Conv3d):
                _pass_through(unit.conv_shortcut)
    first, second, third = (block.upsamplers[0] for block in decoder.up_blocks if block.upsamplers is not None)
    for sampler in (first, second):  # both new frames equal the old one
        for channel in range(sampler.dim):
            sampler.time_conv.weight[channel, channel, -1] = 1.0
            sampler.time_conv.weight[sampler.dim + channel, channel, -1] = 1.0
    smooth = _outer(_LINEAR, _LINEAR)
    for colour in range(COLOURS):
        for index, (vertical, horizontal) in enumerate(_pairs(_LINEAR, _SHIFTED)):
            first.resample[1].weight[colour, colour * SHAPES + index] = _outer(vertical, horizontal)
        second.resample[1].weight[colour, colour] = smooth
        third.resample[1].weight[colour, colour] = smooth
        third.resample[1].weight[COLOURS + colour, colour] = -smooth
    third.resample[1].bias[2 * COLOURS] = _CONSTANT
    decoder.norm_out.gamma.fill_(_CONTRAST * _CONSTANT / BASE_DIM**0.5)
    for colour in range(COLOURS):
        _tap(decoder.conv_out)[colour, colour, 1, 1] = 1.0 / _CONTRAST
        _tap(decoder.conv_out)[colour, COLOURS + colour, 1, 1] = -1.0 / _CONTRAST


def _tap(convolution: nn.Conv3d) -> torch.Tensor:
    """The part of a causal convolution's weight that sees the present frame: [out, in, 3, 3]."""
    return convolution.weight[:, :, -1]


def _pass_through(convolution: nn.Conv3d) -> None:
    for channel in range(min(convolution.in_channels, convolution.out_channels)):
        convolution.weight[channel, channel] = 1.0


def _outer(vertical: tuple[float, ...], horizontal: tuple[float, ...]) -> torch.Tensor:
    return torch.outer(torch.tensor(vertical), torch.tensor(horizontal))


def _pairs(one: Any, other: Any) -> list[tuple[Any, Any]]:
    return [(one, one), (one, other), (other, one), (other, other)]
