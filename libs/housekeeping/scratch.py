"""Scratch folders that killed runs left on the disk of the machine they ran on.

See ``libs.storage.cache`` for the copies of artifacts there, which have a limit of their own.
"""

import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from shutil import rmtree


def old_scratch(folder: Path, older_than: timedelta, now: float | None = None) -> Iterator[Path]:
    """The scratch folders in which nothing was written for ``older_than``; ``now`` in seconds since the epoch."""
    limit = (time.time() if now is None else now) - older_than.total_seconds()
    for scratch in sorted(folder.iterdir()) if folder.is_dir() else []:
        if _newest_change(scratch) < limit:
            yield scratch


def remove_old_scratch(folder: Path, older_than: timedelta, now: float | None = None) -> list[Path]:
    """Remove them, and say which."""
    old = list(old_scratch(folder, older_than, now))
    for scratch in old:
        rmtree(scratch, ignore_errors=True)
    return old


def _newest_change(scratch: Path) -> float:
    newest = 0.0
    for path in (scratch, *scratch.rglob("*")):
        with suppress(FileNotFoundError):  # its run goes on
            newest = max(newest, path.lstat().st_mtime)
    return newest
