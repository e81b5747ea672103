"""Where the transformer's training starts, and which of its weights training must leave alone.

The start knows three things that are slow to learn: tokens carry the latents of their patch and the output reads them
back; block 0 looks up the reference's latents of the same place; the drawn pose arrives as light, dark and edges at
a quarter of the size. All else is random and weak.

Layer norms would mix a token's noise into everything. A few channels of the stream hold large constants, which no
weight writes or reads: the norms divide by these, nearly the same number for each token.
"""

import math
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

import torch

from libs.one_to_all.network.transformer import OneToAllTransformer3DModel
from libs.sandbox.sizes import LATENT_CHANNELS, NETWORK

_CELLS = 4
_VALUES = _CELLS * LATENT_CHANNELS  # channels 0..63 of the stream: the latents of a patch
_CONSTANTS = 8
_CONSTANT = 11.0
_PLACE_PAIRS = 6
_PLACE_SHARPNESS = 12.0
_LAST_STEP_GAIN = 9.0  # by how much the output grows at the last, almost noiseless step
_POSE_LIGHT = 6.0

FROZEN_POSE_STAGES = 2
"""Stages of the pose encoder that are constructed and stay so; what they give is computed once and stored."""

_FROZEN = (
    "input_hint_block.conv_in",
    *(f"input_hint_block.down_blocks.{stage}" for stage in range(FROZEN_POSE_STAGES)),
)


def trainable(model: OneToAllTransformer3DModel) -> Iterator[tuple[str, torch.nn.Parameter]]:
    """The named parameters that training moves."""
    for name, parameter in model.named_parameters():
        if not name.startswith(_FROZEN):
            yield name, parameter


@torch.no_grad()
def starting_transformer(seed: int = 0) -> OneToAllTransformer3DModel:
    """The transformer before training; equal seeds give equal weights."""
    model: Any = OneToAllTransformer3DModel(**asdict(NETWORK))
    generator = torch.Generator().manual_seed(seed)
    _randomise(model, generator)
    _construct_stream(model)
    _construct_time(model)
    _construct_reference(model)
    _construct_prefix(model)
    _construct_pose(model, generator)
    typed: OneToAllTransformer3DModel = model
    return typed


class ConstantChannels:
    """Keeps the constants constant: after a backward pass, :meth:`keep` removes the gradients that would move them."""

    def __init__(self, model: Any) -> None:
        channels = _constants(model)
        self._readers, self._writers = [], []
        blocks = [*model.blocks, *model.controlnet.blocks, *model.refextractor.blocks]
        for block in blocks:
            attention = block.attn1
            self._readers += [attention.to_q, attention.to_k, attention.to_v, block.ffn.net[0].proj]
            self._writers += [attention.to_out[0], block.ffn.net[2]]
        for block in model.blocks:
            self._readers.append(block.attn2.to_q)
            self._writers.append(block.attn2.to_out[0])
        both = [*model.refextractor.ref_blocks, *model.controlnet_zero]
        self._readers += [*both, model.proj_out]
        self._writers += [*both, model.patch_embedding, model.refextractor.patch_embedding]
        self._writers.append(model.input_hint_block.conv_out.conv)
        self._channels = channels

    def keep(self) -> None:
        """Zero the gradients from and to the constant channels."""
        for layer in self._readers:
            if layer.weight.grad is not None:
                layer.weight.grad[:, self._channels] = 0.0
        for layer in self._writers:
            for parameter in (layer.weight, layer.bias):
                if parameter is not None and parameter.grad is not None:
                    parameter.grad[self._channels] = 0.0


def _constants(model: Any) -> slice:
    """All but the last channel of the stream's end; the last one takes the sum of the output's rows to zero."""
    dim = model.patch_embedding.out_channels
    return slice(dim - 1 - _CONSTANTS, dim - 1)


def _blocks(model: Any) -> list[Any]:
    return [*model.blocks, *model.controlnet.blocks, *model.refextractor.blocks]


