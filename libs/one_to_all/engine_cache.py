"""Engine cache: each engine of this process is loaded once, and stays while the memory of its devices suffices.

A worker that runs one clip after the other pays for loading once (a cold load) and reuses the engine afterwards (a warm
load). Another variant is loaded beside the engines that are there; the least recently used are evicted when the next
clip needs their memory.
"""

import gc
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from libs.model_repo.layout import RepositoryLayout
from libs.model_repo.verification.digests import Signature
from libs.one_to_all.device import HOST, default_dtype, resolve_device
from libs.one_to_all.engine import AnimationEngine, Engine
from libs.one_to_all.events import EngineLoad
from libs.one_to_all.memory.choice import (
    DeviceMemory,
    PlanRequest,
    bytes_when_loaded,
    check_host,
    choose_plan,
    device_memory,
    layout_of_weights,
)
from libs.one_to_all.memory.options import DEFAULT_MEMORY, ClipSize, MemoryOptions
from libs.one_to_all.memory.plan import DeviceBudget, MemoryBudget, MemoryPlan
from libs.one_to_all.parallel.engine import ParallelEngine, devices_of_ranks
from libs.one_to_all.parallel.memory import budget_of_ranks, check_memory_options, choose_plan_of_ranks
from libs.one_to_all.parallel.plan import ONE_PROCESS, ParallelPlan
from libs.one_to_all.speed_options import DEFAULT_SPEED, SpeedOptions
from libs.one_to_all.weights.loading import weight_files
from libs.one_to_all.weights.lora import keeps_lora_unfused
from libs.one_to_all.weights.lora_file import LoraFile

CLIP_RESERVE = 0.25
"""Part of a device's memory that stays free beside engines loaded without a plan, for the tensors of a clip."""

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EngineSpec:
    """Which networks an engine holds, how it computes, and on which devices.

    Attributes:
        layout: the model repository.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``; with several ranks that of rank 0, which has the least room.
        dtype: of all networks; bfloat16 on CUDA and float32 on the CPU when left out.
        lora: the only LoRA of the transformer; None for no LoRA.
        speed: how the transformer computes.
        parallel: how the work is divided among ranks, each with a process and a device of its own.
        memory: which memory plans may be taken.
    """

    layout: RepositoryLayout
    device: str = "auto"
    dtype: torch.dtype | None = None
    lora: LoraFile | None = None
    speed: SpeedOptions = DEFAULT_SPEED
    parallel: ParallelPlan = ONE_PROCESS
    memory: MemoryOptions = DEFAULT_MEMORY

    @property
    def first_device(self) -> torch.device:
        """The device, once its name is resolved."""
        return resolve_device(self.device)

    @property
    def computing_dtype(self) -> torch.dtype:
        """The dtype, with its default."""
        return self.dtype or default_dtype(self.first_device)

    @property
    def changes_loras(self) -> bool:
        """Whether a LoRA lies beside the weights and can be changed; else it is fused into them."""
        return keeps_lora_unfused(self.layout)

    @property
    def fused_lora(self) -> LoraFile | None:
        """The LoRA that is added to the weights when they are loaded."""
        return None if self.changes_loras else self.lora

    def check(self, clip: ClipSize | None) -> None:
        """Raise if settings contradict each other, before anything is loaded.

        Raises:
            InputError: the block cache of ``clip`` does not work with these ranks.
            SettingsError: these ranks cannot carry out the memory plan that is named.
        """
        if clip is not None and clip.block_cache:
            self.parallel.check_block_cache()
        check_memory_options(self.memory, self.parallel)


@dataclass(frozen=True)
class CacheKey:
    """What tells cached engines apart: the variant with the LoRA that is fused into it, and the first device."""

    name: str
    device: torch.device

    @classmethod
    def of(cls, spec: EngineSpec) -> "CacheKey":
        """Return the key of the engine for ``spec``, whose layout is that of the weights."""
        variant, lora = spec.layout.variant.name, spec.fused_lora
        name = variant if lora is None else f"{variant} with LoRA {lora}"
        return cls(name, spec.first_device)


