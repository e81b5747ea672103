"""Which faults of servers and disks are worth trying again, and which are final."""

import errno
import os
from typing import Any

import pytest
from boto3.exceptions import Boto3Error, RetriesExceededError, S3UploadFailedError
from botocore import exceptions as botocore

from libs.errors import ArtifactMissingError, StorageError, StorageUnavailableError
from libs.storage.backends.disk_errors import disk_errors_explained, disk_in_trouble
from libs.storage.backends.s3_errors import explained, storage_error


def answer(code: str | None, status: int) -> botocore.ClientError:
    error = {} if code is None else {"Code": code, "Message": "not today"}
    return botocore.ClientError({"Error": error, "ResponseMetadata": {"HTTPStatusCode": status}}, "Call")  # type: ignore[typeddict-item]


def wrapped(inner: Exception) -> Exception:
    """As boto3's transfers hand an error on."""
    try:
        try:
            raise inner
        except type(inner) as error:
            raise S3UploadFailedError("upload failed") from error
    except S3UploadFailedError as outer:
        return outer


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (answer("RequestTimeout", 400), StorageUnavailableError, "tired of waiting"),
        (answer("RequestTimeTooSlow", 400), StorageUnavailableError, "tired of waiting"),
        (answer("SlowDown", 400), StorageUnavailableError, "fewer requests"),
        (answer("TooManyRequests", 400), StorageUnavailableError, "fewer requests"),
        (answer("InternalError", 200), StorageUnavailableError, "has a fault"),
        (answer("ServiceUnavailable", 200), StorageUnavailableError, "not available"),
        (answer("XMinioServerNotInitialized", 400), StorageUnavailableError, "still starting"),
        (answer("XMinioStorageFull", 400), StorageUnavailableError, "disk is full"),
        (answer("Odd", 429), StorageUnavailableError, "has a fault (Odd: not today)"),
        (answer("Odd", 500), StorageUnavailableError, "has a fault"),
        (answer("Odd", 499), StorageError, "refused (Odd: not today)"),
        (answer(None, 418), StorageError, "refused (unknown: unknown)"),
        (answer("NoSuchKey", 404), ArtifactMissingError, "no object at"),
        (answer("NoSuchBucket", 404), StorageError, "S3_BUCKET_NAME"),
        (wrapped(answer("SlowDown", 503)), StorageUnavailableError, "fewer requests"),
        (wrapped(answer("AccessDenied", 403)), StorageError, "S3_ACCESS_KEY"),
        (wrapped(ConnectionResetError("reset")), StorageUnavailableError, "ConnectionResetError"),
        (botocore.SSLError(endpoint_url="e", error="no"), StorageError, "https or http in S3_ENDPOINT"),
        (botocore.NoCredentialsError(), StorageError, "set S3_ACCESS_KEY"),
        (botocore.PartialCredentialsError(provider="p", cred_var="c"), StorageError, "set S3_ACCESS_KEY"),
        (botocore.ParamValidationError(report="r"), StorageError, "correct S3_BUCKET_NAME"),
        (botocore.ConnectTimeoutError(endpoint_url="e"), StorageUnavailableError, "no answer"),
        (RetriesExceededError(ValueError("cut off")), StorageUnavailableError, "cut off"),
        (Boto3Error("odd"), StorageError, "odd"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_what_a_server_says_is_final_or_not(error: Exception, kind: type[StorageError], words: str) -> None:
    found = storage_error("s3://bucket/key", "http://server", error)
    assert type(found) is kind
    assert words in str(found)
    assert "s3://bucket/key at http://server" in str(found)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.EAGAIN, errno.ETIMEDOUT])
@pytest.mark.parametrize("place", [disk_errors_explained, lambda place: explained(place, "http://server")])
def test_a_disk_in_trouble_is_worth_trying_again(number: int, place: Any) -> None:
    with pytest.raises(StorageUnavailableError, match=r"^here: .*\(/f\); free space or check the disk"), place("here"):
        raise OSError(number, os.strerror(number), "/f")


@pytest.mark.parametrize("number", [errno.EACCES, errno.EISDIR, errno.EROFS, errno.ENAMETOOLONG])
def test_a_disk_that_refuses_is_final(number: int) -> None:
    error = OSError(number, "no")
    with (
        pytest.raises(StorageError, match=r"^here: no; check the permissions") as caught,
        disk_errors_explained("here"),
    ):
        raise error
    assert not caught.value.retryable
    assert disk_in_trouble(error) is None


def test_a_missing_file_stays_what_it_is() -> None:
    with pytest.raises(FileNotFoundError), disk_errors_explained("here"):
        raise FileNotFoundError(errno.ENOENT, "no", "/f")


@pytest.mark.parametrize("number", [errno.EAGAIN, errno.ETIMEDOUT])
def test_a_disk_that_is_only_slow_is_not_in_trouble(number: int) -> None:
    assert disk_in_trouble(OSError(number, "no")) is None
    assert disk_in_trouble(OSError(errno.ENOSPC, "no")) == "no; free space or check the disk"
