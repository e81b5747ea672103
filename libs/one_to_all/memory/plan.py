"""Memory plans: where an engine's weights lie during a clip, and the bytes that this takes on each device and the host.

All bytes are calculated, none is measured on a card. See ``cost`` for the bytes of weights, ``estimates`` for those of
activations and of blocks on the host, ``choice`` for making a plan for a model repository, and ``placement`` for
carrying one out. Light: no torch.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any, Literal

from libs.model_repo.variants import ModelVariant, NetworkConfig
from libs.one_to_all.memory.cost import TokenGrid, weight_bytes
from libs.one_to_all.memory.estimates import (
    ALONE,
    RankWork,
    block_sizes,
    bytes_between_passes,
    decoding_bytes,
    page_locked_bytes,
    sampling_bytes,
)
from libs.settings.values import MemoryPlanName

Phase = Literal["prompt", "sampling", "decoding"]

GB = 10**9
HOST_NAME = "cpu"
"""How torch calls this machine's memory."""
UMT5_XXL_BYTES = 2 * (256384 * 4096 + 24 * (4 * 4096**2 + 3 * 4096 * 10240))
"""Wan2.1's text encoder in bfloat16: token embeddings, and attention and gated feed-forward of 24 layers."""
WAN_VAE_BYTES = 254 * 10**6
"""Wan2.1's VAE in bfloat16: 127 million parameters."""

_OFFLOAD_SLOTS = 2
"""Blocks on the device at a time during block offload (``offload.SLOTS``)."""
_RESIDENT_ITEMS = ("transformer", "VAE", "text encoder")
_LIBRARIES = 1 * GB
_FRAGMENTATION = 0.05


@dataclass(frozen=True)
class Placement:
    """Where weights are during a clip.

    Attributes:
        transformer: whole on the device, or block by block from the host while it computes.
        text_encoder: on the device to the end or until the prompts are encoded, or on the host, where it computes.
        vae_tiling: whether the VAE works in tiles; its results are not exact at their seams.
    """

    transformer: Literal["resident", "offloaded"]
    text_encoder: Literal["resident", "dropped after the prompt", "on the host"]
    vae_tiling: bool = False

    @property
    def keyword(self) -> MemoryPlanName | None:
        """Its name in ``ONE_TO_ALL_MEMORY``; None for the one that is only ever chosen automatically."""
        return _KEYWORDS.get(self)

    @property
    def description(self) -> str:
        """A few words for people."""
        tiles = ", VAE in tiles" if self.vae_tiling else ""
        return f"transformer {self.transformer}, text encoder {self.text_encoder}{tiles}"


PLACEMENTS = (
    Placement("resident", "resident"),
    Placement("resident", "dropped after the prompt"),
    Placement("resident", "on the host"),
    Placement("offloaded", "dropped after the prompt"),
    Placement("offloaded", "on the host"),
    Placement("offloaded", "dropped after the prompt", vae_tiling=True),
    Placement("offloaded", "on the host", vae_tiling=True),
)
"""All placements, from the fastest to the one that takes the least device memory.

The order is fixed, so that more memory never leads to a later one. Beside an offloaded transformer the text encoder
never stays: it runs once, the transformer in every step.
"""

RESIDENT_PLACEMENTS = tuple(placement for placement in PLACEMENTS if placement.transformer == "resident")
"""Those without block offload."""

_KEYWORDS: Mapping[Placement, MemoryPlanName] = {
    Placement("resident", "resident"): "resident",
    Placement("resident", "dropped after the prompt"): "drop-text-encoder",
    Placement("resident", "on the host"): "text-encoder-on-host",
    Placement("offloaded", "dropped after the prompt"): "offload",
    Placement("offloaded", "on the host"): "offload-all",
    Placement("offloaded", "on the host", vae_tiling=True): "tiles",
}


@dataclass(frozen=True)
class DeviceBudget:
    """The memory of one device, and the part of the clip that is computed there.

    Attributes:
        device: its name, for example ``cuda:1``.
        free_bytes: free before anything of the engine is loaded.
        rank_work: what is computed there; everything where one process makes the clip.
    """

    device: str
    free_bytes: int
    rank_work: RankWork = ALONE


