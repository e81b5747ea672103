"""Bytes that computing takes on a device beside the weights, by what one process computes. Pure, calculated.

Source: the peaks that torch's memory tracker counts for the real modules with tensors that hold no data; unit tests
hold the formulas to these. What does not belong here: weights, and where they lie (``memory_plan``).
"""

from dataclasses import dataclass

from libs.model_repo.variants import NetworkConfig
from libs.one_to_all.memory.cost import TEXT_TOKENS, TokenGrid

MOST_PASSES = 3
"""Of a step (``guidance``)."""

_STREAM_COPIES = 17
"""Token streams in bfloat16 alive at a block's peak (its rotation in float32), pose tokens and replacement included."""
_WHOLE_STREAMS = 2
"""Of all tokens where ranks share them: pose tokens, and the stream before it is cut."""
_POSE_PLANES = 4.5
"""Planes of 16 channels alive at the pose encoder's peak, at the video's full size; whole on every rank."""
_STREAMS_BESIDE_POSES = 3
_CACHED_STREAMS = 3
"""Of a block cache, for each guidance pass (``block_cache``)."""
_DECODER_BYTES_PER_PIXEL = 10_200
"""Of one frame: the feature maps of one latent frame and those remembered of the one before."""
_TILED_DECODER_BYTES = 700 * 10**6
_VIDEO_BYTES_PER_VALUE = 3
_TILED_VIDEO_BYTES_PER_VALUE = 6


@dataclass(frozen=True)
class WorkShare:
    """What one process of those that make a clip together holds and computes.

    Args:
        leads: it holds VAE and text encoder beside the transformer; the others hold nothing but that.
        passes: of a step, at most.
        context: how many processes share the tokens of each pass.
    """

    leads: bool = True
    passes: int = MOST_PASSES
    context: int = 1


ALONE = WorkShare()


def sampling_bytes(network: NetworkConfig, grid: TokenGrid, share: WorkShare = ALONE) -> int:
    """Intermediate results of a pass in bfloat16 at their peak, with features of the reference and keys of the text."""
    model_width = network.num_attention_heads * network.attention_head_dim
    stream, part = _stream_bytes(network, grid), _stream_bytes(network, grid, share)
    planes = 2 * 16 * grid.frame_count * _pixels(grid)
    of_pictures = min(2, share.passes)
    features = of_pictures * (network.num_reference_layers + 1) * grid.per_frame * model_width * 2
    text = of_pictures * TEXT_TOKENS * (network.text_dim + 4 * model_width) * 2
    blocks = _STREAM_COPIES * part + (_WHOLE_STREAMS * stream if share.context > 1 else 0)
    peak = max(blocks, round(_POSE_PLANES * planes) + _STREAMS_BESIDE_POSES * part)
    return peak + features + text


def kept_bytes(network: NetworkConfig, grid: TokenGrid, share: WorkShare = ALONE, *, block_cache: bool) -> int:
    """Token streams kept from pass to pass: the attention that passes share, and three per pass of a block cache."""
    shared = 1 if share.passes > 1 else 0
    return (shared + (_CACHED_STREAMS * share.passes if block_cache else 0)) * _stream_bytes(network, grid, share)


def decoding_bytes(grid: TokenGrid, *, tiled: bool) -> int:
    """Intermediate results of the VAE's decoder in bfloat16, and the decoded video."""
    values = 3 * grid.frame_count * _pixels(grid)
    if tiled:
        return min(_TILED_DECODER_BYTES, _DECODER_BYTES_PER_PIXEL * _pixels(grid)) + (
            _TILED_VIDEO_BYTES_PER_VALUE * values
        )
    return _DECODER_BYTES_PER_PIXEL * _pixels(grid) + _VIDEO_BYTES_PER_VALUE * values


def _stream_bytes(network: NetworkConfig, grid: TokenGrid, share: WorkShare = ALONE) -> int:
    """One stream in bfloat16, of all tokens or of one process' part of them."""
    tokens = -(-grid.tokens // share.context)
    return 2 * tokens * network.num_attention_heads * network.attention_head_dim


def _pixels(grid: TokenGrid) -> int:
    return 256 * grid.per_frame
