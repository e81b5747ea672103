"""The sandbox's transformer: the real class with constructed weights, so that a clip shows what a person recognises.

It predicts the velocity (x - x0) / sigma of a fixed guess x0: the reference picture, standing still, with the pose
drawn over it as coloured light. Each part of the real network does the job it was made for:

- the reference attention looks up the reference token of the same place (its query and key are constant vectors, which
  the rotary embedding turns by position) and subtracts its latents from the noisy ones;
- the pose encoder averages the drawn pose to latent cells; the control branch subtracts its colours;
- the time embedding interpolates 1/sigma with one SiLU per knot, the final modulation multiplies by it. Channels with
  large constants keep the layer norm linear;
- text attention and feed-forwards are random and weak: a different prompt gives a slightly different grain.

With the sandbox's default guidance (image 2, pose 1.5) the guided x0 is the picture plus the pose. What does not belong
here: the autoencoder whose latents these are (``autoencoder``), files (``repository``).

Citations like "#forward-pass" are headings of docs/specification.md#network.
"""

import math
from dataclasses import asdict
from typing import Any

import torch
from torch import nn

from libs.model_repo.variants import NetworkConfig, SamplingDefaults
from libs.one_to_all.network import OneToAllTransformer3DModel
from libs.sandbox.autoencoder import COLOURS, latent_of_colour

_LATENT_CHANNELS = 16
_CELLS = 4  # latent cells of a 2x2 patch
_VALUES = _CELLS * _LATENT_CHANNELS  # stream dims 0..63: x - x0, ordered like the network's output
_POSE = slice(_VALUES, _VALUES + _CELLS * COLOURS)  # dims 64..75 of the control stream: the pose's colours
_CONSTANTS = 32  # the last dims: +K and -K in turn
_CONSTANT = 16.0
_KNOTS = 64
_SMALLEST_SIGMA = 0.03
_PLACE_PAIRS = 6  # rotary pairs per axis used to find the same place
_PLACE_SHARPNESS = 12.0
_POSE_BRIGHTNESS = 4.0  # of the light, relative to the share of a latent cell the drawn pose covers
_GRAIN = 0.002


