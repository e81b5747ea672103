"""The memory plans of all ranks: each for what its own device has free, all with the same weights.

What does not belong here: plans of one process (``memory_plan``), carrying them out (``roles``).
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from libs.errors import DeviceError
from libs.model_repo.layout import RepositoryLayout
from libs.one_to_all.memory.estimates import MOST_PASSES, WorkShare
from libs.one_to_all.memory.options import ClipSize, MemoryOptions
from libs.one_to_all.memory.plan import GB, MemoryPlan
from libs.one_to_all.memory.plan_choice import choose_plan, fp8_layout
from libs.one_to_all.parallel.messages import LEADER
from libs.one_to_all.parallel.plan import SETTING, ParallelPlan
from libs.one_to_all.parallel.shares import share_of
from libs.one_to_all.weights.lora_file import LoraFile


@dataclass(frozen=True)
class RankPlans:
    """A plan per rank, with its device; all take the weights of one variant."""

    devices: tuple[str, ...]
    plans: tuple[MemoryPlan, ...]

    @property
    def variant(self) -> str:
        """Of the weights that all ranks take."""
        return self.plans[LEADER].variant

    @property
    def changes(self) -> tuple[str, ...]:
        """By what the clip differs a little: the weights are those of all ranks, and the leader alone decodes."""
        return self.plans[LEADER].changes

    @property
    def host_bytes(self) -> int:
        """What the weights of all ranks that lie in the host's memory take there."""
        return sum(plan.host_bytes for plan in self.plans)

    def resting_bytes(self, device: torch.device) -> int:
        """Of weights on ``device`` between two passes; of the host where the ranks have other devices."""
        placed = [(torch.device(name), plan) for name, plan in zip(self.devices, self.plans, strict=True)]
        if device.type == "cpu" and device not in dict(placed):
            return self.host_bytes
        return sum(plan.resting_bytes for place, plan in placed if place == device)

    def peak_bytes(self) -> dict[torch.device, int]:
        """What is needed of each device, and of the host where that is none of them."""
        peaks: Counter[torch.device] = Counter()
        for name, plan in zip(self.devices, self.plans, strict=True):
            peaks[torch.device(name)] += plan.peak_bytes
        return {torch.device("cpu"): self.host_bytes, **peaks}

    @property
    def name(self) -> str:
        """The plan of each rank in a few words; neighbours that do the same are named together."""
        groups: list[tuple[int, int, str]] = []
        for rank, plan in enumerate(self.plans):
            if groups and groups[-1][2] == plan.name:
                groups[-1] = (groups[-1][0], rank, plan.name)
            else:
                groups.append((rank, rank, plan.name))
        return "; ".join(
            f"rank {first}: {name}" if first == last else f"ranks {first} to {last}: {name}"
            for first, last, name in groups
        )

    def summary(self) -> dict[str, Any]:
        """For machines: that of each plan, by rank and device."""
        placed = enumerate(zip(self.devices, self.plans, strict=True))
        return {f"rank {rank} on {device}": plan.summary() for rank, (device, plan) in placed}

    def describe(self) -> str:
        """For people, before anything starts: every rank with every item of its plan."""
        placed = enumerate(zip(self.devices, self.plans, strict=True))
        return "\n".join(f"rank {rank} on {device}: {plan.describe()}" for rank, (device, plan) in placed)


def plan_ranks(
    layout: RepositoryLayout,
    dtype: torch.dtype,
    parallel: ParallelPlan,
    devices: Sequence[str],
    free_bytes: Sequence[int],
    options: MemoryOptions,
    clip: ClipSize | None,
    lora: LoraFile | None = None,
    host_free_bytes: int | None = None,
) -> RankPlans:
    """The fastest plan of each rank, with the weights that make the worst of them better.

    A step takes as long as its slowest rank, and all ranks must compute with the same weights. So where FP8 weights of
    a plain variant are allowed and there, all ranks take them if that spares the worst one offloading (or not fitting).

    Args:
        layout: of the variant that is asked for.
        dtype: of text encoder and VAE.
        parallel: how the work is divided.
        devices: of the ranks.
        free_bytes: on each of them, without the weights of this variant.
        options: see :func:`choose_plan`; a limit holds for each device.
        clip: likewise.
        lora: likewise.
        host_free_bytes: of this machine's memory, for the weights that all ranks keep there; None does not look.

    Raises:
        DeviceError: this machine's memory is too small for what the ranks would keep there.
    """
    fp8 = fp8_layout(layout) if options.allow_fp8 else None
    plain = replace(options, allow_fp8=False)

    def plans_of(layout_of_weights: RepositoryLayout) -> tuple[MemoryPlan, ...]:
        return tuple(
            replace(
                choose_plan(layout_of_weights, dtype, free, plain, clip, lora, work_share(parallel, rank)),
                requested=layout.variant.name,
            )
            for rank, free in enumerate(free_bytes)
        )

    plans = plans_of(layout)
    if fp8 is not None:
        plans = min(plans, plans_of(fp8), key=_worst)  # the first of equals: exact weights
    ranks = RankPlans(tuple(devices), plans)
    if host_free_bytes is not None:
        _check_host(ranks, parallel, host_free_bytes)
    return ranks


def work_share(parallel: ParallelPlan, rank: int) -> WorkShare:
    """What one rank holds and computes; of the passes as many as it makes at most."""
    row, _ = parallel.place(rank)
    passes = max(len(share_of(row, parallel.guidance, range(count))) for count in range(1, MOST_PASSES + 1))
    return WorkShare(leads=rank == LEADER, passes=passes, context=parallel.context)


def _worst(plans: tuple[MemoryPlan, ...]) -> tuple[bool, bool, bool]:
    return max((not plan.fits, plan.vae_tiling, plan.transformer == "offloaded") for plan in plans)


def _check_host(ranks: RankPlans, parallel: ParallelPlan, free_bytes: int) -> None:
    if ranks.host_bytes > free_bytes:
        offloading = sum(plan.host_bytes > 0 for plan in ranks.plans)
        needed = math.ceil(ranks.host_bytes / GB)
        raise DeviceError(
            f"{SETTING}={parallel}: {offloading} of {parallel.ranks} ranks would keep {needed} GB of weights in this "
            f"machine's memory, each its own, and {free_bytes // GB} GB are free: "
            "divide the work among fewer ranks, allow FP8 weights (ONE_TO_ALL_ALLOW_FP8), use a smaller variant, or "
            "devices with more memory"
        )
