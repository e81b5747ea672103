"""The memory plan of a model repository: what its files take, what is free, and what is asked for.

See ``plan`` for how a plan is found, and ``libs.one_to_all.engine_cache`` for evicting other engines to make room for
it.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import psutil
import torch

from libs.errors import DeviceError, ModelFilesError
from libs.model_repo.files.parameters import FP8_DTYPES
from libs.model_repo.files.safetensors_header import read_header
from libs.model_repo.layout import RepositoryLayout
from libs.model_repo.variants import FP8_SUFFIX, VARIANTS, ModelVariant
from libs.one_to_all.memory.cost import TokenGrid
from libs.one_to_all.memory.options import DEFAULT_MEMORY, ClipSize, MemoryOptions, largest_usual_clip
from libs.one_to_all.memory.plan import GB, PLACEMENTS, ClipWork, MemoryBudget, MemoryPlan, Placement, plan_memory
from libs.one_to_all.weights.loading import weight_files
from libs.one_to_all.weights.lora_file import LoraFile, bytes_beside_fp8


@dataclass(frozen=True)
class PlanRequest:
    """What a memory plan is asked for.

    Attributes:
        layout: the variant that is asked for.
        dtype: of text encoder and VAE; the transformer is counted in bfloat16, or FP8 where its files are.
        options: limit, name of a plan, FP8 allowed; FP8 weights of a plain variant are taken only if they are there.
        clip: what is made; the largest usual clip of the variant if it is not known.
        lora: lies beside FP8 weights and takes room there; fused into others it takes none.
    """

    layout: RepositoryLayout
    dtype: torch.dtype
    options: MemoryOptions = DEFAULT_MEMORY
    clip: ClipSize | None = None
    lora: LoraFile | None = None

    @property
    def work(self) -> ClipWork:
        """What the plan must have room for, by the sizes of the files."""
        layout, dtype = self.layout, self.dtype
        clip = self.clip or largest_usual_clip(layout.variant)
        return ClipWork(
            layout.variant,
            TokenGrid.of(clip.height, clip.width, clip.frame_count),
            text_encoder_bytes=_bytes_of_folder(layout.wan_part("text_encoder"), dtype),
            vae_bytes=_bytes_of_folder(layout.wan_part("vae"), dtype),
            lora_bytes=0 if self.lora is None else _lora_bytes(self.lora, layout.variant, dtype),
            block_cache=clip.block_cache,
        )


def choose_plan(request: PlanRequest, budget: MemoryBudget, placements: Sequence[Placement] = PLACEMENTS) -> MemoryPlan:
    """Choose the fastest plan that fits; the smallest where none does, or the one that the options name.

    Args:
        request: what is asked for.
        budget: what is free without the weights of this variant.
        placements: those that may be taken, in the order of ``PLACEMENTS``.
    """
    options = request.options
    named = [placement for placement in placements if options.keyword in {None, placement.keyword}]
    allow_fp8 = options.allow_fp8 and fp8_layout(request.layout) is not None
    return plan_memory(budget.limited(options.limit_bytes), request.work, named, allow_fp8=allow_fp8)


def check_host(plan: MemoryPlan, device: torch.device) -> None:
    """Raise if ``plan``, for ``device``, would keep more in this machine's memory than is free there.

    Page-locked memory cannot be swapped: the system would end processes, and not by their size alone.

    Raises:
        DeviceError: says what to change.
    """
    if not plan.fits_host:
        assert plan.budget.host_free_bytes is not None
        raise DeviceError(
            f"on {device} no memory plan is smaller than this one ({plan.name}), which keeps "
            f"{math.ceil(plan.host_bytes / GB)} GB of weights in this machine's memory, and "
            f"{plan.budget.host_free_bytes // GB} GB are free: free some, allow FP8 weights (ONE_TO_ALL_ALLOW_FP8), "
            "use a smaller variant, or a device with more memory"
        )


def layout_of_weights(layout: RepositoryLayout, variant: str) -> RepositoryLayout:
    """Find the weights that a plan takes: ``layout``, or the FP8 repository beside it."""
    if variant == layout.variant.name:
        return layout
    fp8 = fp8_layout(layout)
    assert fp8 is not None, "such a plan is made only where they are"
    return fp8


def fp8_layout(layout: RepositoryLayout) -> RepositoryLayout | None:
    """Find the FP8 repository that belongs to a plain one, with the same pretrained files; None if it is not there."""
    variant: ModelVariant | None = VARIANTS.get(layout.variant.name + FP8_SUFFIX.lower())
    if variant is None:
        return None
    fp8 = replace(layout, variant=variant, root=layout.root.parent / variant.folder)
    return fp8 if fp8.index.is_file() else None


def bytes_when_loaded(layout: RepositoryLayout, dtype: torch.dtype) -> int:
    """Bytes of all weights of ``layout`` once they are loaded in ``dtype``; weights in FP8 stay as they are."""
    return sum(bytes_of_file(path, dtype) for path in weight_files(layout))


def _lora_bytes(lora: LoraFile, variant: ModelVariant, dtype: torch.dtype) -> int:
    """Bytes of a LoRA beside FP8 weights; about, for a file that loading will refuse."""
    try:
        return bytes_beside_fp8(lora, variant, dtype.itemsize)
    except ModelFilesError:  # loading says what is wrong, and how to mend it
        return sum(bytes_of_file(one.path, dtype) for one in lora.all if one.path.is_file())


def bytes_of_file(path: Path, dtype: torch.dtype) -> int:
    """Bytes of the weights in one file once they are loaded in ``dtype``; 0 if there is no such file."""
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


def _bytes_of_folder(folder: Path, dtype: torch.dtype) -> int:
    return sum(bytes_of_file(path, dtype) for path in folder.glob("*.safetensors"))


class DeviceMemory(NamedTuple):
    """Memory of a device in bytes: what may be taken now, and all of it."""

    free: int
    total: int


def device_memory(device: torch.device) -> DeviceMemory:
    """Read the memory of a CUDA device, or for the CPU that of this machine."""
    return DeviceMemory(*torch.cuda.mem_get_info(device)) if device.type == "cuda" else host_memory()


def host_memory(
    process_groups: Path = Path("/proc/self/cgroup"), groups: Path = Path("/sys/fs/cgroup")
) -> DeviceMemory:
    """Read the memory of this machine, within the limits of a container.

    Args:
        process_groups: the file with the control groups of this process.
        groups: the folder of all control groups.
    """
    machine = psutil.virtual_memory()
    everything = [DeviceMemory(machine.available, machine.total), *_limits_of_container(process_groups, groups)]
    return DeviceMemory(min(one.free for one in everything), min(one.total for one in everything))


class _GroupFiles(NamedTuple):
    """Names, in one version of control groups, of the limit, what is used, and the pages of files that were read."""

    limit: str
    used: str
    inactive: str
    active: str


_VERSION_1 = _GroupFiles(
    "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file", "total_active_file"
)  # without a limit it is a number near 2**63
_VERSION_2 = _GroupFiles("memory.max", "memory.current", "inactive_file", "active_file")  # or the word max


def _limits_of_container(process_groups: Path, groups: Path) -> Iterator[DeviceMemory]:
    """Read what the control groups of this process leave it, of version 2 and of 1; a system may have both."""
    for line in _read(process_groups).splitlines():
        number, controllers, path = line.split(":", 2)
        if number == "0" and not controllers:
            yield from _limits_of_group(groups, path, _VERSION_2)
        elif "memory" in controllers.split(","):
            yield from _limits_of_group(groups / "memory", path, _VERSION_1)


def _limits_of_group(root: Path, path: str, files: _GroupFiles) -> Iterator[DeviceMemory]:
    """Read the limits from the innermost group to the outermost; a container often sees only its own, as ``root``."""
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