@dataclass(frozen=True)
class MemoryBudget:
    """The memory that an engine may take.

    Attributes:
        devices: one for each rank, that of rank 0 first.
        host_free_bytes: free in this machine's memory; None does not look at it.
    """

    devices: tuple[DeviceBudget, ...]
    host_free_bytes: int | None = None

    def limited(self, limit_bytes: int | None) -> "MemoryBudget":
        """Count at most ``limit_bytes`` of each device as free; None for no limit."""
        if limit_bytes is None:
            return self
        devices = (replace(one, free_bytes=min(one.free_bytes, limit_bytes)) for one in self.devices)
        return replace(self, devices=tuple(devices))


@dataclass(frozen=True)
class ClipWork:
    """What a plan is made for: the networks and the largest chunk.

    Attributes:
        variant: the model variant; where its weights are FP8, so are those of all plans.
        grid: tokens of the largest chunk.
        text_encoder_bytes: weights of the text encoder.
        vae_bytes: weights of the VAE.
        lora_bytes: a LoRA, which lies beside FP8 weights and moves with them; fused into others it takes nothing.
        block_cache: whether blocks' answers are kept, for an approximate quality.
    """

    variant: ModelVariant
    grid: TokenGrid
    text_encoder_bytes: int = UMT5_XXL_BYTES
    vae_bytes: int = WAN_VAE_BYTES
    lora_bytes: int = 0
    block_cache: bool = False


@dataclass(frozen=True)
class MemoryUse:
    """Calculated bytes that one process takes.

    Attributes:
        phases: bytes on the device by item, for each phase of a clip in which the process computes.
        host: bytes of weights in the host's memory by item; ``page-locking`` is what torch rounds up for blocks.
    """

    phases: Mapping[Phase, Mapping[str, int]]
    host: Mapping[str, int]

    @property
    def phase_bytes(self) -> dict[Phase, int]:
        """Bytes on the device in each phase, without reserve."""
        return {phase: sum(items.values()) for phase, items in self.phases.items()}

    @property
    def peak_bytes(self) -> int:
        """Bytes on the device in the largest phase, with a reserve for libraries and fragmentation."""
        return _LIBRARIES + round(max(self.phase_bytes.values()) * (1 + _FRAGMENTATION))

    @property
    def resident_bytes(self) -> int:
        """Bytes of weights that stay on the device between two clips."""
        return sum(count for item, count in self.phases["sampling"].items() if item in _RESIDENT_ITEMS)

    @property
    def host_bytes(self) -> int:
        """Bytes in the host's memory."""
        return sum(self.host.values())


