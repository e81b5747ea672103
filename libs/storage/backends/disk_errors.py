"""What the local disk answers when something is wrong, in words that say what to do.

See ``s3_errors`` for answers of a bucket's server.
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from libs.errors import StorageError, StorageUnavailableError

_DISK_IN_TROUBLE = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE})
_WORTH_RETRYING = _DISK_IN_TROUBLE | {errno.EAGAIN, errno.ETIMEDOUT}


@contextmanager
def disk_errors_explained(place: str) -> Iterator[None]:
    """Turn errors of the file system while working on ``place`` into storage errors; missing files stay as they are.

    Raises:
        StorageUnavailableError: the disk is full or does not answer.
        StorageError: no permission, a folder where a file should be, and the like.
    """
    try:
        yield
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno in _WORTH_RETRYING:
            raise StorageUnavailableError(f"{place}: {_said(error)}; free space or check the disk") from error
        raise StorageError(f"{place}: {_said(error)}; check the permissions below DATA_DIR") from error


def disk_in_trouble(error: OSError) -> str | None:
    """What to do where ``error``, of any file, says that a disk is full or broken; None where it does not."""
    return f"{_said(error)}; free space or check the disk" if error.errno in _DISK_IN_TROUBLE else None


def _said(error: OSError) -> str:
    return f"{error.strerror} ({error.filename})" if error.filename else str(error.strerror)
