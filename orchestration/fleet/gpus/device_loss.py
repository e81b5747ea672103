"""Whether this process has lost its GPU: after some errors CUDA refuses every further call, until the process ends.

An illegal memory access, an uncorrectable bit, a card that fell off the bus: a worker that stayed warm would fail every
run it takes, within seconds each. Light: looks at torch only where a run has loaded it. See ``orchestration.crashes``
for what follows from a loss, ``libs.stages.clip.memory_retry`` for a full memory, which is not a loss.
"""

import os
import sys

from orchestration.fleet.gpus.gpu_requirement import DEVICE_VARIABLE


def device_loss() -> str | None:
    """The error of this process's GPU if it no longer works; None if it works or none was used.

    Waits for what runs on it. Only devices that hold tensors of this process are asked: asking takes memory there.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    # The pose networks run on the GPU without torch, which begins to use it here: that fails if they have lost it.
    available = torch.cuda.is_initialized() or torch.cuda.is_available()
    if not available and _needs_a_gpu():
        return "CUDA no longer finds a device"  # it answered before the run was begun (``run_gate``)
    by_others = "onnxruntime" in sys.modules and available
    if not (torch.cuda.is_initialized() or by_others):
        return None
    try:
        used = [index for index in range(torch.cuda.device_count()) if torch.cuda.memory_reserved(index)]
        for index in used or [torch.cuda.current_device()]:
            torch.cuda.synchronize(index)
    except RuntimeError as error:
        return (str(error).splitlines() or [type(error).__name__])[0]
    return None


def _needs_a_gpu() -> bool:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES") != ""
    return visible and os.environ.get(DEVICE_VARIABLE, "").startswith("cuda")
