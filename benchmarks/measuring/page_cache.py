"""The machine's cache of file pages: what was just written is read from memory unless it is dropped from there.

What does not belong here: the clock (``clock``), and what is read.
"""

import os
from collections.abc import Iterable
from pathlib import Path


def forget_pages(paths: Iterable[Path]) -> None:
    """Drop the files' pages from the cache, so that the next reading is one from the disk (Linux)."""
    for path in paths:
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
