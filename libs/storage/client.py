"""A boto3 client from the settings, for use without Dagster (command line, tests).

Runs get theirs from ``dagster_aws``. What does not belong here: what is done with the client (``s3``).
"""

from typing import Any

from libs.errors import SettingsError
from libs.settings import Settings

CONNECT_TIMEOUT_SECONDS = 10
READ_TIMEOUT_SECONDS = 60
ATTEMPTS = 5
"""Of each request, with growing pauses (botocore's standard mode)."""


def create_s3_client(settings: Settings) -> Any:
    """A boto3 S3 client for ``S3_ENDPOINT`` and its credentials.

    Raises:
        SettingsError: no S3 is configured, or ``S3_ENDPOINT`` is no address.
    """
    import boto3  # noqa: PLC0415 - takes a third of a second; only those who store need it
    from botocore.config import Config  # noqa: PLC0415

    if settings.s3_endpoint is None or settings.s3_access_key is None or settings.s3_secret_key is None:
        raise SettingsError("S3_ENDPOINT is not set: artifacts go to a folder below DATA_DIR")
    try:
        return boto3.client(
            "s3",
            endpoint_url=settings.s3_endpoint,
            region_name=settings.s3_region,
            aws_access_key_id=settings.s3_access_key.get_secret_value(),
            aws_secret_access_key=settings.s3_secret_key.get_secret_value(),
            config=Config(
                connect_timeout=CONNECT_TIMEOUT_SECONDS,
                read_timeout=READ_TIMEOUT_SECONDS,
                retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
                tcp_keepalive=True,
            ),
        )
    except ValueError as error:
        raise SettingsError(
            f"S3_ENDPOINT={settings.s3_endpoint!r} is not an address ({error}); expected http://host:port"
        ) from error
