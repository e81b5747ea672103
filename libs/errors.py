"""The errors of this project, and the one question a caller asks of them: is it worth trying again?

Every error a person may see derives from :class:`OneToAllError`. ``retryable`` is True only where the same call with
the same input may succeed later (a server that was away, a disk that was full). ``orchestration`` turns the others into
``dg.Failure(allow_retries=False)``. Messages name the file or field, what was expected, and the way out.
"""

import re
from typing import ClassVar


class OneToAllError(Exception):
    """Base of all errors raised on purpose by ``libs``."""

    retryable: ClassVar[bool] = False


class SettingsError(OneToAllError):
    """A setting is missing, contradictory or out of range; the message names the environment variable."""


class InputError(OneToAllError):
    """What a person handed in (a request, a field, an option) cannot be used."""


class MediaError(InputError):
    """A picture or a video cannot be read, or its size, length or format is unusable."""


class PoseError(InputError):
    """The pose stage cannot give a sensible result for these pictures (no person, no usable skeleton)."""


class ModelFilesError(OneToAllError):
    """A model repository is incomplete, or its files differ from what they should be."""


class DiskFullError(ModelFilesError):
    """The disk has no room for the files of a model repository; what was fetched is kept for the next try."""

    retryable: ClassVar[bool] = True


class DeviceError(OneToAllError):
    """The device asked for is not there, or an accelerator fell back to the CPU silently."""


class DeviceOutOfMemoryError(DeviceError):
    """The accelerator's memory did not suffice; a smaller chunk plan may fit."""


_NO_MEMORY = re.compile(
    r"out of memory|_ALLOC_FAILED|ALLOCATION_FAILED|can.t allocate memory|failed to allocate memory"
    r"|is smaller than requested bytes",
    re.IGNORECASE,
)
"""Words of CUDA and NCCL, cuBLAS and cuDNN, torch on the CPU, and onnxruntime, in this order."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a library's error says that a device, or this machine, has too little memory for what was asked.

    Only the allocator of torch has a class for that. The driver, cuBLAS, cuDNN, Triton and onnxruntime raise general
    errors and say it in their text. Errors of this project are never meant: they say by their class what they are.
    """
    if isinstance(error, MemoryError) or any(kind.__name__ == "OutOfMemoryError" for kind in type(error).__mro__):
        return True
    from_a_library = isinstance(error, RuntimeError) or type(error).__module__.partition(".")[0] == "onnxruntime"
    return from_a_library and _NO_MEMORY.search(str(error)) is not None


class RankError(DeviceError):
    """A process of an engine that spans several devices ended, or failed unexpectedly; all of them were ended."""

    retryable: ClassVar[bool] = True


class StorageError(OneToAllError):
    """An artifact cannot be stored or loaded, and trying again will not help (missing bucket, wrong key)."""


class ArtifactMissingError(StorageError):
    """Nothing is stored under this asset and partition."""


class ArtifactCorruptError(StorageError):
    """A stored object no longer has the digest its manifest records."""


class StorageUnavailableError(StorageError):
    """The object store did not answer, or answered with a fault of its own: worth trying again."""

    retryable: ClassVar[bool] = True


class HubError(OneToAllError):
    """A model hub refused for good (401, 404, other bytes for a pinned revision)."""


class HubUnavailableError(HubError):
    """A model hub did not answer or asked to wait (429, 5xx, a cut connection): worth trying again.

    ``retry_after`` are the seconds it asked to wait, if it did.
    """

    retryable: ClassVar[bool] = True

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
