"""The user as whom runs work with the bucket: created on MinIO, with the rights that runs need and no others.

S3 has no calls for users: this speaks MinIO's own interface, as its administrator. On other servers create the user by
their own means, with :func:`least_rights`. See ``preparation`` for the bucket.
"""

import json
from typing import Any
from urllib.parse import urlsplit

from libs.errors import SettingsError, StorageError, StorageUnavailableError
from libs.files.garbage_collection import garbage_collection_paused
from libs.settings import Settings
from libs.storage.backends.client import CONNECT_TIMEOUT_SECONDS, READ_TIMEOUT_SECONDS, create_s3_client
from libs.storage.backends.s3 import S3ObjectStore
from libs.storage.backends.s3_errors import explained


def least_rights(objects: S3ObjectStore) -> dict[str, Any]:
    """The policy of a user who reads, writes, lists and deletes objects of this bucket below ``S3_PREFIX``.

    It may not create or delete buckets, nor change policies, rules or users.
    """
    bucket = f"arn:aws:s3:::{objects.bucket}"
    below = f"{bucket}/{objects.prefix}/*" if objects.prefix else f"{bucket}/*"
    return {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": ["s3:GetBucketLocation", "s3:ListBucket", "s3:ListBucketMultipartUploads"],
                "Resource": [bucket],
            },
            {
                "Effect": "Allow",
                "Action": [
                    "s3:AbortMultipartUpload",
                    "s3:DeleteObject",
                    "s3:GetObject",
                    "s3:ListMultipartUploadParts",
                    "s3:PutObject",
                ],
                "Resource": [below],
            },
        ],
    }


def administrator_settings(settings: Settings) -> Settings:
    """``settings`` with MinIO's administrator in the place of the user, where one is given.

    Raises:
        SettingsError: both are the same, so that every run would be administrator.
    """
    if settings.minio_root_user is None or settings.minio_root_password is None:
        return settings
    assert settings.s3_access_key
    if settings.s3_access_key.get_secret_value() == settings.minio_root_user:
        raise SettingsError(
            "S3_ACCESS_KEY is MinIO's administrator (MINIO_ROOT_USER), and every run would be one: choose another name "
            "and secret for S3_ACCESS_KEY and S3_SECRET_KEY; that user will be created"
        )
    return settings.changed(
        s3_access_key=settings.minio_root_user, s3_secret_key=settings.minio_root_password.get_secret_value()
    )


def create_user(settings: Settings, objects: S3ObjectStore) -> str:
    """Create the user of ``S3_ACCESS_KEY``, or renew its secret and rights, and see that it gets in; its policy's name.

    Raises:
        StorageError: the server is no MinIO, or refuses the administrator.
        StorageUnavailableError: it did not answer.
    """
    from minio.error import MinioAdminException  # noqa: PLC0415 - loaded only where it is used
    from urllib3.exceptions import HTTPError  # noqa: PLC0415

    assert settings.s3_access_key and settings.s3_secret_key
    user, policy = settings.s3_access_key.get_secret_value(), f"one-to-all-{objects.bucket}-{objects.location_id}"
    place = f"users of {objects.endpoint}"
    try:
        minio = _administration(settings)
        minio.policy_add(policy, policy=least_rights(objects))
        minio.user_add(user, settings.s3_secret_key.get_secret_value())
        minio.policy_set(policy, user=user)
    except MinioAdminException as error:
        raise StorageError(f"{place}: {refusal(error)}") from error
    except HTTPError as error:
        raise StorageUnavailableError(f"{place}: no answer ({type(error).__name__}); check S3_ENDPOINT") from error
    with explained(f"s3://{objects.bucket}", objects.endpoint):
        create_s3_client(settings).head_bucket(Bucket=objects.bucket)
    return policy


def _administration(settings: Settings) -> Any:
    """A client of MinIO's administration at ``S3_ENDPOINT``."""
    import urllib3  # noqa: PLC0415
    from minio.credentials import StaticProvider  # noqa: PLC0415
    from minio.minioadmin import MinioAdmin  # noqa: PLC0415

    assert settings.minio_root_user and settings.minio_root_password
    parts = urlsplit(str(settings.s3_endpoint))
    return MinioAdmin(
        endpoint=parts.netloc,
        credentials=StaticProvider(settings.minio_root_user, settings.minio_root_password.get_secret_value()),
        region=settings.s3_region,
        secure=parts.scheme == "https",
        http_client=urllib3.PoolManager(
            timeout=urllib3.Timeout(connect=CONNECT_TIMEOUT_SECONDS, read=READ_TIMEOUT_SECONDS),
            retries=urllib3.Retry(total=5, backoff_factor=0.2, status_forcelist=[500, 502, 503, 504]),
        ),
    )


def refusal(error: Any) -> str:
    """What MinIO's answer means; it holds no secret."""
    try:
        with garbage_collection_paused():
            answer = json.loads(error._body)
        if not isinstance(answer, dict):
            raise ValueError("no object")
    except (ValueError, TypeError, RecursionError):
        return f"this is not a MinIO server (status {error._code}): create the user with the server's own tools"
    code, message = answer.get("Code", error._code), answer.get("Message", "no reason given")
    return f"MinIO refused ({code}: {message}); check MINIO_ROOT_USER, MINIO_ROOT_PASSWORD and the two of S3_ACCESS_KEY"
