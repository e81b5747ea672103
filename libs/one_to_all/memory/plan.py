"""What has to lie on a card at a time, in bytes, and the plan by which a clip fits into the memory that is free. Pure.

The estimates are calculated, not measured on a card, weights from the network's size. What does not belong here:
intermediate results (``intermediate_bytes``), how much is free (``memory``), which plan is asked for
(``memory_options``), and carrying one out (``placement``).
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from libs.model_repo.variants import ModelVariant, NetworkConfig
from libs.one_to_all.memory.cost import TokenGrid, weight_bytes
from libs.one_to_all.memory.estimates import (
    ALONE,
    WorkShare,
    block_sizes,
    decoding_bytes,
    kept_bytes,
    page_locked_bytes,
    sampling_bytes,
)
from libs.settings.values import MemoryPlanName

Transformer = Literal["resident", "offloaded"]
TextEncoder = Literal["resident", "dropped after the prompt", "on the host", "on rank 0"]
Phase = Literal["prompt", "sampling", "decoding"]
HostItem = Literal["blocks", "page-locking", "text encoder"]

GB = 10**9
UMT5_XXL_BYTES = 2 * (256384 * 4096 + 24 * (4 * 4096**2 + 3 * 4096 * 10240))
"""Wan2.1's text encoder in bfloat16: token embeddings, and attention and gated feed-forward of 24 layers."""
WAN_VAE_BYTES = 254 * 10**6
"""Wan2.1's VAE in bfloat16: 127 million parameters."""

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
_PLACEMENT_OF_KEYWORD = {keyword: transformer for (transformer, _, _), keyword in _KEYWORDS.items()}
_MOVING_ITEM = "blocks on their way"
_RESTING_ITEMS = ("transformer", "VAE", "text encoder")
_LIBRARIES = 1 * GB
_FRAGMENTATION = 0.05


@dataclass(frozen=True)
class MemoryPlan:
    """Where the parts of the engine lie, and what that needs.

    Attributes:
        requested: name of the model variant that is asked for.
        variant: of the one whose weights are taken; ends with ``-fp8`` where they are FP8.
        transformer: whole on the device, or block by block from the host while it computes.
        text_encoder: where it lies, and how long; on another rank where several make a clip, with the VAE.
        vae_tiling: decode in tiles; not exact at their seams.
        phases: bytes on the device by item, for each phase of a clip.
        host: bytes in the host's memory by item; those of page-locking are by how much torch rounds up blocks.
        free_bytes: what the plan was made for.
        host_free_bytes: the same of the host's memory; None where that was not looked at.
    """

    requested: str
    variant: str
    transformer: Transformer
    text_encoder: TextEncoder
    vae_tiling: bool
    phases: Mapping[Phase, Mapping[str, int]]
    host: Mapping[HostItem, int]
    free_bytes: int
    host_free_bytes: int | None = None

    @property
    def peak_bytes(self) -> int:
        """The largest sum of a phase, with what libraries and fragmentation take."""
        largest = max(self.phase_bytes.values())
        return _LIBRARIES + round(largest * (1 + _FRAGMENTATION))

    @property
    def fits(self) -> bool:
        """False where even this, the smallest plan, needs more than is free."""
        return self.fits_device and self.fits_host

    @property
    def fits_device(self) -> bool:
        """False where it needs more of the device's memory than is free."""
        return self.peak_bytes <= self.free_bytes

    @property
    def fits_host(self) -> bool:
        """False where it needs more of the host's memory than is free."""
        return self.host_free_bytes is None or self.host_bytes <= self.host_free_bytes

    @property
    def keyword(self) -> MemoryPlanName | None:
        """How ``ONE_TO_ALL_MEMORY`` asks for it; None for one that has to be chosen by the memory."""
        return _KEYWORDS.get((self.transformer, self.text_encoder, self.vae_tiling))

    def is_called(self, keyword: MemoryPlanName) -> bool:
        """Is it what this name asks for? Of a rank without text encoder and VAE only the transformer matters."""
        if self.text_encoder == "on rank 0":
            return self.transformer == _PLACEMENT_OF_KEYWORD[keyword]
        return self.keyword == keyword

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
    def host_bytes(self) -> int:
        """What weights take in the host's memory."""
        return sum(self.host.values())

    @property
    def resting_bytes(self) -> int:
        """Of weights that are on the device all the time."""
        return sum(count for item, count in self.phases["sampling"].items() if item in _RESTING_ITEMS)

    @property
    def name(self) -> str:
        """In a few words."""
        alone = self.text_encoder == "on rank 0"
        parts = [f"{self.variant}: transformer {self.transformer}"]
        parts += [] if alone else [f"text encoder {self.text_encoder}"]
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
        free = "" if self.host_free_bytes is None else f" of {_gb(self.host_free_bytes)} free"
        lines.append(f"  on the host: {_gb(self.host_bytes)}{free}")
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
    lora_bytes: int = 0,
    share: WorkShare = ALONE,
    host_free_bytes: int | None = None,
) -> MemoryPlan:
    """The first plan that fits, from the fastest to the smallest; the smallest on the device where none fits.

    Where one fits the device, but none the host's memory as well, it is the first that fits the device.

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
        lora_bytes: of a LoRA, which lies beside FP8 weights and moves with them; fused into others it takes nothing.
        share: of one of several processes that make the clip.
        host_free_bytes: free in this machine's memory; None does not look.
    """
    grid = TokenGrid.of(height, width, frame_count)
    weights = _Weights(variant, text_encoder_bytes, vae_bytes, lora_bytes)
    kept = kept_bytes(variant.network, grid, share, block_cache=block_cache)
    every = _plans(free_bytes, weights, grid, allow_fp8, kept, share)
    plans = [
        replace(plan, host_free_bytes=host_free_bytes) for plan in every if keyword is None or plan.is_called(keyword)
    ]
    fastest = next((plan for plan in plans if plan.fits), None)
    return fastest or next((plan for plan in plans if plan.fits_device), plans[-1])


