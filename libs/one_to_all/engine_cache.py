"""The engines of this process: each is loaded once, and stays while the memory of its device suffices.

A worker that runs one clip after the other pays for loading once. Another variant is loaded beside those that are
there; what was used longest ago makes room. What does not belong here: loading itself (``engine``), keeping workers
alive (the orchestration).
"""

import gc
import logging
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from libs.model_repo.layout import RepositoryLayout
from libs.model_repo.verification.digests import Signature
from libs.one_to_all.device import HOST, default_dtype, resolve_device
from libs.one_to_all.engine import AnimationEngine
from libs.one_to_all.events import EngineLoad
from libs.one_to_all.memory.device_memory import bytes_when_loaded, device_memory
from libs.one_to_all.memory.options import DEFAULT_MEMORY, ClipSize, MemoryOptions
from libs.one_to_all.memory.plan import MemoryPlan
from libs.one_to_all.memory.plan_choice import check_host, choose_plan, layout_of_weights
from libs.one_to_all.parallel.engine import ParallelEngine, devices_of_ranks
from libs.one_to_all.parallel.plan import ONE_PROCESS, ParallelPlan
from libs.one_to_all.parallel.rank_plans import RankPlans, plan_ranks
from libs.one_to_all.speed_options import DEFAULT_SPEED, SpeedOptions
from libs.one_to_all.weights.loading import weight_files
from libs.one_to_all.weights.lora_branches import takes_loras_beside_weights
from libs.one_to_all.weights.lora_file import LoraFile

CLIP_SHARE = 0.25
"""Of a device's memory: what stays free beside several engines, for the tensors of the clip that is being made."""

