"""Memory of ranks: all keep their weights on their devices, so a plan must fit each of them without block offload.

See ``libs.one_to_all.memory.plan`` for plans and what they count.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch

from libs.errors import DeviceError, SettingsError
from libs.one_to_all.memory.choice import PlanRequest, check_host, choose_plan
from libs.one_to_all.memory.estimates import ALONE, MOST_PASSES, RankWork
from libs.one_to_all.memory.options import SETTING as MEMORY_SETTING
from libs.one_to_all.memory.options import MemoryOptions
from libs.one_to_all.memory.plan import GB, RESIDENT_PLACEMENTS, DeviceBudget, MemoryBudget, MemoryPlan
from libs.one_to_all.parallel.messages import LEADER
from libs.one_to_all.parallel.plan import SETTING, ParallelPlan, passes_of_rank


def check_memory_options(options: MemoryOptions, parallel: ParallelPlan) -> None:
    """Raise if ``options`` name a plan with block offload, which several ranks cannot carry out.

    Raises:
        SettingsError: names both settings, and what to set instead.
    """
    resident = [placement.keyword for placement in RESIDENT_PLACEMENTS]
    if parallel.ranks > 1 and options.keyword is not None and options.keyword not in resident:
        raise SettingsError(
            f"{MEMORY_SETTING}={options.keyword} keeps blocks of the network in this machine's memory, and the ranks "
            f"of {SETTING}={parallel} keep all weights on their devices: set {MEMORY_SETTING} to auto or one of "
            f"{', '.join(map(str, resident))}; or leave {SETTING} empty, to make a clip in one process with "
            f"{MEMORY_SETTING}={options.keyword}"
        )


def rank_work(parallel: ParallelPlan, rank: int) -> RankWork:
    """Return what one rank holds and computes; of the passes as many as it makes at most."""
    row, _ = parallel.place(rank)
    passes = max(len(passes_of_rank(row, parallel.guidance, range(count))) for count in range(1, MOST_PASSES + 1))
    return RankWork(is_leader=rank == LEADER, passes=passes, context=parallel.context)


def budget_of_ranks(
    parallel: ParallelPlan, devices: Sequence[str], free_bytes: Sequence[int], host_free_bytes: int | None = None
) -> MemoryBudget:
    """Join what each rank's device and this machine have free, without the weights that are to be placed."""
    ranks = enumerate(zip(devices, free_bytes, strict=True))
    budgets = (DeviceBudget(device, free, rank_work(parallel, rank)) for rank, (device, free) in ranks)
    return MemoryBudget(tuple(budgets), host_free_bytes)


def choose_plan_of_ranks(request: PlanRequest, budget: MemoryBudget, parallel: ParallelPlan) -> MemoryPlan:
    """Choose the fastest plan that fits all ranks, with the same weights for all of them.

    Args:
        request: what is asked for; a plan that its options name is used however much memory is free.
        budget: what the ranks' devices and this machine have free.
        parallel: how the work is divided.

    Raises:
        SettingsError: the options name a plan that ranks cannot carry out.
        DeviceError: no plan fits; says what fits instead.
    """
    check_memory_options(request.options, parallel)
    plan = choose_plan(request, budget, RESIDENT_PLACEMENTS)
    if request.options.keyword is None and not plan.fits_devices:
        raise DeviceError(f"{SETTING}={parallel}: {_what_lacks(plan)}: {_what_fits(request, budget)}")
    check_host(plan, torch.device(budget.devices[LEADER].device))
    return plan


def _what_lacks(plan: MemoryPlan) -> str:
    rank = plan.ranks_without_room[0]
    needed, device = plan.uses[rank].peak_bytes, plan.budget.devices[rank]
    return (
        f"ranks keep all weights on their devices; for weights of {plan.variant} rank {rank} needs "
        f"{math.ceil(needed / GB)} GB, and {device.device} has {device.free_bytes // GB} GB free"
    )


def _what_fits(request: PlanRequest, budget: MemoryBudget) -> str:
    """Name what fits into the memory that is there, FP8 weights on all ranks or one process, and what else may help."""
    ways = []
    if not request.options.allow_fp8:
        allowed = replace(request, options=replace(request.options, allow_fp8=True))
        if choose_plan(allowed, budget, RESIDENT_PLACEMENTS).fits:
            ways.append("allow FP8 weights, which fit (ONE_TO_ALL_ALLOW_FP8=true)")
    alone = replace(budget, devices=(replace(budget.devices[LEADER], rank_work=ALONE),))
    of_one = choose_plan(request, alone)
    if of_one.fits:
        ways.append(f"leave {SETTING} empty, since one process fits ({of_one.name})")
    return ", or ".join([*ways, "ask for a smaller size or a smaller variant, or use devices with more memory"])
