"""Whether this process has lost its GPU: after some errors CUDA refuses every further call, until the process ends.

An illegal memory access, an uncorrectable bit, a card that fell off the bus: a worker that stayed warm would fail every
run it takes, within seconds each. Light: looks at torch only where a run has loaded it. What does not belong here: what
follows from a loss (``run_task``), and a full memory, which is none (``libs.stages.memory_retry``).
"""

import sys


def device_loss() -> str | None:
    """What the GPU of this process answers where it does not work any more; None where it does, or none was used.

    Waits for what runs on it. Only devices that hold tensors of this process are asked: asking takes memory there.
    """
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    # The pose networks run on the GPU without torch, which begins to use it here: that fails if they have lost it.
    by_others = "onnxruntime" in sys.modules and torch.cuda.is_available()
    if not (torch.cuda.is_initialized() or by_others):
        return None
    try:
        used = [index for index in range(torch.cuda.device_count()) if torch.cuda.memory_reserved(index)]
        for index in used or [torch.cuda.current_device()]:
            torch.cuda.synchronize(index)
    except RuntimeError as error:
        return (str(error).splitlines() or [type(error).__name__])[0]
    return None
