"""The engines of this process: each is loaded once, and stays while the memory of its device suffices.

A worker that runs one clip after the other pays for loading once. Another variant is loaded beside those that are
there; what was used longest ago makes room. What does not belong here: loading itself (``engine``), keeping workers
alive (the orchestration).
"""

import gc
import logging
import threading
import time
from dataclasses import dataclass

import torch

from libs.model_repo.layout import RepositoryLayout
from libs.one_to_all.device import default_dtype, resolve_device
from libs.one_to_all.engine import AnimationEngine
from libs.one_to_all.events import EngineLoad
from libs.one_to_all.loading import weight_files
from libs.one_to_all.lora_file import LoraFile
from libs.one_to_all.memory import bytes_when_loaded, device_memory
from libs.one_to_all.parallel.engine import ParallelEngine
from libs.one_to_all.parallel.plan import ONE_PROCESS, ParallelPlan
from libs.one_to_all.speed_options import DEFAULT_SPEED, SpeedOptions

CLIP_SHARE = 0.25
"""Of a device's memory: what stays free beside several engines, for the tensors of the clip that is being made."""

_FileIdentity = tuple[str, int, int, int]
_Place = tuple[str, torch.device]
"""Variant (and LoRA, if any) and device: a place holds one engine; other files, dtype or speed options replace it."""

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
) -> tuple[AnimationEngine, EngineLoad]:
    """The engine for ``layout``, with ``lora`` added if one is given: the one this process has, or a new one.

    A changed file (size, time of change or inode) means a new engine. Where the new one does not fit beside the others
    of its device, those used longest ago are dropped first. With a ``parallel`` plan the engine spans several devices
    from ``device`` on, each with a process of its own; the first of them has the least room.

    Raises:
        ModelFilesError, DeviceError: see :meth:`AnimationEngine.load` and :class:`ParallelEngine`.
    """
    started = time.perf_counter()
    resolved = resolve_device(device)
    dtype = dtype or default_dtype(resolved)
    place, files = (_name(layout, lora), resolved), _identity(layout, lora)
    with _lock:
        kept = _kept.pop(place, None)
        wanted = (dtype, speed, parallel, files)
        cold = kept is None or not kept.engine.alive or (kept.dtype, kept.speed, kept.parallel, kept.files) != wanted
        if cold:
            kept = None  # the outdated engine goes before its successor is loaded
            _make_room(layout, resolved, dtype)
            if parallel == ONE_PROCESS:
                engine = AnimationEngine.load(layout, str(resolved), dtype, lora=lora, speed=speed)
            else:
                engine = ParallelEngine(layout, resolved, dtype, parallel, lora, speed)
            kept = _Kept(engine, *wanted)
        assert kept is not None
        _kept[place] = kept  # at the end: used last
        return kept.engine, EngineLoad(cold, time.perf_counter() - started)


def release_engines() -> None:
    """Drop the engines this process keeps, and give their memory back."""
    with _lock:
        _kept.clear()
        _give_memory_back()


def release_other_engines(engine: AnimationEngine) -> list[str]:
    """Drop every engine of ``engine``'s device but itself, for a clip whose tensors did not fit beside them.

    Returns:
        The variants that were dropped; their next clip loads them again.
    """
    with _lock:
        others = [place for place, kept in _kept.items() if place[1] == engine.device and kept.engine is not engine]
        for place in others:
            _logger.info("%s makes room for a clip on %s", place[0], engine.device)
            del _kept[place]
        _give_memory_back()
    return [variant for variant, _ in others]


def _make_room(layout: RepositoryLayout, device: torch.device, dtype: torch.dtype) -> None:
    """Drop engines of ``device`` until the new one fits, or none is left."""
    _give_memory_back()
    needed = bytes_when_loaded(layout, dtype)
    for place in [place for place in _kept if place[1] == device]:
        memory = device_memory(device)
        if needed + CLIP_SHARE * memory.total <= memory.free:
            return
        _logger.info("%s makes room for %s on %s", place[0], layout.variant.name, device)
        del _kept[place]
        _give_memory_back()


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
        status = path.stat()
        entries.append((str(path), status.st_size, status.st_mtime_ns, status.st_ino))
    return tuple(entries)
