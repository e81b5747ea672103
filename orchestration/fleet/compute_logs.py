"""What runs print, kept in the bucket: ``dagster_aws``'s log manager, with this project's settings and time-outs.

It uploads while a step runs, so that the UI shows the output of a run on any host. See ``orchestration.housekeeping``
for how long logs stay.
"""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, Self

import dagster as dg
from dagster_aws.s3.compute_log_manager import S3ComputeLogManager

from libs.errors import SettingsError, StorageError
from libs.settings import Settings, load_settings
from libs.storage.backends.client import create_s3_client
from libs.storage.backends.s3 import S3ObjectStore
from libs.storage.backends.s3_errors import explained
from orchestration.dagster_internals import ComputeIOType, ConfigurableClassData

FOLDER = "compute_logs"
"""Below ``S3_PREFIX`` in the bucket, and below ``DATA_DIR`` until it is uploaded."""

UPLOAD_SECONDS = 10

logger = logging.getLogger(__name__)


class BucketComputeLogManager(S3ComputeLogManager):
    """An ``S3ComputeLogManager`` for ``S3_BUCKET_NAME`` that needs no credentials in ``dagster.yaml``.

    A store that is away for a while costs no run: parts are sent again at the next turn, and Dagster notes a loss of
    the last one as an event.
    """

    def __init__(self, upload_interval: int = UPLOAD_SECONDS, inst_data: ConfigurableClassData | None = None) -> None:
        settings = _require_bucket(load_settings())
        super().__init__(
            bucket=settings.s3_bucket_name,
            local_dir=str(settings.data_dir / FOLDER),
            inst_data=inst_data,
            prefix=f"{settings.s3_prefix}/{FOLDER}",
            endpoint_url=settings.s3_endpoint,
            upload_interval=upload_interval,
            region=settings.s3_region,
        )
        # Its own client takes credentials from AWS's variables, and waits for minutes for a hung server.
        self._s3_session = create_s3_client(settings)
        self._objects = S3ObjectStore(self._s3_session, str(settings.s3_bucket_name))
        # Browsers open the addresses of whole logs, so these are signed for where browsers reach the bucket.
        self._addresses = create_s3_client(settings.changed(s3_endpoint=settings.s3_public_endpoint))

    @classmethod
    def config_type(cls) -> dict[str, Any]:
        """Seconds between two uploads of a running step; all else comes from the settings."""
        return {"upload_interval": dg.Field(int, is_required=False, default_value=UPLOAD_SECONDS)}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData, config_value: Mapping[str, Any]) -> Self:
        """Called by Dagster when it reads ``dagster.yaml``.

        Raises:
            SettingsError: no bucket is configured.
        """
        return cls(inst_data=inst_data, **config_value)

    def on_progress(self, log_key: Sequence[str]) -> None:
        """Upload what is there so far; called in a thread that an error would end for good."""
        try:
            with explained(f"s3://{self._s3_bucket}/{self._s3_prefix}", self._objects.endpoint):
                super().on_progress(log_key)
        except StorageError as error:
            logger.warning("The output so far of %s could not be uploaded: %s", "/".join(log_key), error)

    def _on_capture_complete(self, log_key: Sequence[str]) -> None:
        """Upload the whole, then remove the parts that were uploaded before; the base class leaves them for ever."""
        super()._on_capture_complete(log_key)
        for io_type in ComputeIOType:
            self._objects.delete(self._s3_key(log_key, io_type, partial=True))

    def delete_logs(self, log_key: Sequence[str] | None = None, prefix: Sequence[str] | None = None) -> None:
        """Delete the output of one capture or of whatever is below ``prefix``, here and in the bucket.

        Object by object: the call for many at once, which the base class makes, fails on MinIO before 2025 and leaves
        what is beyond a thousand.

        Raises:
            StorageError, StorageUnavailableError: the store refused, or did not answer.
        """
        self.local_manager.delete_logs(log_key=log_key, prefix=prefix)  # raises where neither is given
        parts, end = (log_key, ".") if log_key else (prefix or (), "/")
        for info in self._objects.list("/".join([self._s3_prefix, "storage", *parts]) + end):
            self._objects.delete(info.key)

    def download_url_for_type(self, log_key: Sequence[str], io_type: ComputeIOType) -> str | None:
        """A short-lived address of the whole log, made when the UI asks for it and nowhere kept."""
        if not self.is_capture_complete(log_key):
            return None
        what = {"Bucket": self._s3_bucket, "Key": self._s3_key(log_key, io_type)}
        return str(self._addresses.generate_presigned_url("get_object", Params=what))


def _require_bucket(settings: Settings) -> Settings:
    if settings.uses_s3:
        return settings
    raise SettingsError(
        "S3_ENDPOINT is not set, but this Dagster instance keeps the output of runs in the bucket: set S3_ENDPOINT, "
        "S3_ACCESS_KEY, S3_SECRET_KEY and S3_BUCKET_NAME for every process, or remove compute_logs from dagster.yaml"
    )