def build_transformer(network: NetworkConfig, sampling: SamplingDefaults, seed: int) -> OneToAllTransformer3DModel:
    """The transformer in float32; equal arguments give equal weights.

    Args:
        network: its size; one head at least, one control and one reference block.
        sampling: the guidance for which picture and pose come out at full strength.
        seed: of the weak random parts.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)  # the class initialises with the global generator; nothing of it is kept
        model = OneToAllTransformer3DModel(**asdict(network)).eval().requires_grad_(False)
    _fill_with_grain(model, torch.Generator().manual_seed(seed))
    _construct_stream(model)
    _construct_reference(model, 1.0 / sampling.image_guidance_scale)
    _construct_pose(model, _POSE_BRIGHTNESS / sampling.pose_guidance_scale)
    _construct_time(model)
    return model


# The functions below take the model as Any: to a type checker its submodules are "Tensor or Module".


def _fill_with_grain(model: Any, generator: torch.Generator) -> None:
    """Norm weights one, biases and tables zero, matrices random; what leads back into the stream is silent or weak."""
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        elif name.endswith("scale_shift_table"):
            parameter.zero_()
        else:
            fan_in = parameter[0].numel()
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / math.sqrt(fan_in))
    for name, parameter in model.named_parameters():
        if "attn2.to_out" in name or "ffn.net.2" in name:
            parameter.mul_(_GRAIN)
        elif "attn1.to_out" in name or "time_proj" in name or name.startswith("controlnet_zero"):
            parameter.zero_()
    for block in model.blocks:
        block.scale_shift_table[:, 2] = 1.0  # gate of the attention
        block.scale_shift_table[:, 5] = 1.0  # gate of the feed-forward


def _construct_stream(model: Any) -> None:
    """Tokens carry the latents of their patch; the output reads them back (#forward-pass, steps 3 and 7)."""
    dim = model.patch_embedding.out_channels
    model.patch_embedding.weight.zero_()
    model.proj_out.weight.zero_()
    signs = torch.tensor([1.0, -1.0]).repeat(_CONSTANTS // 2)
    model.patch_embedding.bias[dim - _CONSTANTS :] = _CONSTANT * signs
    # Layer norm divides by about this; the constants dominate the variance.
    spread = _CONSTANT * math.sqrt(_CONSTANTS / dim)
    for value in range(_VALUES):
        cell, channel = divmod(value, _LATENT_CHANNELS)
        row, column = divmod(cell, 2)
        model.patch_embedding.weight[value, channel, 0, row, column] = 1.0
        model.proj_out.weight[value, value] = spread
        # The constants add up to minus the mean that layer norm took away; the row sums to zero, so that the shift of
        # the final modulation, which is the same in all dims, drops out.
        model.proj_out.weight[value, dim - _CONSTANTS :] = -spread / _CONSTANTS


def _construct_reference(model: Any, strength: float) -> None:
    """Main block 0: X -= x0 of the picture, with x0 = strength * picture + (1 - strength) * black (#blocks, step 2).

    Guidance g multiplies the difference between picture and black, so with strength 1/g the picture is left.
    """
    extractor, attention = model.refextractor, model.blocks[0].attn1
    extractor.patch_embedding.weight.zero_()
    for value in range(_VALUES):
        cell, channel = divmod(value, _LATENT_CHANNELS)
        row, column = divmod(cell, 2)
        extractor.patch_embedding.weight[value, channel, 0, row, column] = 1.0
    _identity(extractor.ref_blocks[0])
    _identity(attention.add_v_proj)
    attention.to_v.weight.zero_()
    attention.to_out[0].weight[range(_VALUES), range(_VALUES)] = -strength
    black = latent_of_colour(torch.full((COLOURS,), -1.0))
    attention.to_out[0].bias[:_VALUES] = -(1 - strength) * black.repeat(_CELLS)

    temporal, spatial = _rotary_dims(attention.to_q.out_features // attention.heads)
    places = [temporal + axis * spatial + 2 * pair for axis in range(2) for pair in range(_PLACE_PAIRS)]
    for projection, norm in (
        (attention.to_q, attention.norm_q),
        (attention.add_k_proj, attention.norm_added_k),
    ):
        projection.weight.zero_()
        projection.bias[places] = 1.0
        root_mean_square = math.sqrt(len(places) / projection.out_features)
        norm.weight.fill_(_PLACE_SHARPNESS * root_mean_square)


def _construct_pose(model: Any, brightness: float) -> None:
    """The drawn pose, averaged over a latent cell and its frames, is added to x0 as light (#convolutional-encoders)."""
    encoder = model.input_hint_block
    pair = torch.tensor([0.0, 0.5, 0.5])  # a strided convolution with one pixel of padding sees 2i-1, 2i, 2i+1
    convolutions = [encoder.conv_in.conv, encoder.conv_out.conv]
    for stage in encoder.down_blocks:
        for unit in stage.resnets:
            unit.conv2.conv.weight.zero_()
        convolutions.append(stage.downsamplers[0].conv.conv)
    for convolution in convolutions:
        convolution.weight.zero_()
    conv_in, conv_out, *samplers = convolutions
    for colour in range(COLOURS):
        conv_in.weight[colour, colour, -1, 1, 1] = 0.5  # [-1, 1] to [0, 1]: black is no light
        conv_in.bias[colour] = 0.5
        for sampler in samplers[:-1]:
            in_time = pair if sampler.stride[0] == 2 else torch.tensor([0.0, 0.0, 1.0])
            sampler.weight[colour, colour] = torch.einsum("t,y,x->tyx", in_time, pair, pair)
        for cell in range(_CELLS):
            row, column = divmod(cell, 2)
            position = cell * COLOURS + colour
            samplers[-1].weight[position, colour, -1, 1 + row, 1 + column] = 1.0
            conv_out.weight[_POSE.start + position, position, -1, 1, 1] = 1.0

    control, zero = model.controlnet.blocks[0], model.controlnet_zero[0]
    control.scale_shift_table.zero_()  # gates of zero: the block hands its input on
    light = latent_of_colour(2.0 * brightness * torch.eye(COLOURS))  # [3, 16]; 2: the range of a colour
    for cell in range(_CELLS):
        rows = slice(cell * _LATENT_CHANNELS, (cell + 1) * _LATENT_CHANNELS)
        columns = slice(_POSE.start + cell * COLOURS, _POSE.start + (cell + 1) * COLOURS)
        zero.weight[rows, columns] = -light.T


def _construct_time(model: Any) -> None:
    """Time embedding 1/sigma - 1 in every dim: the final modulation multiplies by 1/sigma (#forward-pass, step 7).

    The input is one component of the sinusoid, s = sin(1000 sigma w), which grows with sigma; 1/sigma is interpolated
    between knots in s by hinges max(s_j - s, 0), each one SiLU of a steep line. All slopes are positive: 1/sigma is
    convex, so no large numbers cancel.
    """
    embedder = model.condition_embedder.time_embedder
    half = embedder.linear_1.in_features // 2
    index = math.ceil(half * math.log(1000.0 / 1.2) / math.log(10000.0))
    frequency = 1000.0 * math.exp(-math.log(10000.0) * index / half)  # at most 1.2: below a quarter turn

    sigma = torch.logspace(0, math.log10(_SMALLEST_SIGMA), _KNOTS + 1, dtype=torch.float64)
    knots = torch.sin(frequency * sigma)
    # weight and bias as bfloat16 can hold them, and the knots where they then lie
    steepness = _as_stored(16.0 / -torch.diff(knots, append=0.9 * knots[-1:]))
    bias = _as_stored(steepness * knots)
    knots = bias / steepness
    values = frequency / torch.asin(knots)  # 1/sigma
    slopes = (values[1:] - values[:-1]) / (knots[:-1] - knots[1:])
    changes = torch.diff(slopes, prepend=torch.zeros(1, dtype=torch.float64))
    for layer in (embedder.linear_1, embedder.linear_2):
        layer.weight.zero_()
    embedder.linear_1.weight[:_KNOTS, half + index] = -steepness[:-1].float()
    embedder.linear_1.bias[:_KNOTS] = bias[:-1].float()
    embedder.linear_2.weight[:, :_KNOTS] = (changes / steepness[:-1]).float()


def _as_stored(values: torch.Tensor) -> torch.Tensor:
    """``values`` rounded to what a bfloat16 checkpoint holds."""
    return values.to(torch.bfloat16).double()


def _rotary_dims(head_dim: int) -> tuple[int, int]:
    """Dims of a head that turn with time, and with each of the two spatial axes (#embeddings-and-rope)."""
    spatial = 2 * (head_dim // 6)
    return head_dim - 2 * spatial, spatial


def _identity(linear: nn.Linear) -> None:
    linear.weight.copy_(torch.eye(linear.out_features, linear.in_features))
