"""Time and memory of calls on one device.

What does not belong here: what is called (``subject``), printing (the benchmarks).
"""

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

Call = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """The rounds of one call: seconds on the device (wall seconds on a CPU), and this process's processor seconds."""

    seconds: tuple[float, ...]
    processor: tuple[float, ...]

    @property
    def median(self) -> float:
        """Seconds of a middling round."""
        return median(self.seconds)

    @property
    def processor_median(self) -> float:
        """Processor seconds of a middling round: hardly disturbed by other processes."""
        return median(self.processor)


class Clock:
    """Times calls: one that does not count, then rounds in which all calls are made in turn."""

    def __init__(self, device: torch.device, rounds: int) -> None:
        self.device, self.rounds = device, rounds
        if device.type == "cuda":
            torch.cuda.set_device(device)  # events and memory statistics are those of the current device

    def timings(self, calls: Mapping[str, Call], *, warm: bool = False) -> dict[str, Timing]:
        """Each call's rounds; what disturbs the machine for a while disturbs all of them.

        ``warm`` says that all of them have just been made once.
        """
        for call in () if warm else calls.values():
            call()
        rounds = [{name: self._once(call) for name, call in calls.items()} for _ in range(self.rounds)]
        return {name: Timing(*zip(*(one[name] for one in rounds), strict=True)) for name in calls}

    def timing(self, call: Call, *, warm: bool = False) -> Timing:
        """The rounds of one call alone."""
        return self.timings({"": call}, warm=warm)[""]

    def wall(self, call: Call) -> float:
        """Seconds of one call that waits for its own result, the first one included."""
        started = time.perf_counter()
        call()
        return time.perf_counter() - started

    def undisturbed(self, timing: Timing) -> float:
        """What shares and ratios are formed of: device seconds, on a CPU processor seconds."""
        return timing.median if self.device.type == "cuda" else timing.processor_median

    def _once(self, call: Call) -> tuple[float, float]:
        worked = time.process_time()
        if self.device.type != "cuda":
            started = time.perf_counter()
            call()
            return time.perf_counter() - started, time.process_time() - worked
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        call()
        end.record()
        torch.cuda.synchronize()
        return begin.elapsed_time(end) / 1000, time.process_time() - worked

    def peak(self, call: Call) -> int:
        """Bytes that a call adds at its peak."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()
            call()
            torch.cuda.synchronize()
            return torch.cuda.max_memory_allocated() - before
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark begins anew
        before = _resident("VmRSS")
        call()
        return max(0, _resident("VmHWM") - before)


def _resident(name: str) -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(name))
