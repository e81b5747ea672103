"""What the local disk answers when something is wrong, in words that say what to do.

What does not belong here: answers of a bucket's server (``s3_errors``).
"""

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from libs.errors import StorageError, StorageUnavailableError

_WORTH_RETRYING = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ETIMEDOUT})


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
        file = f" ({error.filename})" if error.filename else ""
        if error.errno in _WORTH_RETRYING:
            raise StorageUnavailableError(f"{place}: {error.strerror}{file}; free space or check the disk") from error
        raise StorageError(f"{place}: {error.strerror}{file}; check the permissions below DATA_DIR") from error
