"""The one error that says why ranks were ended, from what they said of themselves and how their processes ended.

See ``ranks`` for noticing that a rank failed, and ending the others.
"""

import subprocess
from collections.abc import Sequence

from libs import errors
from libs.errors import DeviceOutOfMemoryError, OneToAllError, RankError
from libs.one_to_all.parallel.messages import OUT_OF_MEMORY, Failed

STOP_SECONDS = 20.0
"""How long a stopped chunk may take to its next step; then the ranks are ended. Less than a cancel's patience."""


def error_of_ranks(
    failures: Sequence[tuple[int, Failed]], codes: dict[int, int], logs: dict[int, str]
) -> OneToAllError:
    """Make the error to raise: of what came first, rather than of what followed from it."""
    for rank, failed in failures:
        if failed.kind == OUT_OF_MEMORY:
            return DeviceOutOfMemoryError(f"rank {rank}: {failed.message}")
        raised = getattr(errors, failed.kind, None)
        if isinstance(raised, type) and issubclass(raised, OneToAllError):
            return raised(f"rank {rank}: {failed.message}")
    for rank, code in codes.items():
        reason = f"signal {-code}" if code < 0 else f"exit status {code}"
        output = f"; its last output:\n{logs[rank]}" if logs[rank] else ""
        return RankError(
            f"rank {rank} ended with {reason} (a signal 9 is most often the machine's memory); the others were ended, "
            f"and the next clip starts all of them again{output}"
        )
    for rank, failed in failures:
        return RankError(f"rank {rank} failed with {failed.kind}: {failed.message}\n{failed.traceback}")
    return RankError(f"the ranks did not answer within {STOP_SECONDS:.0f} s, and were ended")


def exit_code(process: subprocess.Popen[bytes]) -> int:
    """Return the exit code of a process that ended or is about to; it is killed if it does not end within 5 s."""
    try:
        return process.wait(timeout=5)
    except subprocess.TimeoutExpired:  # it closed its connection, and hangs while it ends
        process.kill()
        return process.wait()
