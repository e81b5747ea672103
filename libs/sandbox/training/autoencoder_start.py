"""Where the autoencoder's training starts: weights constructed so that pictures come back at about 24 dB.

A random start stays grey for long; this one is a linear path through the network, and training adds the rest:

- the encoder takes a Haar transform of each 2x2 patch, averages it to a grid of 4, and describes each 2x2 of that grid
  by overlapping averages F (pixels 2i, 2i+1) and H = G - (F here + F of the next pair) / 2 (G: pixels 2i+1, 2i+2), in
  both directions: 12 of the latent channels. The decoder interpolates F and adds H moved by half a pair;
- a large constant channel keeps the RMS norms constant, and colours pass the SiLU twice: silu(u) - silu(-u) = u;
- all other weights are random; residual branches are nearly silent, attention is silent, older time taps are zero.
"""

import math
from typing import Any

import torch
from diffusers import AutoencoderKLWan
from torch import nn

from libs.sandbox.sizes import LATENT_CHANNELS, new_autoencoder

_COLOURS = 3
_SHAPES = 4
_USED = _COLOURS * _SHAPES
_CONSTANT = 6.0
_CONTRAST = 2.0
_GAIN = 1.7
_DETAIL_GAIN = 4.0  # H is small
_LOG_VARIANCE = -12.0

Kernel = tuple[float, float, float]
_EVEN: Kernel = (0.5, 0.5, 0.0)
_ODD: Kernel = (0.0, 0.5, 0.5)
_LINEAR: Kernel = (0.2, 0.6, 0.2)
_SHIFTED: Kernel = (1.0, 0.0, 0.0)
_SHARPENING: Kernel = (-0.1, 1.2, -0.1)


@torch.no_grad()
def starting_autoencoder(seed: int = 0) -> AutoencoderKLWan:
    """The autoencoder before training; equal seeds give equal weights."""
    generator = torch.Generator().manual_seed(seed)
    autoencoder = new_autoencoder()
    _randomise(autoencoder, generator)
    _construct_encoder(autoencoder)
    _construct_decoder(autoencoder)
    return autoencoder


# The functions below take modules as Any: to a type checker their parts are "Tensor or Module".


def _random(weight: torch.Tensor, generator: torch.Generator, spread: float) -> torch.Tensor:
    return torch.randn(weight.shape, generator=generator) * spread / math.sqrt(weight[0].numel())


def _randomise(autoencoder: Any, generator: torch.Generator) -> None:
    for module in autoencoder.modules():
        if type(module).__name__ == "WanCausalConv3d" and module.kernel_size == (3, 3, 3):
            newest = _random(module.weight[:, :, -1], generator, 1.0)
            module.weight.zero_()
            module.weight[:, :, -1] = newest
            module.bias.zero_()
        elif type(module).__name__ == "WanResample":
            convolution = module.resample[1]
            convolution.weight.copy_(_random(convolution.weight, generator, 0.7))
            convolution.bias.zero_()
    for module in autoencoder.modules():  # once more: the convolutions inside are random by now
        if type(module).__name__ == "WanResidualBlock":
            module.conv2.weight.mul_(0.02)
            shortcut: Any = module.conv_shortcut
            if not isinstance(shortcut, nn.Identity):
                shortcut.weight.copy_(_random(shortcut.weight, generator, 0.2))
                shortcut.bias.zero_()
                for channel in range(min(shortcut.in_channels, shortcut.out_channels)):
                    shortcut.weight[channel] = 0.0
                    shortcut.weight[channel, channel] = 1.0
        elif type(module).__name__ == "WanAttentionBlock":
            module.proj.weight.zero_()
            module.proj.bias.zero_()


