"""Which GPUs a worker cannot do without: decided once, when it starts, so that no clip goes to the CPU unnoticed.

``ONE_TO_ALL_DEVICE=auto`` means the GPU where there is one. If that were decided for each clip, a GPU that dies
would make a worker compute on the processor, for hours a clip. See ``gpu_check`` for asking a GPU, ``gpu_watch`` for
what follows when it does not answer.
"""

import ctypes
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from libs.one_to_all.parallel import ParallelPlan
from libs.settings import Settings
from orchestration.fleet.gpus.gpu_check import NO_CUDA, GpuCheck, UsedGpus
from orchestration.fleet.run_coordinator import CPU_QUEUE

DEVICE_VARIABLE = "ONE_TO_ALL_DEVICE"
_CARDS_OF_THE_DRIVER = Path("/proc/driver/nvidia/gpus")

logger = logging.getLogger(__name__)


def driver_lists_gpus() -> bool | None:
    """True if the NVIDIA driver knows a card, False if it knows none or does not say, None if there is no driver."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return None
    return _CARDS_OF_THE_DRIVER.is_dir() and any(_CARDS_OF_THE_DRIVER.iterdir())


def required_gpus(
    settings: Settings,
    queue: str,
    environment: Mapping[str, str],
    *,
    named: bool,
    probe: Callable[[UsedGpus], str | None] = lambda gpus: GpuCheck(gpus).probe(),
    machine_has_gpus: Callable[[], bool | None] = driver_lists_gpus,
) -> UsedGpus | None:
    """The GPUs that every clip of this worker is made on; None where clips are made on the CPU.

    ``auto`` means GPUs if they answer now, and also if they do not, but the worker was given some by name or the driver
    lists some: then they are broken. Without a driver, or with a torch that knows no CUDA, it means the CPU.

    Args:
        settings: of this process.
        queue: the worker's.
        environment: ``CUDA_VISIBLE_DEVICES`` is looked at; empty means that no GPU may be used.
        named: the worker was started with ``--gpu``.
        probe: asks GPUs (``gpu_check``).
        machine_has_gpus: what the driver says; None without a driver.
    """
    device = settings.one_to_all_device
    if queue == CPU_QUEUE or device == "cpu":
        return None
    first = int(device.partition(":")[2] or 0) if device.startswith("cuda") else 0
    gpus = UsedGpus(first, ParallelPlan.parse(settings.one_to_all_parallel).ranks)
    if device != "auto":
        return gpus
    if environment.get("CUDA_VISIBLE_DEVICES") == "":
        return None
    listed = machine_has_gpus()
    if listed is None and not named:
        return None
    reason = probe(gpus)
    if reason is None or ((named or listed) and reason != NO_CUDA):
        return gpus
    logger.warning("%s=auto, and no GPU answers (%s): this worker makes clips on the CPU", DEVICE_VARIABLE, reason)
    return None