@dataclass(frozen=True)
class EngineState:
    """What an engine was loaded from and for; an engine with another state is replaced.

    Attributes:
        dtype: of all networks.
        speed: how the transformer computes.
        parallel: how the work is divided.
        files: every weight file with its size, time of change and inode.
    """

    dtype: torch.dtype
    speed: SpeedOptions
    parallel: ParallelPlan
    files: tuple[tuple[Path, Signature], ...]

    @classmethod
    def of(cls, spec: EngineSpec) -> "EngineState":
        """Return the state that the engine for ``spec`` must have now."""
        lora = spec.fused_lora
        of_loras = [] if lora is None else [one.path for one in lora.all]
        loras = [path for path in of_loras if path.is_file()]  # loading says which is missing
        files = tuple((path, Signature.of(path)) for path in [*weight_files(spec.layout), *loras])
        return cls(spec.computing_dtype, spec.speed, spec.parallel, files)


@dataclass(frozen=True)
class CacheEntry:
    """An engine that is kept, and the state it was loaded with."""

    engine: Engine
    state: EngineState

    def matches(self, state: EngineState) -> bool:
        """Whether the engine can make the next clip: nothing has changed, and no rank was lost."""
        return self.engine.alive and self.state == state

    def lies_on(self, devices: list[torch.device]) -> bool:
        """Whether evicting the engine frees memory of any of these devices; the host is one, too."""
        return any(device in self.engine.devices or self.engine.bytes_on(device) > 0 for device in devices)


def load_engine(spec: EngineSpec, plan: MemoryPlan | None) -> Engine:
    """Load the engine for ``spec``, placed by ``plan``.

    Raises:
        ModelFilesError, DeviceError: see :meth:`AnimationEngine.load` and :class:`ParallelEngine`.
    """
    device, dtype = spec.first_device, spec.computing_dtype
    if spec.parallel == ONE_PROCESS:
        return AnimationEngine.load(spec.layout, str(device), dtype, lora=spec.lora, speed=spec.speed, plan=plan)
    return ParallelEngine(spec.layout, device, dtype, spec.parallel, spec.lora, spec.speed, plan)