def _spread(shape: torch.Size, generator: torch.Generator, spread: float) -> torch.Tensor:
    fan_in = math.prod(shape[1:])
    return torch.randn(shape, generator=generator) * spread / math.sqrt(fan_in)


def _randomise(model: Any, generator: torch.Generator) -> None:
    quiet = {"to_out": 0.2, "ffn.net.2": 0.2, "time_proj": 0.05, "attn2.to_out": 0.0}
    for name, parameter in model.named_parameters():
        if name.endswith("scale_shift_table"):
            parameter.zero_()
        elif parameter.dim() == 1:
            parameter.fill_(1.0 if "norm" in name and name.endswith("weight") else 0.0)
        else:
            parameter.copy_(_spread(parameter.shape, generator, 0.7))
            for part, factor in quiet.items():
                if part in name:
                    parameter.mul_(factor)
    for block in _blocks(model):
        block.scale_shift_table[:, 2] = 1.0  # gates
        block.scale_shift_table[:, 5] = 1.0


def _construct_stream(model: Any) -> None:
    dim = model.patch_embedding.out_channels
    constants = _constants(model)
    signs = torch.tensor([1.0, -1.0]).repeat(_CONSTANTS // 2)
    for embedding in (model.patch_embedding, model.refextractor.patch_embedding):
        embedding.weight[:_VALUES] = 0.0
        embedding.weight[_VALUES:] *= 0.6
        for value in range(_VALUES):
            cell, channel = divmod(value, LATENT_CHANNELS)
            row, column = divmod(cell, 2)
            embedding.weight[value, channel, 0, row, column] = 1.0
        embedding.weight[constants.start :] = 0.0
        embedding.bias[constants] = _CONSTANT * (dim / 128) ** 0.5 * signs
    model.proj_out.weight.zero_()
    for value in range(_VALUES):
        model.proj_out.weight[value, value] = 1.0
        model.proj_out.weight[value, dim - 1] = -1.0
    for block in _blocks(model):
        block.scale_shift_table[:, 1] = 2.0  # norms divide by nearly three, this takes it back
        block.scale_shift_table[:, 4] = 2.0
        attention = block.attn1
        for reader in (attention.to_q, attention.to_k, attention.to_v, block.ffn.net[0].proj):
            reader.weight[:, constants.start :] = 0.0
            reader.weight[:, :_VALUES] *= 0.4
        for writer in (attention.to_out[0], block.ffn.net[2]):
            writer.weight[constants.start :] = 0.0
    for block in model.blocks:
        block.attn2.to_q.weight[:, constants.start :] = 0.0
    model.scale_shift_table[:, 1] = 2.0


def _construct_time(model: Any) -> None:
    """One neuron that is on at the last step only: there the velocity is the error of almost clean latents, divided."""
    embedder = model.condition_embedder.time_embedder
    half = embedder.linear_1.in_features // 2
    index = round(half * math.log(1000.0) / math.log(10000.0))
    frequency = math.exp(-math.log(10000.0) * index / half)  # about a thousandth: a cosine that falls all the way
    embedder.linear_1.weight.mul_(0.5)
    embedder.linear_2.weight.mul_(0.1)
    before, last = math.cos(781 * frequency), math.cos(47 * frequency)
    threshold = (before + last) / 2
    steepness = 8.0 / (last - threshold)
    embedder.linear_1.weight[0] = 0.0
    embedder.linear_1.weight[0, index] = steepness
    embedder.linear_1.bias[0] = -steepness * threshold
    embedder.linear_2.weight[:, 0] = _LAST_STEP_GAIN / 8.0


def _construct_reference(model: Any) -> None:
    """Block 0 subtracts the reference's latents of the same place, and adds its other channels."""
    extractor, attention = model.refextractor, model.blocks[0].attn1
    constants = _constants(model)
    dim = attention.to_q.in_features
    for layer in (*extractor.ref_blocks, attention.add_v_proj):
        layer.weight.copy_(torch.eye(dim))
        layer.weight[constants.start :] = 0.0
    for layer in extractor.ref_blocks:
        layer.weight[:, constants.start :] = 0.0
    attention.to_v.weight.zero_()
    output = attention.to_out[0].weight
    output.zero_()
    for channel in range(constants.start):
        output[channel, channel] = -1.0 if channel < _VALUES else 1.0
    head_dim = dim // attention.heads
    spatial = 2 * (head_dim // 6)
    temporal = head_dim - 2 * spatial
    places = [
        head * head_dim + temporal + axis * spatial + 2 * pair
        for head in range(attention.heads)
        for axis in range(2)
        for pair in range(_PLACE_PAIRS)
    ]
    for projection, norm in ((attention.to_q, attention.norm_q), (attention.add_k_proj, attention.norm_added_k)):
        projection.weight.mul_(0.02)
        projection.bias.zero_()
        projection.bias[places] = 1.0
        norm.weight.fill_(_PLACE_SHARPNESS * math.sqrt(len(places) / dim))


def _construct_prefix(model: Any) -> None:
    """The prefix frame starts as the reference's latents."""
    encoder = model.image_to_cond
    for convolution in (encoder.conv_in, encoder.conv_out):
        convolution.weight.mul_(0.1)
        for channel in range(LATENT_CHANNELS):
            convolution.weight[channel] = 0.0
            convolution.weight[channel, channel, 1, 1] = 1.0
    for block in encoder.down_blocks:
        for unit in block.resnets:
            unit.conv2.weight.mul_(0.05)


def _construct_pose(model: Any, generator: torch.Generator) -> None:
    """Stages 0 and 1: smoothed light of both frames of a pair, and its differences across and down."""
    encoder = model.input_hint_block
    for stage, block in enumerate(encoder.down_blocks):
        for unit in block.resnets:
            unit.conv2.conv.weight.mul_(0.0 if stage < FROZEN_POSE_STAGES else 0.15)
    encoder.conv_in.conv.weight.zero_()
    for colour in range(3):
        encoder.conv_in.conv.weight[colour, colour, -1, 1, 1] = _POSE_LIGHT / 2
        encoder.conv_in.conv.bias[colour] = _POSE_LIGHT / 2
    smooth, change = torch.tensor([0.25, 0.5, 0.25]), torch.tensor([-0.5, 0.0, 0.5])
    blur, across, down = torch.outer(smooth, smooth), torch.outer(smooth, change), torch.outer(change, smooth)
    first, second, third, fourth = (block.downsamplers[0].conv.conv.weight for block in encoder.down_blocks)
    first.zero_()
    second.zero_()
    for colour in range(3):
        first[colour, colour, -1] = 4 * blur
        first[3 + colour, colour, -1] = 4 * across
        first[6 + colour, colour, -1] = 4 * down
        second[colour, colour, -1] = blur
        second[3 + colour, colour, -2] = blur  # the earlier frame of the pair
        second[6 + colour, 3 + colour, -1], second[6 + colour, colour, -1] = blur, 2 * across
        second[9 + colour, 6 + colour, -1], second[9 + colour, colour, -1] = blur, 2 * down
        second[12 + colour, 3 + colour, -2], second[12 + colour, colour, -2] = blur, 2 * across
        second[15, 6 + colour, -2] = blur
    for weight in (third, fourth):
        weight.copy_(_spread(weight.shape, generator, 0.5))
        for channel in range(16):
            weight[channel, channel, -1] += blur
    constants = _constants(model)
    output = encoder.conv_out.conv.weight
    output.copy_(_spread(output.shape, generator, 2.5))
    output[:_VALUES] *= 0.1
    output[constants] = 0.0
    zero = model.controlnet_zero[0].weight
    zero.mul_(0.3)
    zero += 0.5 * torch.eye(len(zero))
    zero[:_VALUES, :_VALUES] *= 0.1
    zero[constants] = 0.0
    zero[:, constants] = 0.0
    zero[:, :_VALUES] *= 0.2
