"""The store that the settings describe: a bucket, or a folder in its place."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from libs.settings import Settings
from libs.storage.artifacts import ArtifactStore
from libs.storage.backends.client import create_s3_client
from libs.storage.backends.folder import FolderObjectStore
from libs.storage.backends.store import ObjectStore

if TYPE_CHECKING:
    from libs.storage.backends.s3 import S3ObjectStore

MakeClient = Callable[[Settings], Any]
"""``create_s3_client``, or ``shared_s3_client`` where many stores are opened in one process."""


def objects_from_settings(settings: Settings, make_client: MakeClient = create_s3_client) -> ObjectStore:
    """The bucket ``S3_BUCKET_NAME``, or the folder below ``DATA_DIR`` when no ``S3_ENDPOINT`` is set.

    Raises:
        SettingsError: ``S3_ENDPOINT`` is no address.
    """
    if not settings.uses_s3 or settings.s3_bucket_name is None:
        return FolderObjectStore(settings.artifacts_dir)
    return bucket_from_settings(settings, make_client)


def bucket_from_settings(settings: Settings, make_client: MakeClient = create_s3_client) -> "S3ObjectStore":
    """The bucket ``S3_BUCKET_NAME``; S3 must be configured.

    Raises:
        SettingsError: ``S3_ENDPOINT`` is no address.
    """
    from libs.storage.backends.s3 import S3ObjectStore  # noqa: PLC0415 - boto3 is loaded only where it is used

    assert settings.s3_bucket_name is not None, "the settings have a bucket wherever they have an endpoint"
    return S3ObjectStore(make_client(settings), settings.s3_bucket_name, settings.s3_prefix)


def store_from_settings(settings: Settings, make_client: MakeClient = create_s3_client) -> ArtifactStore:
    """The artifact store of :func:`objects_from_settings`, with its local cache below ``DATA_DIR``.

    Raises:
        SettingsError: ``S3_ENDPOINT`` is no address.
    """
    return ArtifactStore(objects_from_settings(settings, make_client), settings.artifact_cache_dir)
