"""boto3 clients for S3 or MinIO: the time-outs and retries of all of them, a new one, and one shared by a process.

Without time-outs a client waits 60 s for each of five answers of a hung server, and never notices a dead connection.
"""

import os
import threading
import time
from collections.abc import Hashable
from typing import Any

from libs.errors import SettingsError
from libs.settings import Settings

CONNECT_TIMEOUT_SECONDS = 10
READ_TIMEOUT_SECONDS = 30
"""Without a single byte; a slow answer may take as long as it likes."""

ATTEMPTS = 5
"""Of each request, with growing pauses (botocore's standard mode): a hung server is given up after 2 to 3 minutes."""


IDLE_SECONDS = 300.0
"""Seconds after which an unused shared client is replaced: firewalls drop idle connections silently."""

_shared: dict[Hashable, tuple[Any, float]] = {}
"""Process and settings -> its client, and when it was last asked for."""
_lock = threading.Lock()


def client_config(attempts: int = ATTEMPTS, *, checksums: bool = True) -> Any:
    """The ``botocore.config.Config`` of every client of this project.

    Args:
        attempts: how often each request is sent at most.
        checksums: send checksums with uploads and ask for them with downloads. Without them the server still verifies
            each body, by its digest in the signature.
    """
    from botocore.config import Config  # noqa: PLC0415 - loading the code location stays light

    checksum_use: Any = "when_supported" if checksums else "when_required"
    return Config(
        request_checksum_calculation=checksum_use,
        response_checksum_validation=checksum_use,
        s3=None if checksums else {"payload_signing_enabled": True},
        connect_timeout=CONNECT_TIMEOUT_SECONDS,
        read_timeout=READ_TIMEOUT_SECONDS,
        retries={"mode": "standard", "total_max_attempts": attempts},
        tcp_keepalive=True,
        signature_version="s3v4",  # for presigned addresses boto3 would still choose the old one
    )


def create_s3_client(settings: Settings) -> Any:
    """A boto3 S3 client for ``S3_ENDPOINT`` and its credentials.

    Raises:
        SettingsError: no S3 is configured, or ``S3_ENDPOINT`` is no address.
    """
    import boto3.session  # noqa: PLC0415 - takes a third of a second; only those who store need it

    if settings.s3_endpoint is None or settings.s3_access_key is None or settings.s3_secret_key is None:
        raise SettingsError("S3_ENDPOINT is not set: artifacts go to a folder below DATA_DIR")
    try:
        return boto3.session.Session().client(  # the default session is not for several threads
            "s3",
            endpoint_url=settings.s3_endpoint,
            region_name=settings.s3_region,
            aws_access_key_id=settings.s3_access_key.get_secret_value(),
            aws_secret_access_key=settings.s3_secret_key.get_secret_value(),
            config=client_config(checksums=settings.s3_checksums),
        )
    except ValueError as error:
        raise SettingsError(
            f"S3_ENDPOINT={settings.s3_endpoint!r} is not an address ({error}); expected http://host:port"
        ) from error


def shared_s3_client(settings: Settings) -> Any:
    """The client of this process for these settings: making one takes a tenth of a second of computing.

    Raises:
        SettingsError: as :func:`create_s3_client`.
    """
    secret = settings.s3_secret_key.get_secret_value() if settings.s3_secret_key else None
    access = settings.s3_access_key.get_secret_value() if settings.s3_access_key else None
    fields = settings.s3_endpoint, settings.s3_region, access, secret, settings.s3_checksums
    key = os.getpid(), fields  # a forked process must not share connections
    with _lock:
        now = time.monotonic()
        client, asked = _shared.get(key, (None, now))
        if client is None or now - asked > IDLE_SECONDS:
            _shared.clear()  # what other settings left
            client = create_s3_client(settings)
        _shared[key] = client, now
    return client
