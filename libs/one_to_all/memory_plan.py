"""What has to lie on a card at a time, in bytes, and the plan by which a clip fits into the memory that is free. Pure.

The estimates are calculated, not measured on a card: weights from the network's size, intermediate results from the
peaks that torch's memory tracker counts for the real modules with tensors that hold no data (a unit test holds the
formulas to these). What does not belong here: how much is free (``memory``), which plan is asked for
(``memory_options``), and carrying one out (``placement``).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from libs.model_repo.variants import ModelVariant, NetworkConfig
from libs.one_to_all.cost import TEXT_TOKENS, TokenGrid, block_bytes, weight_bytes
from libs.settings import MemoryPlanName

Transformer = Literal["resident", "offloaded"]
TextEncoder = Literal["resident", "dropped after the prompt", "on the host"]
Phase = Literal["prompt", "sampling", "decoding"]

GB = 10**9
UMT5_XXL_BYTES = 2 * (256384 * 4096 + 24 * (4 * 4096**2 + 3 * 4096 * 10240))
"""Wan2.1's text encoder in bfloat16: token embeddings, and attention and gated feed-forward of 24 layers."""
WAN_VAE_BYTES = 254 * 10**6
"""Wan2.1's VAE in bfloat16: 127 million parameters."""

_STREAM_COPIES = 17
"""Token streams in bfloat16 alive at a block's peak (its rotation in float32), pose tokens and replacement included."""
_POSE_PLANES = 4.5
"""Planes of 16 channels alive at the pose encoder's peak, at the video's full size."""
_STREAMS_BESIDE_POSES = 3
_CACHED_STREAMS = 3 * 3
"""Of a block cache: three for each of the at most three guidance passes (``block_cache``)."""
_DECODER_BYTES_PER_PIXEL = 10_200
"""Of one frame: the feature maps of one latent frame and those remembered of the one before."""
_TILED_DECODER_BYTES = 700 * 10**6
_VIDEO_BYTES_PER_VALUE = 3
_TILED_VIDEO_BYTES_PER_VALUE = 6
_OFFLOADED_BLOCKS = 2
"""On the device at a time: the one that computes, and the one that is copied next (``block_offload``)."""
_KEYWORDS: Mapping[tuple[Transformer, TextEncoder, bool], MemoryPlanName] = {
    ("resident", "resident", False): "resident",
    ("resident", "dropped after the prompt", False): "drop-text-encoder",
    ("resident", "on the host", False): "text-encoder-on-host",
    ("offloaded", "dropped after the prompt", False): "offload",
    ("offloaded", "on the host", False): "offload-all",
    ("offloaded", "on the host", True): "tiles",
}
_LIBRARIES = 1 * GB
_FRAGMENTATION = 0.05


