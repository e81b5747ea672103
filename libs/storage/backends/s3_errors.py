"""What S3 and MinIO answer when something is wrong, in words that name the setting to change.

The client has tried again before an error arrives here.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

from libs.errors import ArtifactMissingError, StorageError, StorageUnavailableError
from libs.storage.backends.disk_errors import disk_errors_explained

MISSING_OBJECT_CODES = frozenset({"NoSuchKey", "404", "NotFound"})
REFUSED_WITHOUT_REASON_CODES = frozenset({"400", "401", "403"})
"""Where the answer had no body, botocore takes the HTTP status for a code."""

_ADVICE = {
    "NoSuchBucket": "no such bucket: `one-to-all storage prepare --apply` creates it, or correct S3_BUCKET_NAME",
    "InvalidBucketName": "this is not a valid bucket name: correct S3_BUCKET_NAME",
    "InvalidAccessKeyId": "the server does not know this access key: correct S3_ACCESS_KEY",
    "SignatureDoesNotMatch": "the secret key does not fit the access key: correct S3_SECRET_KEY",
    "AccessDenied": "access denied: give the user of S3_ACCESS_KEY read and write access to the bucket",
    "AllAccessDisabled": "access to the bucket is disabled: check S3_BUCKET_NAME",
    "403": "access denied: correct S3_ACCESS_KEY and S3_SECRET_KEY, or give that user access to the bucket",
    "401": "access denied: correct S3_ACCESS_KEY and S3_SECRET_KEY",
    "ExpiredToken": "the credentials have expired: renew S3_ACCESS_KEY and S3_SECRET_KEY",
    "RequestTimeTooSkewed": "this machine's clock is wrong by more than the server accepts: synchronise it (NTP)",
    "AuthorizationHeaderMalformed": "wrong region: correct S3_REGION",
    "PermanentRedirect": "the bucket is in another region: correct S3_REGION and S3_ENDPOINT",
    "EntityTooLarge": "the file is larger than the server accepts",
    "KeyTooLongError": "the key is too long: shorten S3_PREFIX",
    "MethodNotAllowed": "the server refuses this call: check that S3_ENDPOINT is an S3 server",
    "XMinioInvalidObjectName": "the server refuses this key",
}
_CHECKSUM_REFUSED = re.compile(r"checksum|trailer|aws-chunked|streaming-|content-sha256", re.IGNORECASE)
"""What servers without S3's newer checksums name when they refuse a request for its headers."""

_TEMPORARY = {
    "SlowDown": "the server asks for fewer requests",
    "RequestTimeout": "the server got tired of waiting for data",
    "RequestTimeTooSlow": "the server got tired of waiting for data",
    "InternalError": "the server has a fault",
    "ServiceUnavailable": "the server is not available",
    "XMinioStorageFull": "the server's disk is full",
    "XMinioServerNotInitialized": "the server is still starting",
    "TooManyRequests": "the server asks for fewer requests",
}


@contextmanager
def explained(place: str, endpoint: str) -> Iterator[None]:
    """Turn boto3's errors about ``place`` (a URI) at ``endpoint`` into storage errors.

    Raises:
        ArtifactMissingError: there is no such object.
        StorageUnavailableError: no connection, a time-out, a fault of the server's own, or it asked to slow down.
        StorageError: everything else; the message names the setting to change.
    """
    from boto3.exceptions import Boto3Error  # noqa: PLC0415 - loading the code location stays light
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415

    with disk_errors_explained(place):
        try:
            yield
        except (ClientError, BotoCoreError, Boto3Error) as error:  # some of these are OSErrors too: look at them first
            raise storage_error(place, endpoint, error) from error


def storage_error(place: str, endpoint: str, error: Exception) -> StorageError:
    """The storage error for one of boto3's errors, as :func:`explained` raises it."""
    from boto3.exceptions import RetriesExceededError  # noqa: PLC0415
    from botocore import exceptions as botocore  # noqa: PLC0415

    cause = _innermost(error)
    where = f"{place} at {endpoint}"
    if isinstance(cause, botocore.ClientError):
        return _answer(where, cause.response)
    if isinstance(cause, botocore.SSLError):
        return StorageError(f"{where}: no secure connection ({cause}); check https or http in S3_ENDPOINT")
    if isinstance(cause, botocore.NoCredentialsError | botocore.PartialCredentialsError):
        return StorageError(f"{where}: no credentials; set S3_ACCESS_KEY and S3_SECRET_KEY")
    if isinstance(cause, botocore.ParamValidationError):
        return StorageError(f"{where}: {cause}; correct S3_BUCKET_NAME or the key")
    # A download that broke off too often ends with an error of urllib3 or of none of these families.
    if isinstance(cause, botocore.BotoCoreError | OSError) or isinstance(error, RetriesExceededError):
        return StorageUnavailableError(
            f"{where}: no answer ({type(cause).__name__}: {cause}); check that the server runs and S3_ENDPOINT is right"
        )
    return StorageError(f"{where}: {cause}")


def missing_bucket(bucket: str, endpoint: str) -> StorageError:
    """The error for a bucket that is not there."""
    return StorageError(f"s3://{bucket} at {endpoint}: {_ADVICE['NoSuchBucket']}")


def error_code(error: BaseException | None) -> str:
    """The code of a server's answer, such as ``NoSuchKey``; empty for other errors."""
    response: Any = getattr(error and _innermost(error), "response", None)
    return str(response["Error"].get("Code", "")) if isinstance(response, dict) and "Error" in response else ""


def _answer(where: str, response: Any) -> StorageError:
    code = str(response["Error"].get("Code", "unknown"))
    status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    said = response["Error"].get("Message") or code
    if code in MISSING_OBJECT_CODES:
        return ArtifactMissingError(f"no object at {where}")
    if code in _TEMPORARY or (status >= 500 and status != HTTPStatus.NOT_IMPLEMENTED) or status == 429:
        return StorageUnavailableError(f"{where}: {_TEMPORARY.get(code, 'the server has a fault')} ({code}: {said})")
    return StorageError(f"{where}: {_advice(code, said)} ({code}: {said})")


def _advice(code: str, said: str) -> str:
    if code == "NotImplemented" or (code not in _ADVICE and _CHECKSUM_REFUSED.search(f"{code} {said}")):
        return "the server refuses a header of the request; if it knows no checksums, set S3_CHECKSUMS=false"
    return _ADVICE.get(code, "the server refused")


def _innermost(error: BaseException) -> BaseException:
    """The server's or connection's error inside boto3's wrappers, which chain it as cause or context."""
    from boto3.exceptions import Boto3Error  # noqa: PLC0415

    inner = getattr(error, "last_exception", None) or error.__cause__ or error.__context__
    return _innermost(inner) if isinstance(error, Boto3Error) and inner is not None else error