@dataclass(frozen=True)
class MemoryPlan:
    """A placement of an engine's weights, and what it takes of the budget it was made for.

    Attributes:
        requested: name of the model variant that is asked for.
        variant: name of the variant whose weights are taken; it ends with ``-fp8`` where they are FP8.
        placement: where the weights lie. With several ranks only rank 0 has a text encoder and a VAE.
        budget: what it was made for.
        uses: calculated bytes of each rank.
    """

    requested: str
    variant: str
    placement: Placement
    budget: MemoryBudget
    uses: tuple[MemoryUse, ...]

    @property
    def use(self) -> MemoryUse:
        """Calculated bytes of rank 0, or of the only process."""
        return self.uses[0]

    @property
    def fits(self) -> bool:
        """Whether everything fits into the memory that is free."""
        return self.fits_devices and self.fits_host

    @property
    def fits_devices(self) -> bool:
        """Whether each device has room for its rank."""
        return not self.ranks_without_room

    @property
    def ranks_without_room(self) -> list[int]:
        """Ranks that need more memory than their device has free."""
        ranks = enumerate(zip(self.uses, self.budget.devices, strict=True))
        return [rank for rank, (use, budget) in ranks if use.peak_bytes > budget.free_bytes]

    @property
    def fits_host(self) -> bool:
        """Whether the host has room for what lies there; True where that was not looked at."""
        return self.budget.host_free_bytes is None or self.host_bytes <= self.budget.host_free_bytes

    @property
    def host_bytes(self) -> int:
        """Bytes of weights of all ranks in the host's memory."""
        return sum(use.host_bytes for use in self.uses)

    @property
    def needed_bytes(self) -> dict[str, int]:
        """Bytes needed at the peak by name of the device, those of the host included."""
        needed: Counter[str] = Counter()
        for budget, use in zip(self.budget.devices, self.uses, strict=True):
            needed[budget.device] += use.peak_bytes
        return {HOST_NAME: self.host_bytes, **needed}

    def resident_bytes(self, device: str) -> int:
        """Bytes of weights that lie on ``device`` between two clips; of the host where the ranks have other devices."""
        if device == HOST_NAME and all(budget.device != HOST_NAME for budget in self.budget.devices):
            return self.host_bytes
        placed = zip(self.budget.devices, self.uses, strict=True)
        return sum(use.resident_bytes for budget, use in placed if budget.device == device)

    @property
    def changes(self) -> tuple[str, ...]:
        """What makes its results differ a little from those of the first placement; empty where they are the same."""
        weights = () if self.variant == self.requested else (f"weights of {self.variant}",)
        return (*weights, "VAE in tiles") if self.placement.vae_tiling else weights

    @property
    def name(self) -> str:
        """A few words for people; kept in a clip's provenance."""
        if len(self.uses) == 1:
            return self._rank_name(0)
        last = len(self.uses) - 1
        others = "rank 1" if last == 1 else f"ranks 1 to {last}"
        return f"rank 0: {self._rank_name(0)}; {others}: {self._rank_name(1)}"

    def _rank_name(self, rank: int) -> str:
        placement = self.placement
        return f"{self.variant}: {f'transformer {placement.transformer}' if rank else placement.description}"

    def summary(self) -> dict[str, Any]:
        """Name and calculated bytes by phase and item, for a clip's metadata; by rank where there are several."""
        if len(self.uses) == 1:
            return self._rank_summary(0)
        ranks = enumerate(self.budget.devices)
        return {f"rank {rank} on {budget.device}": self._rank_summary(rank) for rank, budget in ranks}

    def _rank_summary(self, rank: int) -> dict[str, Any]:
        use = self.uses[rank]
        return {
            "plan": self._rank_name(rank),
            "free bytes": self.budget.devices[rank].free_bytes,
            "calculated peak bytes": use.peak_bytes,
            "bytes on the host": use.host_bytes,
            "bytes by phase": {phase: dict(items) for phase, items in use.phases.items()},
        }

    def describe(self) -> str:
        """Every item with its bytes, and the peak of each rank; for the log."""
        if len(self.uses) == 1:
            return self._describe_rank(0)
        ranks = enumerate(self.budget.devices)
        return "\n".join(f"rank {rank} on {budget.device}: {self._describe_rank(rank)}" for rank, budget in ranks)

    def _describe_rank(self, rank: int) -> str:
        use, free_bytes = self.uses[rank], self.budget.devices[rank].free_bytes
        lines = [self._rank_name(rank)]
        for phase, items in use.phases.items():
            lines.append(f"  {phase}: {_gb(sum(items.values()))}")
            lines += [f"    {_gb(count):>9}  {item}" for item, count in items.items()]
        host_free_bytes = self.budget.host_free_bytes
        lines.append(
            f"  on the host: {_gb(use.host_bytes)}"
            + ("" if host_free_bytes is None else f" of {_gb(host_free_bytes)} free")
        )
        fits = self.fits_host and use.peak_bytes <= free_bytes
        lines.append(
            f"  calculated peak, with {_gb(_LIBRARIES)} for libraries and {_FRAGMENTATION:.0%} for fragmentation: "
            f"{_gb(use.peak_bytes)} of {_gb(free_bytes)} free, {'fits' if fits else 'DOES NOT FIT'}"
        )
        return "\n".join(lines)


