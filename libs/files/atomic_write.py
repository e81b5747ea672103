"""Write a file under a temporary name and put it in place in one step.

Readers see the old file or the whole new one, never a part.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL_SUFFIX = ".partial"


@contextmanager
def atomic_write(path: Path, staging: Path | None = None) -> Iterator[Path]:
    """Yield a temporary path; when the block ends, flush that file to disk and rename it to ``path``.

    The temporary file is in ``staging``, a folder of the same file system, or beside ``path``. When the block raises,
    it is removed and ``path`` stays as it was. Missing folders are created. The block must create the file. A process
    that is killed leaves a hidden ``.<name>.*.partial`` file, which no reader mistakes for the real one.
    """
    folder = path.parent if staging is None else staging
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}{PARTIAL_SUFFIX}"
    try:
        yield temporary
        flush_to_disk(temporary)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    flush_to_disk(path.parent)


def write_bytes_atomically(path: Path, data: bytes) -> None:
    """Replace the content of ``path`` by ``data`` in one step."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(data)


def flush_to_disk(path: Path) -> None:
    """Force a file's bytes, or a folder's entries, to disk, so that a power cut cannot undo a finished write."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