class EngineCache:
    """Loaded engines of this process. The least recently used are evicted when the next clip needs their memory.

    Args:
        load: loads an engine.
        memory: tells what a device has free.
    """

    def __init__(
        self,
        load: Callable[[EngineSpec, MemoryPlan | None], Engine] = load_engine,
        memory: Callable[[torch.device], DeviceMemory] = device_memory,
    ) -> None:
        self._load = load
        self._memory = memory
        self._lock = threading.Lock()
        self._entries: dict[CacheKey, CacheEntry] = {}
        """The least recently used entry comes first."""

    @property
    def engines(self) -> dict[CacheKey, Engine]:
        """The engines that are kept; the least recently used comes first."""
        return {key: entry.engine for key, entry in self._entries.items()}

    def get_or_load(self, spec: EngineSpec, clip: ClipSize | None = None) -> tuple[Engine, EngineLoad]:
        """Return the engine for ``spec``, loaded (cold) or reused (warm), with the fastest plan that fits ``clip``.

        A changed weight file counts as another engine. FP8 weights take a LoRA as a branch beside them, so that engines
        which differ only in it are one; into other weights a LoRA is fused, and each fused LoRA is an engine of its
        own. Networks are placed by a memory plan on a GPU, and where ``spec.memory`` names one; the plan is for the
        largest usual clip if ``clip`` is not given, and a reused engine is moved to it.

        Raises:
            InputError, SettingsError: see :meth:`EngineSpec.check`.
            ModelFilesError, DeviceError: the weights cannot be loaded, or no device can hold them.
        """
        started = time.perf_counter()
        spec.check(clip)
        with self._lock:
            plan = None
            if spec.first_device.type != "cpu" or spec.memory.keyword is not None:
                self._release_unused_memory()
                plan = self._plan(spec, clip)
                _logger.info("memory plan for %s: %s", spec.first_device, plan.describe())
                spec = replace(spec, layout=layout_of_weights(spec.layout, plan.variant))
            key, state = CacheKey.of(spec), EngineState.of(spec)
            entry = self._entries.get(key)
            cold = entry is None or not entry.matches(state)
            if entry is not None and not cold and spec.changes_loras:
                entry.engine.set_lora(spec.lora)  # if it cannot be used, the engine stays as it was
            self._entries.pop(key, None)  # what cannot be moved is not kept
            if entry is None or cold:
                entry = None  # frees an outdated engine before its successor is loaded
                self._evict_until_free(key, self._bytes_to_load(spec) if plan is None else _needed(plan))
                entry = CacheEntry(self._load(spec, plan), state)
            elif plan is not None:
                engine = entry.engine
                self._evict_until_free(key, {one: count - engine.bytes_on(one) for one, count in _needed(plan).items()})
                engine.place(plan)
            self._entries[key] = entry  # most recently used
            return entry.engine, EngineLoad(cold, time.perf_counter() - started)

    def evict_others(self, engine: Engine) -> list[str]:
        """Evict every engine on devices of ``engine`` but itself, for a clip whose tensors did not fit beside them.

        Returns:
            The names of the evicted engines; their next clip loads them again.
        """
        with self._lock:
            others = [
                key
                for key, entry in self._entries.items()
                if entry.engine is not engine and entry.engine.devices & engine.devices
            ]
            for key in others:
                _logger.info("%s makes room for a clip on %s", key.name, engine.device)
                del self._entries[key]
            _collect_garbage()
        return [key.name for key in others]

    def clear(self) -> None:
        """Evict all engines, and give their memory back."""
        with self._lock:
            self._entries.clear()
            _collect_garbage()

    def _plan(self, spec: EngineSpec, clip: ClipSize | None) -> MemoryPlan:
        """Plan for what could be free on each device: all engines that are kept may be evicted."""
        device = spec.first_device
        request = PlanRequest(spec.layout, spec.computing_dtype, spec.memory, clip, spec.lora)
        host = None if device.type == "cpu" else self._free_without_engines(HOST)
        if spec.parallel == ONE_PROCESS:
            budget = MemoryBudget((DeviceBudget(str(device), self._free_without_engines(device)),), host)
            plan = choose_plan(request, budget)
            check_host(plan, device)
            return plan
        devices = devices_of_ranks(device, spec.parallel)
        free = [self._free_without_engines(torch.device(one)) // devices.count(one) for one in devices]
        budget = budget_of_ranks(spec.parallel, devices, free, host)
        return choose_plan_of_ranks(request, budget, spec.parallel)

    def _free_without_engines(self, device: torch.device) -> int:
        """Bytes that would be free on ``device`` if all engines were evicted."""
        return self._memory(device).free + sum(entry.engine.bytes_on(device) for entry in self._entries.values())

    def _bytes_to_load(self, spec: EngineSpec) -> dict[torch.device, int]:
        """Bytes that an engine without a plan needs on its device, with a reserve for a clip."""
        device = spec.first_device
        reserve = round(CLIP_RESERVE * self._memory(device).total)
        return {device: bytes_when_loaded(spec.layout, spec.computing_dtype) + reserve}

    def _evict_until_free(self, key: CacheKey, needed: Mapping[torch.device, int]) -> None:
        """Evict engines until ``needed`` bytes are free for that of ``key``, or no engine is left where they are not.

        An engine of several ranks lies on several devices, and each of them counts; so does this machine's memory.
        """
        _collect_garbage()
        for other in list(self._entries):
            scarce = [device for device, count in needed.items() if count > self._memory(device).free]
            if not scarce:
                return
            if self._entries[other].lies_on(scarce):
                _logger.info("%s makes room for %s on %s", other.name, key.name, ", ".join(map(str, scarce)))
                del self._entries[other]
                _collect_garbage()

    def _release_unused_memory(self) -> None:
        """Have all engines give back what no clip uses; what other processes hold would count as taken."""
        _collect_garbage()
        for entry in self._entries.values():
            entry.engine.release_memory()


ENGINES = EngineCache()
"""The engine cache of this process."""


def _needed(plan: MemoryPlan) -> dict[torch.device, int]:
    return {torch.device(name): count for name, count in plan.needed_bytes.items()}


def _collect_garbage() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