def _construct_encoder(autoencoder: Any) -> None:
    encoder = autoencoder.encoder
    weight = encoder.conv_in.weight
    weight[:_USED] = 0.0
    for colour in range(_COLOURS):
        for column in range(2):
            for row in range(2):
                source = colour * 4 + column * 2 + row  # as diffusers' patchify orders them
                across, down = 1 - 2 * column, 1 - 2 * row
                for band, sign in enumerate((1, across, down, across * down)):
                    weight[_COLOURS * band + colour, source, -1, 1, 1] = 0.25 * sign
    samplers = [block for block in encoder.down_blocks if hasattr(block, "resample")]
    for sampler in samplers:
        sampler.time_conv.weight.zero_()
        sampler.time_conv.bias.zero_()
        for channel in range(sampler.dim):
            sampler.time_conv.weight[channel, channel, 1:, 0, 0] = 0.5
    first, second = (sampler.resample[1] for sampler in samplers)
    first.weight[:_COLOURS] = 0.0
    second.weight[: 2 * _USED + 1] = 0.0
    for colour in range(_COLOURS):
        first.weight[colour, colour] = _outer(_EVEN, _EVEN)
        for index, (vertical, horizontal) in enumerate(_pairs(_EVEN, _ODD)):
            second.weight[_SHAPES * colour + index, colour] = _outer(vertical, horizontal)
            second.weight[_USED + _SHAPES * colour + index, colour] = -_outer(vertical, horizontal)
    second.bias[2 * _USED] = _CONSTANT
    _keep_norm_constant(encoder.norm_out)

    weight = encoder.conv_out.weight
    weight[LATENT_CHANNELS:] = 0.0
    weight[:_USED] = 0.0
    weight[_USED:LATENT_CHANNELS] *= 0.5 / _CONTRAST
    encoder.conv_out.bias.zero_()
    f_from: dict[str, Kernel] = {"F": (0.0, 1.0, 0.0)}
    h_from: dict[str, Kernel] = {"G": (0.0, 1.0, 0.0), "F": (0.0, -0.5, -0.5)}
    for colour in range(_COLOURS):
        for index, (vertical_from, horizontal_from) in enumerate(
            ((f_from, f_from), (f_from, h_from), (h_from, f_from), (h_from, h_from))
        ):
            for above, rows in vertical_from.items():
                for beside, columns in horizontal_from.items():
                    source = _SHAPES * colour + 2 * (above == "G") + (beside == "G")
                    kernel = _outer(rows, columns) / _CONTRAST
                    weight[_SHAPES * colour + index, source, -1] += kernel
                    weight[_SHAPES * colour + index, _USED + source, -1] -= kernel

    for convolution in (autoencoder.quant_conv, autoencoder.post_quant_conv):
        convolution.weight.zero_()
        convolution.bias.zero_()
    autoencoder.quant_conv.bias[LATENT_CHANNELS:] = _LOG_VARIANCE
    for channel in range(LATENT_CHANNELS):
        gain = _GAIN * (_DETAIL_GAIN if channel < _USED and channel % _SHAPES else 1.0)
        autoencoder.quant_conv.weight[channel, channel] = gain
        autoencoder.post_quant_conv.weight[channel, channel] = 1.0 / gain


def _construct_decoder(autoencoder: Any) -> None:
    decoder = autoencoder.decoder
    weight = decoder.conv_in.weight
    weight[:_USED] = 0.0
    weight[_USED:] *= 0.5
    for channel in range(_USED):
        if channel % _SHAPES == 0:
            weight[channel, channel, -1] = _outer(_SHARPENING, _SHARPENING)
        else:
            weight[channel, channel, -1, 1, 1] = 1.0
    samplers = [block.upsamplers[0] for block in decoder.up_blocks if block.upsamplers is not None]
    for sampler in samplers:
        sampler.time_conv.weight.zero_()
        sampler.time_conv.bias.zero_()
        for channel in range(sampler.dim):
            sampler.time_conv.weight[channel, channel, -1] = 1.0
            sampler.time_conv.weight[sampler.dim + channel, channel, -1] = 1.0
    first, second = (sampler.resample[1] for sampler in samplers)
    first.weight[:_COLOURS] = 0.0
    second.weight[: 2 * _COLOURS + 1] = 0.0
    smooth = _outer(_LINEAR, _LINEAR)
    for colour in range(_COLOURS):
        for index, (vertical, horizontal) in enumerate(_pairs(_LINEAR, _SHIFTED)):
            first.weight[colour, _SHAPES * colour + index] = _outer(vertical, horizontal)
        second.weight[colour, colour] = smooth
        second.weight[_COLOURS + colour, colour] = -smooth
    second.bias[2 * _COLOURS] = _CONSTANT
    _keep_norm_constant(decoder.norm_out)
    weight = decoder.conv_out.weight
    weight.mul_(0.1)
    decoder.conv_out.bias.zero_()
    halves: tuple[Kernel, Kernel] = ((0.25, 0.75, 0.0), (0.0, 0.75, 0.25))
    for colour in range(_COLOURS):
        for column in range(2):
            for row in range(2):
                output = colour * 4 + column * 2 + row
                kernel = _outer(halves[row], halves[column]) / _CONTRAST
                weight[output, : 2 * _COLOURS + 1] = 0.0
                weight[output, colour, -1] = kernel
                weight[output, _COLOURS + colour, -1] = -kernel


def _keep_norm_constant(norm: Any) -> None:
    """With the constant channel dominating, the norm divides by it alone; the rest is multiplied by the contrast."""
    norm.gamma.fill_(_CONTRAST * _CONSTANT / math.sqrt(norm.gamma.shape[0]))


def _outer(vertical: Kernel, horizontal: Kernel) -> torch.Tensor:
    return torch.outer(torch.tensor(vertical), torch.tensor(horizontal))


def _pairs(one: Kernel, other: Kernel) -> list[tuple[Kernel, Kernel]]:
    return [(one, one), (one, other), (other, one), (other, other)]
