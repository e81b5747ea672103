"""The errors of this project, and the one question a caller asks of them: is it worth trying again?

Every error a person may see derives from :class:`OneToAllError`. ``retryable`` is True only where the same call with
the same input may succeed later (a server that was away, a disk that was full). ``orchestration`` turns the others into
``dg.Failure(allow_retries=False)``. Messages name the file or field, what was expected, and the way out.

What does not belong here: errors that no caller can tell apart from their base class.
"""

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