@dataclass(frozen=True)
class MemoryPlan:
    """Where the parts of the engine lie, and what that needs.

    Attributes:
        requested: name of the model variant that is asked for.
        variant: of the one whose weights are taken; ends with ``-fp8`` where they are FP8.
        transformer: whole on the device, or block by block from the host while it computes.
        text_encoder: where it lies, and how long.
        vae_tiling: decode in tiles; not exact at their seams.
        phases: bytes on the device by item, for each phase of a clip.
        host_bytes: weights that lie in the host's memory.
        free_bytes: what the plan was made for.
    """

    requested: str
    variant: str
    transformer: Transformer
    text_encoder: TextEncoder
    vae_tiling: bool
    phases: Mapping[Phase, Mapping[str, int]]
    host_bytes: int
    free_bytes: int

    @property
    def peak_bytes(self) -> int:
        """The largest sum of a phase, with what libraries and fragmentation take."""
        largest = max(self.phase_bytes.values())
        return _LIBRARIES + round(largest * (1 + _FRAGMENTATION))

    @property
    def fits(self) -> bool:
        """False where even this, the smallest plan, needs more than is free."""
        return self.peak_bytes <= self.free_bytes

    @property
    def keyword(self) -> MemoryPlanName | None:
        """How ``ONE_TO_ALL_MEMORY`` asks for it; None for one that has to be chosen by the memory."""
        return _KEYWORDS.get((self.transformer, self.text_encoder, self.vae_tiling))

    @property
    def changes(self) -> tuple[str, ...]:
        """By what its results differ a little from those of the first plan; empty where they are the same."""
        weights = () if self.variant == self.requested else (f"weights of {self.variant}",)
        return (*weights, "VAE in tiles") if self.vae_tiling else weights

    @property
    def phase_bytes(self) -> dict[Phase, int]:
        """Calculated bytes on the device in each phase, without reserve."""
        return {phase: sum(items.values()) for phase, items in self.phases.items()}

    @property
    def name(self) -> str:
        """In a few words."""
        parts = [f"{self.variant}: transformer {self.transformer}", f"text encoder {self.text_encoder}"]
        return ", ".join([*parts, "VAE in tiles"] if self.vae_tiling else parts)

    def summary(self) -> dict[str, Any]:
        """For machines: the name, and calculated bytes by phase and item."""
        return {
            "plan": self.name,
            "free bytes": self.free_bytes,
            "calculated peak bytes": self.peak_bytes,
            "bytes on the host": self.host_bytes,
            "bytes by phase": {phase: dict(items) for phase, items in self.phases.items()},
        }

    def describe(self) -> str:
        """For people, before it starts: the plan, every item with its bytes, the peak."""
        lines = [self.name]
        for phase, items in self.phases.items():
            lines.append(f"  {phase}: {_gb(sum(items.values()))}")
            lines += [f"    {_gb(count):>9}  {item}" for item, count in items.items()]
        verdict = "fits" if self.fits else "DOES NOT FIT"
        lines.append(f"  on the host: {_gb(self.host_bytes)}")
        lines.append(
            f"  calculated peak, with {_gb(_LIBRARIES)} for libraries and {_FRAGMENTATION:.0%} for fragmentation: "
            f"{_gb(self.peak_bytes)} of {_gb(self.free_bytes)} free, {verdict}"
        )
        return "\n".join(lines)


def plan_memory(
    free_bytes: int,
    variant: ModelVariant,
    height: int,
    width: int,
    frame_count: int,
    *,
    allow_fp8: bool = False,
    text_encoder_bytes: int = UMT5_XXL_BYTES,
    vae_bytes: int = WAN_VAE_BYTES,
    keyword: MemoryPlanName | None = None,
    block_cache: bool = False,
) -> MemoryPlan:
    """The first plan that fits, from the fastest to the smallest; the smallest where none fits.

    Args:
        free_bytes: free on the device before anything is loaded.
        variant: of the model; where its weights are FP8, so are all plans.
        height: of the clip in pixels, a multiple of 16.
        width: likewise.
        frame_count: of the largest chunk, 4k + 1.
        allow_fp8: also try FP8 weights of a plain variant, before offloading. They change the result a little.
        text_encoder_bytes: weights of the text encoder.
        vae_bytes: weights of the VAE.
        keyword: only plans of this name.
        block_cache: the clip's quality is an approximate one that remembers blocks' answers.
    """
    grid = TokenGrid.of(height, width, frame_count)
    kept = kept_bytes(variant.network, grid, block_cache=block_cache)
    every = _plans(free_bytes, variant, grid, allow_fp8, text_encoder_bytes, vae_bytes, kept)
    plans = [plan for plan in every if keyword is None or plan.keyword == keyword]
    return next((plan for plan in plans if plan.fits), plans[-1])


def sampling_bytes(network: NetworkConfig, grid: TokenGrid) -> int:
    """Intermediate results of a pass in bfloat16 at their peak, with features of the reference and keys of the text."""
    model_width = network.num_attention_heads * network.attention_head_dim
    stream = _stream_bytes(network, grid)
    planes = 2 * 16 * grid.frame_count * _pixels(grid)
    features = 2 * (network.num_reference_layers + 1) * grid.per_frame * model_width * 2
    text = 2 * TEXT_TOKENS * (network.text_dim + 4 * model_width) * 2
    peak = max(_STREAM_COPIES * stream, round(_POSE_PLANES * planes) + _STREAMS_BESIDE_POSES * stream)
    return peak + features + text


