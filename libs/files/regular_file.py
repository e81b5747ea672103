"""Opening what should be an ordinary file, when it may be anything: opening a named pipe would wait for ever."""

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from libs.errors import ModelFilesError

_KINDS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


@contextmanager
def open_regular(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """The file ``path`` leads to, opened for reading, and its size.

    Raises:
        FileNotFoundError: there is no such file.
        ModelFilesError: not a regular file (a folder, a pipe, a device), or nothing that can be opened has this name.
        OSError: it cannot be read.
    """
    problem = why_not_regular(path)
    if problem is not None:
        raise ModelFilesError(f"{path}: {problem}")
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):  # replaced since it was looked at
            raise ModelFilesError(f"{path}: is {_kind(status.st_mode)}, not a file")
        yield file, status.st_size


def why_not_regular(path: Path) -> str | None:
    """What is wrong with ``path``, as the end of a sentence; None for a file, and where there is nothing at all."""
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return None
    except ValueError:  # a NUL, half of a surrogate pair
        return "is no name that a file can have"
    except OSError as error:
        return f"cannot be opened ({error.strerror})"
    return None if stat.S_ISREG(mode) else f"is {_kind(mode)}, not a file"


def _kind(mode: int) -> str:
    return next((name for test, name in _KINDS if test(mode)), "something else")
