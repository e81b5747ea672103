"""``dagster_aws``'s S3 resource with time-outs, which it has no fields for, and one client for all of a process.

Without time-outs its client waits 60 s for each of five answers of a hung server, and never notices a dead connection.
What does not belong here: settings (``orchestration.storage.resources``). Loads boto3: import it where a run needs it.
"""

import os
import time
from collections.abc import Hashable
from typing import Any

import boto3
from dagster_aws.s3 import S3Resource

from libs.storage.backends.client import client_config

IDLE_SECONDS = 300.0
"""A client that was not asked for since is made anew: firewalls forget idle connections without saying so."""

_clients: dict[Hashable, tuple[Any, float]] = {}
"""Process and fields of the resource -> its client, and when it was last asked for."""


def shared_client(resource: "TimeLimitedS3Resource") -> Any:
    """The client of this process for the fields of ``resource``; making one takes a tenth of a second of computing."""
    key = os.getpid(), resource.model_dump_json()  # a forked process must not share connections
    now = time.monotonic()
    client, asked = _clients.get(key, (None, now))
    if client is None or now - asked > IDLE_SECONDS:
        _clients.clear()  # what other settings left
        client = resource.get_client()
    _clients[key] = client, now
    return client


class TimeLimitedS3Resource(S3Resource):
    """An ``S3Resource`` whose client has this project's time-outs, retries, checksums and signature version."""

    checksums: bool = True

    def get_client(self) -> Any:
        """A boto3 client from the same fields."""
        return boto3.session.Session(profile_name=self.profile_name).client(
            "s3",
            endpoint_url=self.endpoint_url,
            region_name=self.region_name,
            use_ssl=self.use_ssl,
            verify=self.verify,
            aws_access_key_id=self.aws_access_key_id,
            aws_secret_access_key=self.aws_secret_access_key,
            aws_session_token=self.aws_session_token,
            config=client_config(self.max_attempts, checksums=self.checksums),
        )
