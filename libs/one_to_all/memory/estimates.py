"""Calculated bytes of what lies in memory beside resident weights: activations on a device, blocks on the host.

Activations are the peaks that torch's memory tracker counts for the real modules with tensors that hold no data; unit
tests compare the formulas with these. See ``cost`` for the bytes of weights, and ``plan`` for what they add up to.
"""

from collections import Counter
from dataclasses import dataclass

from libs.model_repo.variants import NetworkConfig
from libs.one_to_all.memory.cost import TEXT_TOKENS, TokenGrid, bytes_by_block

MOST_PASSES = 3
"""Guidance passes of a step, at most."""

_STREAM_COPIES = 17
"""Token streams in bfloat16 alive at a block's peak (its rotation in float32), pose tokens and replacement included."""
_WHOLE_STREAMS = 2
"""Streams of all tokens in context parallelism: pose tokens, and the stream before it is split."""
_POSE_PLANES = 4.5
"""Planes of 16 channels alive at the pose encoder's peak, at the video's full size; whole on every rank."""
_STREAMS_BESIDE_POSES = 3
_CACHED_STREAMS = 3
"""Streams that a block cache keeps for each guidance pass (``network.block_cache``)."""
_DECODER_BYTES_PER_PIXEL = 10_200
"""Feature maps of one latent frame and those remembered of the one before, per pixel of a frame."""
_TILED_DECODER_BYTES = 700 * 10**6
_VIDEO_BYTES_PER_VALUE = 3
_TILED_VIDEO_BYTES_PER_VALUE = 6


@dataclass(frozen=True)
class RankWork:
    """The part of a clip that one process holds and computes.

    Args:
        is_leader: whether it holds VAE and text encoder; the other ranks hold the transformer only.
        passes: guidance passes of a step that it computes, at most.
        context: number of ranks among which the tokens of each pass are split.
    """

    is_leader: bool = True
    passes: int = MOST_PASSES
    context: int = 1


ALONE = RankWork()
"""The work of a process that makes the clip by itself."""


def sampling_bytes(network: NetworkConfig, grid: TokenGrid, rank_work: RankWork = ALONE) -> int:
    """Estimate the activations of a pass in bfloat16 at their peak, with reference features and the text's keys."""
    model_width = network.num_attention_heads * network.attention_head_dim
    stream, part = _stream_bytes(network, grid), _stream_bytes(network, grid, rank_work)
    planes = 2 * 16 * grid.frame_count * _pixels(grid)
    of_pictures = min(2, rank_work.passes)
    features = of_pictures * (network.num_reference_layers + 1) * grid.per_frame * model_width * 2
    text = of_pictures * TEXT_TOKENS * (network.text_dim + 4 * model_width) * 2
    blocks = _STREAM_COPIES * part + (_WHOLE_STREAMS * stream if rank_work.context > 1 else 0)
    peak = max(blocks, round(_POSE_PLANES * planes) + _STREAMS_BESIDE_POSES * part)
    return peak + features + text


def bytes_between_passes(
    network: NetworkConfig, grid: TokenGrid, rank_work: RankWork = ALONE, *, block_cache: bool
) -> int:
    """Estimate the streams kept between passes: attention that passes share, three per pass of a block cache."""
    shared = 1 if rank_work.passes > 1 else 0
    streams = shared + (_CACHED_STREAMS * rank_work.passes if block_cache else 0)
    return streams * _stream_bytes(network, grid, rank_work)


def decoding_bytes(grid: TokenGrid, *, tiled: bool) -> int:
    """Estimate the activations of the VAE's decoder in bfloat16, and the decoded video."""
    values = 3 * grid.frame_count * _pixels(grid)
    if tiled:
        return min(_TILED_DECODER_BYTES, _DECODER_BYTES_PER_PIXEL * _pixels(grid)) + (
            _TILED_VIDEO_BYTES_PER_VALUE * values
        )
    return _DECODER_BYTES_PER_PIXEL * _pixels(grid) + _VIDEO_BYTES_PER_VALUE * values


def page_locked_bytes(byte_count: int) -> int:
    """Round up to what torch takes of the host's memory for one page-locked tensor: a power of two."""
    return 1 << max(0, byte_count - 1).bit_length()


def block_sizes(network: NetworkConfig, lora_bytes: int, *, fp8: bool) -> Counter[str]:
    """Bytes of each block of the three lists by its path, with an unfused LoRA beside FP8 weights."""
    sizes = bytes_by_block(network, fp8=fp8)
    if fp8:  # a LoRA concerns all main blocks alike, and hardly anything else
        for index in range(network.num_layers):
            sizes[f"blocks.{index}"] += -(-lora_bytes // network.num_layers)
    return sizes


def _stream_bytes(network: NetworkConfig, grid: TokenGrid, rank_work: RankWork = ALONE) -> int:
    """Bytes of one stream in bfloat16, of all tokens or of one rank's part of them."""
    tokens = -(-grid.tokens // rank_work.context)
    return 2 * tokens * network.num_attention_heads * network.attention_head_dim


def _pixels(grid: TokenGrid) -> int:
    return 256 * grid.per_frame
