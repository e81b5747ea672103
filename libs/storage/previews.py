"""Previews at addresses that do not expire: copies of small files below ``previews/``, which everybody may read.

A preview's address holds the digest of its content and cannot be listed or guessed, only passed on; its content never
changes. See ``sharing`` for clips.
"""

import json
from typing import Any
from urllib.parse import quote

from libs.errors import StorageError
from libs.files.garbage_collection import garbage_collection_paused
from libs.messages.printable import printable
from libs.storage.artifacts import IMMUTABLE, ArtifactFiles
from libs.storage.backends.s3 import S3ObjectStore
from libs.storage.backends.s3_errors import error_code, explained
from libs.storage.manifest import Manifest

PREVIEWS_PREFIX = "previews"

_STATEMENT_ID = "OneToAllPreviews"


class PublicPreviews:
    """The previews in a bucket that browsers reach at ``address`` (``S3_PUBLIC_ENDPOINT``)."""

    def __init__(self, objects: S3ObjectStore, address: str) -> None:
        self._objects = objects
        self._address = address.rstrip("/")

    def publish(self, manifest: Manifest, files: ArtifactFiles) -> dict[str, str]:
        """Store copies of ``files.previews``; name -> address.

        Raises:
            StorageError, StorageUnavailableError: the store refused, or did not answer.
        """
        addresses = {}
        for name in files.previews:
            stored, local = manifest.file(name), files.files[name]
            key = f"{PREVIEWS_PREFIX}/{stored.key}"
            self._objects.put_file(key, local.path, local.sha256, local.content_type, IMMUTABLE)
            addresses[name] = f"{self._address}/{self._objects.bucket}/{quote(self._objects.full_key(key))}"
        return addresses


def public_read_statement(objects: S3ObjectStore) -> dict[str, Any]:
    """The statement of a bucket policy that lets everybody read previews, and nothing else; no listing.

    The pattern ends with ``/*``, so nothing that is merely called ``previews...`` is public. ``S3_PREFIX`` holds no
    character that policies take for a pattern (``libs.settings`` sees to that).
    """
    return {
        "Sid": f"{_STATEMENT_ID}{objects.location_id}",
        "Effect": "Allow",
        "Principal": {"AWS": ["*"]},
        "Action": ["s3:GetObject"],
        "Resource": [f"arn:aws:s3:::{objects.bucket}/{objects.full_key(PREVIEWS_PREFIX)}/*"],
    }


def allow_public_reading(objects: S3ObjectStore) -> dict[str, Any]:
    """Add the statement to the bucket's policy, keeping the others; the policy as it is afterwards.

    Raises:
        StorageError: the user of ``S3_ACCESS_KEY`` may not change policies.
    """
    policy, ours = current_policy(objects), public_read_statement(objects)
    others = [statement for statement in policy["Statement"] if statement.get("Sid") != ours["Sid"]]
    policy["Statement"] = [*others, ours]
    with explained(f"policy of s3://{objects.bucket}", objects.endpoint):
        objects.client.put_bucket_policy(Bucket=objects.bucket, Policy=json.dumps(policy))
    return policy


def current_policy(objects: S3ObjectStore) -> dict[str, Any]:
    """The bucket's policy; an empty one if it has none."""
    try:
        with explained(f"policy of s3://{objects.bucket}", objects.endpoint):
            text = objects.client.get_bucket_policy(Bucket=objects.bucket)["Policy"]
    except StorageError as error:
        if error_code(error.__cause__) != "NoSuchBucketPolicy":
            raise
        return {"Version": "2012-10-17", "Statement": []}
    try:
        with garbage_collection_paused():
            policy = dict(json.loads(text))
        statements = policy.get("Statement", [])
        policy["Statement"] = [dict(entry) for entry in ([statements] if isinstance(statements, dict) else statements)]
    except (ValueError, TypeError, RecursionError):
        raise StorageError(
            f"policy of s3://{objects.bucket}: is not a policy ({printable(repr(text))}); correct it"
        ) from None
    return policy
