"""One call in a process of its own, bounded in time and memory: what a fuzzer of hostile input needs.

The call may hang in C code, crash the interpreter or fill the memory: the test that made it goes on and says so.
"""

import contextlib
import ctypes
import gc
import os
import pickle
import resource
import select
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn, ParamSpec, TypeVar

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")

_POLL_SECONDS = 0.01
_LONGEST_REST = 60.0
"""Seconds in which no thread of a call computes, nor could: it waits for what does not come."""
_MEGABYTE = 1_000_000
_PAGE = resource.getpagesize()
_TICKS = os.sysconf("SC_CLK_TCK")


class BoundExceededError(AssertionError):
    """A call took more time or memory than it may, or its process died."""


def call_within(
    seconds: float,
    megabytes: float,
    function: Callable[Parameters, Result],
    *args: Parameters.args,
    **kwargs: Parameters.kwargs,
) -> Result:
    """Call ``function`` in a forked process and hand back its result, or raise its exception.

    Args:
        seconds: of processor time, all threads together, so that a busy machine changes nothing; many times what the
            call takes, as machines differ. A call that rests for a minute is ended as well.
        megabytes: by which the process may grow at its peak (resident memory, what it maps from files included).
        function: its result and its exception must survive pickling.
        args: handed to ``function``.
        kwargs: likewise.

    Raises:
        BoundExceededError: more time or memory than that, or the process crashed.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        _answer(writing, megabytes, lambda: function(*args, **kwargs))
    os.close(writing)
    try:
        return _outcome(_watch(child, reading, seconds, megabytes))
    finally:
        os.close(reading)
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.killpg(child, signal.SIGKILL)
            os.waitpid(child, 0)


def _answer(writing: int, megabytes: float, call: Callable[[], Any]) -> NoReturn:
    """Make the call and write its outcome; runs in the forked process, which it ends."""
    try:
        os.setpgid(0, 0)
        gc.freeze()  # the search for garbage must not pass over what the parent holds: that is not the call's time
        _stop_tracing()
        ctypes.CDLL(None).malloc_trim(0)  # memory the parent freed must not hide what the call takes
        before = _start_measuring_peak()
        try:
            outcome: tuple[str, Any] = ("result", call())
        except BaseException as error:
            outcome = ("error", error)
        grown = (_peak() - before) / _MEGABYTE
        if grown > megabytes:
            outcome = ("exceeded", f"grew by {grown:.0f} MB; {megabytes:.0f} MB are allowed")
        with os.fdopen(writing, "wb") as pipe:
            pipe.write(_pickled(outcome))
    finally:
        os._exit(0)  # neither pytest's clean-up nor its output belongs to this process


def _stop_tracing() -> None:
    """Hypothesis traces lines while it explains a failure, which makes a call several times slower."""
    sys.settrace(None)
    monitoring = getattr(sys, "monitoring", None)  # Python 3.12 and later
    for tool in range(6) if monitoring else ():
        if monitoring.get_tool(tool) is not None:
            monitoring.set_events(tool, 0)


def _pickled(outcome: tuple[str, Any]) -> bytes:
    try:
        data = pickle.dumps(outcome)
        pickle.loads(data)
    except Exception as error:
        return pickle.dumps(("exceeded", f"{outcome[0]} {outcome[1]!r} does not survive pickling: {error}"))
    return data


def _watch(child: int, reading: int, seconds: float, megabytes: float) -> bytes:
    """What the process writes until it ends; kills it when it is over a bound."""
    before = _resident(child)
    spent_before, rests_since = 0.0, time.monotonic()
    written = b""
    while True:
        if select.select([reading], [], [], _POLL_SECONDS)[0]:
            piece = os.read(reading, 1 << 20)
            if not piece:
                break
            written += piece
            continue
        if (spent := _processor_seconds(child)) > seconds:
            raise BoundExceededError(f"took more than {seconds} s of processor time ({spent:.1f} s)")
        if spent > spent_before or _could_compute(child):
            spent_before, rests_since = spent, time.monotonic()
        if (rested := time.monotonic() - rests_since) > _LONGEST_REST:
            raise BoundExceededError(f"has computed nothing for {rested:.1f} s")
        if (grown := (_resident(child) - before) / _MEGABYTE) > megabytes:
            raise BoundExceededError(f"grew by {grown:.0f} MB and more; {megabytes:.0f} MB are allowed")
    _, status, usage = os.wait4(child, 0)
    if os.WIFSIGNALED(status):
        raise BoundExceededError(f"died of {signal.Signals(os.WTERMSIG(status)).name}")
    if (spent := usage.ru_utime + usage.ru_stime) > seconds:
        raise BoundExceededError(f"took {spent:.1f} s of processor time; {seconds} s are allowed")
    return written


def _outcome(written: bytes) -> Any:
    if not written:
        raise BoundExceededError("ended without an answer")
    kind, value = pickle.loads(written)
    if kind == "exceeded":
        raise BoundExceededError(value)
    if kind == "error":
        raise value
    return value


def _start_measuring_peak() -> int:
    """Bytes in memory now; the kernel's peak begins anew."""
    Path("/proc/self/clear_refs").write_text("5")
    return _resident(os.getpid())


def _peak() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))


def _resident(process: int) -> int:
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * _PAGE
    except (FileNotFoundError, ProcessLookupError):
        return 0


def _processor_seconds(process: int) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return (int(fields[11]) + int(fields[12])) / _TICKS


def _could_compute(process: int) -> bool:
    """True if a thread runs, waits for a processor on a busy machine, or waits for the disk."""
    try:
        threads = [path.read_text() for path in Path(f"/proc/{process}/task").glob("*/stat")]
    except (FileNotFoundError, ProcessLookupError):  # a thread has just ended
        return True
    return not threads or any(thread.rpartition(")")[2].split()[0] in "RD" for thread in threads)