def kept_bytes(network: NetworkConfig, grid: TokenGrid, *, block_cache: bool) -> int:
    """Token streams kept from pass to pass: the attention that passes share, and three per pass of a block cache."""
    return (1 + (_CACHED_STREAMS if block_cache else 0)) * _stream_bytes(network, grid)


def decoding_bytes(grid: TokenGrid, *, tiled: bool) -> int:
    """Intermediate results of the VAE's decoder in bfloat16, and the decoded video."""
    values = 3 * grid.frame_count * _pixels(grid)
    if tiled:
        return min(_TILED_DECODER_BYTES, _DECODER_BYTES_PER_PIXEL * _pixels(grid)) + (
            _TILED_VIDEO_BYTES_PER_VALUE * values
        )
    return _DECODER_BYTES_PER_PIXEL * _pixels(grid) + _VIDEO_BYTES_PER_VALUE * values


def _plans(
    free_bytes: int,
    variant: ModelVariant,
    grid: TokenGrid,
    allow_fp8: bool,
    text_encoder_bytes: int,
    vae_bytes: int,
    kept_between_passes: int,
) -> Iterator[MemoryPlan]:
    """All plans, from the fastest to the smallest. The order is fixed, so more memory never means a later one."""
    is_fp8 = variant.weight_format == "fp8_scaled"
    formats = [is_fp8] if is_fp8 or not allow_fp8 else [False, True]
    placements: list[tuple[Transformer, bool]] = [("resident", False), ("offloaded", False), ("offloaded", True)]
    for transformer, tiled in placements:
        for fp8 in formats:
            for text_encoder in _text_encoder_placements(transformer):
                weights = weight_bytes(variant.network, fp8=fp8)
                one, blocks = block_bytes(variant.network, fp8=fp8)
                resident = transformer == "resident"
                resting = weights if resident else weights - blocks  # before and after sampling
                moving = 0 if resident else min(blocks, _OFFLOADED_BLOCKS * one)
                kept = {"text encoder": text_encoder_bytes} if text_encoder == "resident" else {}
                prompt = {} if text_encoder == "on the host" else {"text encoder": text_encoder_bytes}
                dequantized = {"one weight in bfloat16": 2 * _largest_weight(variant.network)} if fp8 else {}
                at_rest = {"transformer": resting, "VAE": vae_bytes}
                yield MemoryPlan(
                    requested=variant.name,
                    variant=variant.name if is_fp8 == fp8 else f"{variant.name}-fp8",
                    transformer=transformer,
                    text_encoder=text_encoder,
                    vae_tiling=tiled,
                    phases={
                        "prompt": at_rest | prompt,
                        "sampling": at_rest
                        | ({"blocks on their way": moving} if moving else {})
                        | kept
                        | dequantized
                        | {
                            "kept from pass to pass": kept_between_passes,
                            "intermediate results": sampling_bytes(variant.network, grid),
                        },
                        "decoding": at_rest | kept | {"intermediate results": decoding_bytes(grid, tiled=tiled)},
                    },
                    host_bytes=(weights - resting) + (text_encoder_bytes if text_encoder == "on the host" else 0),
                    free_bytes=free_bytes,
                )


def _text_encoder_placements(transformer: Transformer) -> tuple[TextEncoder, ...]:
    """Beside an offloaded transformer it is never kept: the memory is needed for each step, the encoder once."""
    if transformer == "resident":
        return "resident", "dropped after the prompt", "on the host"
    return "dropped after the prompt", "on the host"


def _largest_weight(network: NetworkConfig) -> int:
    model_width = network.num_attention_heads * network.attention_head_dim
    return model_width * max(network.ffn_dim, model_width)


def _stream_bytes(network: NetworkConfig, grid: TokenGrid) -> int:
    """One stream of all tokens in bfloat16."""
    return 2 * grid.tokens * network.num_attention_heads * network.attention_head_dim


def _pixels(grid: TokenGrid) -> int:
    return 256 * grid.per_frame


def _gb(count: int) -> str:
    return f"{count / GB:.1f} GB"
