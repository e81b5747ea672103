"""``dagster_aws``'s S3 resource with time-outs, which it has no fields for.

Without them its client waits 60 s for each of five answers of a hung server, and never notices a dead connection. What
does not belong here: settings (``orchestration.storage.resources``). Loads boto3: import it where a run needs it.
"""

from typing import Any

import boto3
from dagster_aws.s3 import S3Resource

from libs.storage.backends.client import client_config


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
