"""The store that the settings describe: one function for the command line, tests and tools.

What does not belong here: Dagster's way to the same store (``orchestration.storage.resources``).
"""

from libs.settings import Settings
from libs.storage.artifacts import ArtifactStore
from libs.storage.backends.folder import FolderObjectStore
from libs.storage.backends.store import ObjectStore


def objects_from_settings(settings: Settings) -> ObjectStore:
    """The bucket ``S3_BUCKET_NAME``, or the folder below ``DATA_DIR`` when no ``S3_ENDPOINT`` is set."""
    if not settings.uses_s3 or settings.s3_bucket_name is None:
        return FolderObjectStore(settings.artifacts_dir)
    from libs.storage.backends.client import create_s3_client  # noqa: PLC0415 - boto3 is loaded only where it is used
    from libs.storage.backends.s3 import S3ObjectStore  # noqa: PLC0415

    return S3ObjectStore(create_s3_client(settings), settings.s3_bucket_name, settings.s3_prefix)


def store_from_settings(settings: Settings) -> ArtifactStore:
    """The artifact store of :func:`objects_from_settings`, with its local cache below ``DATA_DIR``.

    Raises:
        SettingsError: ``S3_ENDPOINT`` is no address.
    """
    return ArtifactStore(objects_from_settings(settings), settings.artifact_cache_dir)
