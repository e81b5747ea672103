"""Do the GPUs of a worker answer? Asked in a fresh process, since CUDA may stay broken in one that lost its GPU.

``python -m orchestration.fleet.gpus.gpu_check FIRST COUNT`` is that process: each device computes a small sum. Light
for whoever asks: torch is loaded by the process only. See ``gpu_watch`` for what follows from the answer,
``device_loss`` for whether a process that used a GPU has lost it.
"""

import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from libs.errors import is_out_of_memory

ANSWER_SECONDS = 60.0
"""For loading torch and opening the devices; a card that hangs does not answer at all."""

KILL_SECONDS = 5.0
"""A process that waits inside the driver cannot be killed; it is left alone after this."""

NO_CUDA = "this installation of torch knows no CUDA"
"""The answer that no other card would change."""

_NUMBERS = 4096


@dataclass(frozen=True)
class UsedGpus:
    """The CUDA devices that each clip of a worker needs, among those that it sees."""

    first: int = 0
    count: int = 1


@dataclass
class GpuCheck:
    """Asks the same GPUs again and again; a process that hangs is not joined by a second one."""

    gpus: UsedGpus
    seconds: float = ANSWER_SECONDS
    _hung: "subprocess.Popen[str] | None" = field(default=None, init=False)

    def probe(self) -> str | None:
        """None if all GPUs answer; otherwise CUDA's error, or that it does not answer. Takes seconds."""
        if self._hung is not None and self._hung.poll() is None:
            return f"the process {self._hung.pid} that asked before still hangs inside the driver"
        command = [
            sys.executable,
            "-m",
            "orchestration.fleet.gpus.gpu_check",
            str(self.gpus.first),
            str(self.gpus.count),
        ]
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            said, complained = process.communicate(timeout=self.seconds)
        except subprocess.TimeoutExpired:
            process.kill()
            try:
                process.communicate(timeout=KILL_SECONDS)
            except subprocess.TimeoutExpired:
                self._hung = process
            return f"no answer within {self.seconds:.0f} s"
        if process.returncode == 0:
            return None
        lines = (said.strip() or complained.strip()).splitlines()
        return lines[-1] if lines else f"the process that asked ended with status {process.returncode}"


def ask_gpus(gpus: UsedGpus) -> str | None:
    """Let each device compute, in this process; None if all do, otherwise what the first one that does not answers.

    A full memory is an answer: whoever fills it is at work there.
    """
    import torch  # noqa: PLC0415 - only the process that asks loads it

    if not torch.backends.cuda.is_built():
        return NO_CUDA
    for index in range(gpus.first, gpus.first + gpus.count):
        try:
            total = torch.ones(_NUMBERS, device=f"cuda:{index}").sum().item()
        except Exception as error:  # torch raises RuntimeError, AssertionError and their subclasses here
            if is_out_of_memory(error):
                continue
            lines = str(error).splitlines() or [type(error).__name__]
            return f"cuda:{index}: {lines[0]}"
        if total != _NUMBERS:
            return f"cuda:{index} computes wrong sums: {total} for {_NUMBERS}"
    return None


def main(arguments: Sequence[str], ask: Callable[[UsedGpus], str | None] = ask_gpus) -> int:
    """The exit status: 0 if the GPUs answer, 1 if not; the reason is the last line of the output."""
    first, count = map(int, arguments)
    reason = ask(UsedGpus(first, count))
    if reason is not None:
        print(reason, flush=True)
    return 0 if reason is None else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