_FileIdentity = tuple[Path, Signature]
_Place = tuple[str, torch.device]
"""Variant (and LoRA, if one is fused) and device: a place holds one engine; other files, dtype or speed options replace
it. A LoRA beside FP8 weights is none of it: the engine changes it."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Kept:
    engine: AnimationEngine
    dtype: torch.dtype
    speed: SpeedOptions
    parallel: ParallelPlan
    files: tuple[_FileIdentity, ...]


_lock = threading.Lock()
_kept: dict[_Place, _Kept] = {}
"""The engine used longest ago comes first."""


def warm_engine(
    layout: RepositoryLayout,
    device: str = "auto",
    dtype: torch.dtype | None = None,
    lora: LoraFile | None = None,
    speed: SpeedOptions = DEFAULT_SPEED,
    parallel: ParallelPlan = ONE_PROCESS,
    memory: MemoryOptions = DEFAULT_MEMORY,
    clip: ClipSize | None = None,
) -> tuple[AnimationEngine, EngineLoad]:
    """The engine for ``layout``, with ``lora`` and no other: the one this process has, or a new one.

    A changed file (size, time of change or inode) means a new engine. Where the new one does not fit beside the others
    of its device, those used longest ago are dropped first. FP8 weights have a LoRA beside them, which is changed on an
    engine that is there; into others it is fused, and each LoRA has an engine of its own. With a ``parallel`` plan the
    engine spans several devices from ``device`` on, each with a process of its own; the first has the least room.

    On a GPU, and where ``memory`` names a plan, the networks are placed by the fastest memory plan that suffices for
    ``clip`` (for the largest usual one if it is not given); with several processes each has a plan for its own device.
    An engine that is there is moved to it.

    Raises:
        InputError: the block cache of ``clip`` does not work with ``parallel``.
        ModelFilesError, DeviceError: see :meth:`AnimationEngine.load` and :class:`ParallelEngine`.
    """
    started = time.perf_counter()
    if clip is not None and clip.block_cache:
        parallel.check_block_cache()  # before anything is loaded
    resolved = resolve_device(device)
    dtype = dtype or default_dtype(resolved)
    with _lock:
        plan = _plan(layout, resolved, dtype, memory, clip, lora, parallel)
        layout = layout if plan is None else layout_of_weights(layout, plan.variant)
        beside = takes_loras_beside_weights(layout)
        fused = None if beside else lora
        place, files = (_name(layout, fused), resolved), _identity(layout, fused)
        kept = _kept.get(place)
        wanted = (dtype, speed, parallel, files)
        cold = kept is None or not kept.engine.alive or (kept.dtype, kept.speed, kept.parallel, kept.files) != wanted
        if kept is not None and not cold and beside:
            kept.engine.use_lora(lora)
        _kept.pop(place, None)
        if cold:
            kept = None  # the outdated engine goes before its successor is loaded
            _make_room(place, _peaks(plan, resolved) if plan else _room_without_plan(layout, resolved, dtype))
            kept = _Kept(_load(layout, resolved, dtype, lora, speed, parallel, plan), *wanted)
        assert kept is not None
        if plan is not None and not cold:
            own = kept.engine
            _make_room(place, {one: peak - own.bytes_on(one) for one, peak in _peaks(plan, resolved).items()})
            kept.engine.follow(plan)
        _kept[place] = kept  # at the end: used last
        return kept.engine, EngineLoad(cold, time.perf_counter() - started)


def release_engines() -> None:
    """Drop the engines this process keeps, and give their memory back."""
    with _lock:
        _kept.clear()
        _give_memory_back()


def release_other_engines(engine: AnimationEngine) -> list[str]:
    """Drop every engine on devices of ``engine`` but itself, for a clip whose tensors did not fit beside them.

    Returns:
        The variants that were dropped; their next clip loads them again.
    """
    with _lock:
        others = [
            place for place, kept in _kept.items() if kept.engine is not engine and kept.engine.devices & engine.devices
        ]
        for place in others:
            _logger.info("%s makes room for a clip on %s", place[0], engine.device)
            del _kept[place]
        _give_memory_back()
    return [variant for variant, _ in others]


def _load(
    layout: RepositoryLayout,
    device: torch.device,
    dtype: torch.dtype,
    lora: LoraFile | None,
    speed: SpeedOptions,
    parallel: ParallelPlan,
    plan: MemoryPlan | RankPlans | None,
) -> AnimationEngine:
    if parallel == ONE_PROCESS:
        assert not isinstance(plan, RankPlans)
        return AnimationEngine.load(layout, str(device), dtype, lora=lora, speed=speed, plan=plan)
    assert plan is None or isinstance(plan, RankPlans)
    return ParallelEngine(layout, device, dtype, parallel, lora, speed, plan)


def _plan(
    layout: RepositoryLayout,
    device: torch.device,
    dtype: torch.dtype,
    memory: MemoryOptions,
    clip: ClipSize | None,
    lora: LoraFile | None,
    parallel: ParallelPlan,
) -> MemoryPlan | RankPlans | None:
    """The plan for what could be free on each device: the engines that are there may all go. Shown in the log."""
    if device.type == "cpu" and memory.keyword is None:
        return None
    _give_memory_back()
    for kept in _kept.values():
        kept.engine.release_memory()  # what other processes hold for their next clip would count as taken
    host = None if device.type == "cpu" else _free(HOST)
    plan: MemoryPlan | RankPlans
    if parallel == ONE_PROCESS:
        plan = choose_plan(layout, dtype, _free(device), memory, clip, lora, host_free_bytes=host)
        check_host(plan, device)
    else:
        devices = devices_of_ranks(device, parallel)
        free = [_free(torch.device(one)) // devices.count(one) for one in devices]
        plan = plan_ranks(layout, dtype, parallel, devices, free, memory, clip, lora, host)
    _logger.info("memory plan for %s: %s", device, plan.describe())
    return plan


def _free(device: torch.device) -> int:
    """What would be free on ``device`` without the engines that are there."""
    return device_memory(device).free + sum(kept.engine.bytes_on(device) for kept in _kept.values())


def _peaks(plan: MemoryPlan | RankPlans, device: torch.device) -> dict[torch.device, int]:
    """What a plan needs, by device, and of the host where that is none."""
    return {HOST: plan.host_bytes, device: plan.peak_bytes} if isinstance(plan, MemoryPlan) else plan.peak_bytes()


def _room_without_plan(layout: RepositoryLayout, device: torch.device, dtype: torch.dtype) -> dict[torch.device, int]:
    return {device: bytes_when_loaded(layout, dtype) + round(CLIP_SHARE * device_memory(device).total)}


def _make_room(place: _Place, needed: Mapping[torch.device, int]) -> None:
    """Drop engines until ``needed`` bytes are free for that of ``place``, or none is left where they are not.

    An engine of ranks lies on several devices, and each of them counts; so does this machine's memory.
    """
    _give_memory_back()
    for other in list(_kept):
        scarce = [device for device, count in needed.items() if count > device_memory(device).free]
        if not scarce:
            return
        if _lies_on(other, scarce):
            _logger.info("%s makes room for %s on %s", other[0], place[0], ", ".join(map(str, scarce)))
            del _kept[other]
            _give_memory_back()


def _lies_on(place: _Place, devices: Iterable[torch.device]) -> bool:
    engine = _kept[place].engine
    return any(device in engine.devices or engine.bytes_on(device) > 0 for device in devices)


def _give_memory_back() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _name(layout: RepositoryLayout, lora: LoraFile | None) -> str:
    variant = layout.variant.name
    return variant if lora is None else f"{variant} with LoRA {lora.name} at strength {lora.strength}"


def _identity(layout: RepositoryLayout, lora: LoraFile | None) -> tuple[_FileIdentity, ...]:
    entries = []
    loras = [lora.path] if lora is not None and lora.path.is_file() else []  # loading says that it is missing
    for path in [*weight_files(layout), *loras]:
        entries.append((path, Signature.of(path)))
    return tuple(entries)
