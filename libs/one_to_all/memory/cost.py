"""Arithmetic and memory traffic of a pass through the network, counted from the network's size. No torch.

Counted are products (2 FLOP per multiplication and addition) of linear layers, attention and convolutions: what a
device's matrix units do. Norms, modulation and rotation are memory traffic and are left out of the FLOPs, so a share of
the device's peak computed with these numbers is a lower bound of how busy it was. See ``estimates`` for the memory
that is held, and ``parallel.cost`` for several ranks.

Source of the structure: docs/specification.md#module-tree to #forward-pass.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from math import prod

from libs.model_repo.files.parameters import expected_parameters, is_quantized
from libs.model_repo.variants import NetworkConfig
from libs.one_to_all.sampling.guidance import Guidance

TEXT_TOKENS = 512
_PIXELS_PER_TOKEN = 16
"""Along each side: 8 in the VAE, 2 in the patches."""
_POSE_CHANNELS = 16
_POSE_STRIDES = ((1, 2), (2, 2), (2, 2), (1, 2))
_CUBE = 27
_SQUARE = 9
_PREFIX_UNITS = 3


@dataclass(frozen=True)
class TokenGrid:
    """Tokens of one chunk: ``frames`` latent frames with the prefix, ``height`` x ``width`` tokens each."""

    frames: int
    height: int
    width: int

    @classmethod
    def of(cls, height: int, width: int, frame_count: int) -> "TokenGrid":
        """Return the grid of ``frame_count`` (4k + 1) frames of ``height`` x ``width`` pixels (multiples of 16)."""
        if frame_count % 4 != 1 or frame_count < 1 or height % _PIXELS_PER_TOKEN or width % _PIXELS_PER_TOKEN:
            raise ValueError(f"{frame_count} frames of {width}x{height} pixels: expected 4k + 1, and multiples of 16")
        return cls((frame_count - 1) // 4 + 2, height // _PIXELS_PER_TOKEN, width // _PIXELS_PER_TOKEN)

    @property
    def per_frame(self) -> int:
        """Tokens of a frame, or of the reference picture (S)."""
        return self.height * self.width

    @property
    def tokens(self) -> int:
        """Tokens of all frames (N)."""
        return self.frames * self.per_frame

    @property
    def frame_count(self) -> int:
        """Number of pixel frames."""
        return 4 * (self.frames - 2) + 1


@dataclass(frozen=True)
class PassCost:
    """FLOPs of one pass by part."""

    main_blocks: int
    first_attention: int
    """Part of ``main_blocks``: self attention of the first block, which knows neither text nor pose yet."""
    control_branch: int
    head: int
    text: int
    """Projection of the text, and its keys and values in all blocks."""
    prefix: int
    pose: int
    reference_features: int

    @property
    def total(self) -> int:
        """FLOPs of everything, as upstream computes it in each pass."""
        return self.every_pass + self.control_branch + self.text + self.prefix + self.pose + self.reference_features

    @property
    def every_pass(self) -> int:
        """FLOPs that no pass can do without, control branch not included."""
        return self.main_blocks + self.head


def pass_cost(network: NetworkConfig, grid: TokenGrid, text_tokens: int = TEXT_TOKENS) -> PassCost:
    """Count the FLOPs of one pass over ``grid``."""
    width, tokens, reference = _width(network), grid.tokens, grid.per_frame
    linear = 2 * width * width  # per token
    feed_forward = 4 * width * network.ffn_dim  # per token
    self_attention = tokens * (4 * linear + feed_forward) + _attention(tokens, tokens, width)
    to_reference = reference * 2 * linear + _attention(tokens, reference, width)
    main_block = (
        self_attention
        + to_reference
        + tokens * 2 * linear  # query and output of the attention to the text
        + _attention(tokens, text_tokens, width)
    )
    patch = 4 * network.in_channels
    reference_block = reference * (4 * linear + feed_forward) + _attention(reference, reference, width)
    return PassCost(
        main_blocks=network.num_layers * main_block,
        first_attention=self_attention + to_reference - tokens * feed_forward,
        control_branch=network.num_control_layers * (self_attention + tokens * linear),
        head=tokens * 2 * width * (patch + 4 * network.out_channels),
        text=text_tokens * (2 * network.text_dim * width + linear + network.num_layers * 2 * linear),
        prefix=_prefix_encoder(network, grid),
        pose=_pose_encoder(width, grid, grid.frame_count) + _pose_encoder(width, grid, 1),
        reference_features=network.num_reference_layers * reference_block
        + (network.num_reference_layers + 1) * reference * linear
        + reference * 2 * width * 2 * patch,
    )


def step_flops(cost: PassCost, guidance: Guidance) -> int:
    """Count the FLOPs of a denoising step: once what passes share, not at all what is cached for clip or chunk."""
    images = {one.black_image for one in guidance.passes}
    with_pose = sum(one.conditioning_scale != 0 for one in guidance.passes)
    shared = len(images) * cost.reference_features - (len(guidance.passes) - len(images)) * cost.first_attention
    return len(guidance.passes) * cost.every_pass + with_pose * cost.control_branch + shared


def weight_bytes(network: NetworkConfig, *, fp8: bool = False) -> int:
    """Count the bytes of all weights in bfloat16, or with linear layers in FP8 and a float32 scale per channel."""
    return sum(_tensor_bytes(name, shape, fp8) for name, shape in _tensors(network))


def block_bytes(network: NetworkConfig, *, fp8: bool = False) -> tuple[int, int]:
    """Count the bytes of one main block (the largest), and of all blocks of the three lists."""
    sizes = bytes_by_block(network, fp8=fp8)
    return sizes["blocks.0"], sum(sizes.values())


def bytes_by_block(network: NetworkConfig, *, fp8: bool = False) -> Counter[str]:
    """Count the bytes of each block of the three lists, by its path; main blocks are ``blocks.0`` and so on."""
    sizes: Counter[str] = Counter()
    for name, shape in _tensors(network):
        path = name.split(".")
        if "blocks" in path:
            sizes[".".join(path[: path.index("blocks") + 2])] += _tensor_bytes(name, shape, fp8)
    return sizes


def pass_bytes(network: NetworkConfig, grid: TokenGrid) -> int:
    """Count the least memory traffic of a pass in bfloat16: each weight once, the token stream between operations.

    A block with perfectly fused element-wise work reads and writes the stream 14 times (three normed inputs, q, k, v
    and their results in three attentions, three sums), and its hidden feed-forward layer twice.
    """
    stream = 2 * grid.tokens * _width(network)
    hidden = 2 * grid.tokens * network.ffn_dim
    blocks = network.num_layers + network.num_control_layers
    return weight_bytes(network) + blocks * (14 * stream + 2 * hidden)


def _width(network: NetworkConfig) -> int:
    return network.num_attention_heads * network.attention_head_dim


def _tensors(network: NetworkConfig) -> Iterable[tuple[str, tuple[int, ...]]]:
    return expected_parameters(network).items()


def _attention(queries: int, keys: int, width: int) -> int:
    """Count scores and their product with the values."""
    return 4 * queries * keys * width


def _tensor_bytes(name: str, shape: tuple[int, ...], fp8: bool) -> int:
    if fp8 and is_quantized(name, shape):
        return prod(shape) + 4 * shape[0]
    return 2 * prod(shape)


def _pose_encoder(width: int, grid: TokenGrid, frames: int) -> int:
    """Count causal 3D convolutions: one in, two units and a strided one per stage, one to the model width."""
    side = _PIXELS_PER_TOKEN
    height, columns = grid.height * side, grid.width * side
    per_cell = 2 * _CUBE * _POSE_CHANNELS
    flops = frames * height * columns * per_cell * 3
    for time, space in _POSE_STRIDES:
        flops += 2 * frames * height * columns * per_cell * _POSE_CHANNELS
        frames, height, columns = (frames - 1) // time + 1, height // space, columns // space
        flops += frames * height * columns * per_cell * _POSE_CHANNELS
    return flops + frames * height * columns * per_cell * width


def _prefix_encoder(network: NetworkConfig, grid: TokenGrid) -> int:
    cells = 4 * grid.per_frame
    channels = 3 * network.in_channels + 2 * _PREFIX_UNITS * _POSE_CHANNELS  # in, out, and two convolutions per unit
    return 2 * _SQUARE * cells * _POSE_CHANNELS * channels
