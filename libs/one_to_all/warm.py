"""The engine of this process: loaded once, and kept as long as the same model on the same device is asked for.

A worker that runs one clip after the other pays for loading once. Only one engine is kept: two would not fit onto a
GPU. What does not belong here: loading itself (``engine``), keeping workers alive (the orchestration).
"""

import gc
import threading
import time
from dataclasses import dataclass

import torch

from libs.model_repo.layout import RepositoryLayout
from libs.one_to_all.device import default_dtype, resolve_device
from libs.one_to_all.engine import AnimationEngine
from libs.one_to_all.events import EngineLoad
from libs.one_to_all.loading import weight_files

_FileIdentity = tuple[str, int, int, int]


@dataclass(frozen=True)
class _EngineKey:
    variant: str
    device: torch.device
    dtype: torch.dtype
    files: tuple[_FileIdentity, ...]


_lock = threading.Lock()
_kept: dict[_EngineKey, AnimationEngine] = {}


def warm_engine(
    layout: RepositoryLayout, device: str = "auto", dtype: torch.dtype | None = None
) -> tuple[AnimationEngine, EngineLoad]:
    """The engine for ``layout``: the one this process has, or a new one in its place.

    A changed file (size, time of change or inode) means a new engine.

    Raises:
        ModelFilesError, DeviceError: see :meth:`AnimationEngine.load`.
    """
    started = time.perf_counter()
    resolved = resolve_device(device)
    key = _EngineKey(layout.variant.name, resolved, dtype or default_dtype(resolved), _identity(layout))
    with _lock:
        cold = key not in _kept
        if cold:
            _release()
            _kept[key] = AnimationEngine.load(layout, str(resolved), key.dtype)
        return _kept[key], EngineLoad(cold, time.perf_counter() - started)


def release_engine() -> None:
    """Drop the engine this process keeps, and give its memory back."""
    with _lock:
        _release()


def _release() -> None:
    if _kept:
        _kept.clear()
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _identity(layout: RepositoryLayout) -> tuple[_FileIdentity, ...]:
    entries = []
    for path in weight_files(layout):
        status = path.stat()
        entries.append((str(path), status.st_size, status.st_mtime_ns, status.st_ino))
    return tuple(entries)