@dataclass(frozen=True)
class _Weights:
    """Of one variant in bytes; the LoRA is counted where the transformer's are FP8."""

    variant: ModelVariant
    text_encoder: int
    vae: int
    lora: int


def _plans(
    free_bytes: int, weights: _Weights, grid: TokenGrid, allow_fp8: bool, kept_between_passes: int, share: WorkShare
) -> Iterator[MemoryPlan]:
    """All plans, from the fastest to the smallest. The order is fixed, so more memory never means a later one."""
    is_fp8 = weights.variant.weight_format == "fp8_scaled"
    formats = [is_fp8] if is_fp8 or not allow_fp8 else [False, True]
    placements: list[tuple[Transformer, bool]] = [("resident", False), ("offloaded", False)]
    placements += [("offloaded", True)] if share.leads else []
    for transformer, tiled in placements:
        for fp8 in formats:
            for text_encoder in _text_encoder_placements(transformer, share):
                computing = {
                    "kept from pass to pass": kept_between_passes,
                    "intermediate results": sampling_bytes(weights.variant.network, grid, share),
                }
                decoding = {"intermediate results": decoding_bytes(grid, tiled=tiled)} if share.leads else {}
                at_rest, moving, dequantized, host = _transformer_bytes(weights, transformer, fp8)
                at_rest |= {"VAE": weights.vae} if share.leads else {}
                encoder: dict[HostItem, int] = {"text encoder": weights.text_encoder}
                kept = encoder if text_encoder == "resident" else {}
                prompt = encoder if text_encoder in {"resident", "dropped after the prompt"} else {}
                phases: dict[Phase, Mapping[str, int]] = {"prompt": at_rest | prompt} if share.leads else {}
                phases["sampling"] = at_rest | moving | kept | dequantized | computing
                if share.leads:
                    phases["decoding"] = at_rest | kept | decoding
                yield MemoryPlan(
                    requested=weights.variant.name,
                    variant=weights.variant.name if is_fp8 == fp8 else f"{weights.variant.name}-fp8",
                    transformer=transformer,
                    text_encoder=text_encoder,
                    vae_tiling=tiled,
                    phases=phases,
                    host=host | (encoder if text_encoder == "on the host" else {}),
                    free_bytes=free_bytes,
                )


def _transformer_bytes(
    weights: _Weights, transformer: Transformer, fp8: bool
) -> tuple[dict[str, int], dict[str, int], dict[str, int], dict[HostItem, int]]:
    """Items on the device at rest, more of them in a pass (blocks; a de-quantized weight), and items on the host."""
    network = weights.variant.network
    total = weight_bytes(network, fp8=fp8) + (weights.lora if fp8 else 0)
    sizes = block_sizes(network, weights.lora, fp8=fp8)
    blocks, one = sum(sizes.values()), sizes["blocks.0"]
    dequantized = {"one weight in bfloat16": 2 * _largest_weight(network)} if fp8 else {}
    if transformer == "resident":
        return {"transformer": total}, {}, dequantized, {}
    moving = {_MOVING_ITEM: min(blocks, _OFFLOADED_BLOCKS * one)}
    page_locked = sum(map(page_locked_bytes, sizes.values()))
    return (
        {"transformer": total - blocks},
        moving,
        dequantized,
        {"blocks": blocks, "page-locking": page_locked - blocks},
    )


def _text_encoder_placements(transformer: Transformer, share: WorkShare) -> tuple[TextEncoder, ...]:
    """Beside an offloaded transformer it is never kept: the memory is needed for each step, the encoder once."""
    if not share.leads:
        return ("on rank 0",)
    if transformer == "resident":
        return "resident", "dropped after the prompt", "on the host"
    return "dropped after the prompt", "on the host"


def _largest_weight(network: NetworkConfig) -> int:
    model_width = network.num_attention_heads * network.attention_head_dim
    return model_width * max(network.ffn_dim, model_width)


def _gb(count: int) -> str:
    return f"{count / GB:.1f} GB"
