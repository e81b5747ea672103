"""How much memory a model will take, and how much a device has left.

What does not belong here: deciding what to drop (``warm``), and where a single network goes (``device``).
"""

import math
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import psutil
import torch

from libs.errors import ModelFilesError
from libs.model_repo.files.parameters import FP8_DTYPES
from libs.model_repo.files.safetensors_header import read_header
from libs.model_repo.layout import RepositoryLayout
from libs.one_to_all.weights.loading import weight_files

_GROUPS = Path("/sys/fs/cgroup")
_OWN_GROUPS = Path("/proc/self/cgroup")


class DeviceMemory(NamedTuple):
    """Memory of a device in bytes: what may be taken now, and all of it."""

    free: int
    total: int


def device_memory(device: torch.device) -> DeviceMemory:
    """The memory of a CUDA device, or for the CPU that of this machine, within the limits of a container."""
    if device.type == "cuda":
        return DeviceMemory(*torch.cuda.mem_get_info(device))
    machine = psutil.virtual_memory()
    everything = [DeviceMemory(machine.available, machine.total), *_limits_of_container()]
    return DeviceMemory(min(one.free for one in everything), min(one.total for one in everything))


class _GroupFiles(NamedTuple):
    """What a version of control groups calls the limit, what is used, and the pages of files that were read."""

    limit: str
    used: str
    inactive: str
    active: str


_VERSION_1 = _GroupFiles(
    "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "total_active_file"
)  # without a limit it is a number near 2**63
_VERSION_2 = _GroupFiles("memory.max", "memory.current", "inactive_file", "active_file")  # or the word max


def _limits_of_container() -> Iterator[DeviceMemory]:
    """What the control groups of this process leave it, of version 2 and of 1; a system may have both."""
    for line in _read(_OWN_GROUPS).splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            yield from _limits_of_group(_GROUPS, path, _VERSION_2)
        elif "memory" in controllers.split(","):
            yield from _limits_of_group(_GROUPS / "memory", path, _VERSION_1)


def _limits_of_group(root: Path, path: str, files: _GroupFiles) -> Iterator[DeviceMemory]:
    """From the innermost to the outermost; a container often sees but its own, as ``root``."""
    group = root / path.lstrip("/")
    for folder in (group, *group.parents):
        limit = _read(folder / files.limit).strip()
        if limit.isdigit():
            # Pages of files that were read count as used, but are given up for whoever needs memory.
            pages = dict(line.split() for line in _read(folder / "memory.stat").splitlines())
            kept = int(_read(folder / files.used)) - int(pages[files.inactive]) - int(pages[files.active])
            yield DeviceMemory(max(0, int(limit) - kept), int(limit))
        if folder == root:
            return


def _read(path: Path) -> str:
    return path.read_text() if path.is_file() else ""


def bytes_when_loaded(layout: RepositoryLayout, dtype: torch.dtype) -> int:
    """What the weights of ``layout`` take once they are loaded in ``dtype``; weights in FP8 stay as they are."""
    return sum(bytes_of_file(path, dtype) for path in weight_files(layout))


def bytes_of_folder(folder: Path, dtype: torch.dtype) -> int:
    """The same of the weights in one folder; 0 if there is none."""
    return sum(bytes_of_file(path, dtype) for path in folder.glob("*.safetensors"))


def bytes_of_file(path: Path, dtype: torch.dtype) -> int:
    """The same of one file; 0 if there is none."""
    if not path.is_file():
        return 0
    if path.suffix != ".safetensors":
        return path.stat().st_size
    try:
        tensors = read_header(path)
    except ModelFilesError:  # loading says what is wrong, and how to mend it
        return path.stat().st_size
    return sum(
        math.prod(tensor.shape) * (1 if tensor.dtype in FP8_DTYPES else dtype.itemsize) for tensor in tensors.values()
    )
