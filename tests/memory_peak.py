"""The peak of a process's resident memory, for programs that tests run in an interpreter of their own."""

from pathlib import Path


def peak_bytes() -> int:
    """Of this process, ever. Not getrusage's, which begins with the peak of the process that started this one."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