def plan_memory(
    budget: MemoryBudget, work: ClipWork, placements: Sequence[Placement] = PLACEMENTS, *, allow_fp8: bool = False
) -> MemoryPlan:
    """Make the fastest plan that fits ``budget``.

    If none fits, the plan is the fastest that fits the devices though not the host, or else the smallest one.

    Args:
        budget: the memory that is free.
        work: the networks and the largest chunk.
        placements: those that may be taken, in the order of ``PLACEMENTS``.
        allow_fp8: also try FP8 weights of a plain variant, before offloading. They change the result a little.
    """
    plans = [_plan(budget, work, placement, fp8=fp8) for placement, fp8 in _candidates(work, placements, allow_fp8)]
    fitting = (plan for plan in plans if plan.fits)
    fitting_devices = (plan for plan in plans if plan.fits_devices)
    return next(fitting, None) or next(fitting_devices, None) or plans[-1]


def memory_use(placement: Placement, work: ClipWork, rank_work: RankWork = ALONE, *, fp8: bool = False) -> MemoryUse:
    """Calculate what one process takes.

    Args:
        placement: where the weights lie.
        work: the networks and the largest chunk.
        rank_work: what the process holds and computes.
        fp8: whether the transformer's weights are FP8.
    """
    network = work.variant.network
    total = weight_bytes(network, fp8=fp8) + (work.lora_bytes if fp8 else 0)
    sizes = block_sizes(network, work.lora_bytes, fp8=fp8)
    blocks = sum(sizes.values())
    offloaded = placement.transformer == "offloaded"

    resident = {"transformer": total - blocks if offloaded else total}
    resident |= {"VAE": work.vae_bytes} if rank_work.is_leader else {}
    streamed = {"blocks on their way": min(blocks, _OFFLOAD_SLOTS * sizes["blocks.0"])} if offloaded else {}
    dequantized = {"one weight in bfloat16": 2 * _largest_weight(network)} if fp8 else {}
    computing = {
        "kept from pass to pass": bytes_between_passes(network, work.grid, rank_work, block_cache=work.block_cache),
        "intermediate results": sampling_bytes(network, work.grid, rank_work),
    }
    encoder = {"text encoder": work.text_encoder_bytes} if rank_work.is_leader else {}
    encoder_in_prompt = {} if placement.text_encoder == "on the host" else encoder
    encoder_afterwards = encoder if placement.text_encoder == "resident" else {}

    phases: dict[Phase, Mapping[str, int]] = {"prompt": resident | encoder_in_prompt} if rank_work.is_leader else {}
    phases["sampling"] = resident | streamed | encoder_afterwards | dequantized | computing
    if rank_work.is_leader:
        decoding = {"intermediate results": decoding_bytes(work.grid, tiled=placement.vae_tiling)}
        phases["decoding"] = resident | encoder_afterwards | decoding
    host: dict[str, int] = {}
    if offloaded:
        host = {"blocks": blocks, "page-locking": sum(map(page_locked_bytes, sizes.values())) - blocks}
    if placement.text_encoder == "on the host":
        host |= encoder
    return MemoryUse(phases, host)


def _candidates(work: ClipWork, placements: Sequence[Placement], allow_fp8: bool) -> Iterator[tuple[Placement, bool]]:
    """Placements with FP8 weights or without, from the fastest to the smallest.

    FP8 weights come after the exact ones, but before the transformer's next, slower place.
    """
    is_fp8 = work.variant.weight_format == "fp8_scaled"
    formats = (True,) if is_fp8 else (False, True) if allow_fp8 else (False,)
    for _, group in groupby(placements, key=lambda one: (one.transformer, one.vae_tiling)):
        same_transformer = list(group)
        yield from ((placement, fp8) for fp8 in formats for placement in same_transformer)


def _plan(budget: MemoryBudget, work: ClipWork, placement: Placement, *, fp8: bool) -> MemoryPlan:
    is_fp8 = work.variant.weight_format == "fp8_scaled"
    return MemoryPlan(
        requested=work.variant.name,
        variant=work.variant.name if is_fp8 == fp8 else f"{work.variant.name}-fp8",
        placement=placement,
        budget=budget,
        uses=tuple(memory_use(placement, work, device.rank_work, fp8=fp8) for device in budget.devices),
    )


def _largest_weight(network: NetworkConfig) -> int:
    model_width = network.num_attention_heads * network.attention_head_dim
    return model_width * max(network.ffn_dim, model_width)


def _gb(count: int) -> str:
    return f"{count / GB:.1f} GB"
