"""Makes a bucket ready: the bucket itself, its policy for previews, and the rule that removes old chunks.

Everything may be done again at any time, and what others have set up in the bucket stays. See ``minio_user`` for the
user that works with the bucket.
"""

from collections.abc import Iterator
from math import ceil
from typing import Any

from libs.errors import ArtifactMissingError, StorageError
from libs.settings import Settings
from libs.storage.backends.keys import CHUNKS_PREFIX
from libs.storage.backends.s3 import S3ObjectStore
from libs.storage.backends.s3_errors import error_code, explained
from libs.storage.previews import allow_public_reading

_RULE_ID = "one-to-all-chunks"

_NO_RULES = "NoSuchLifecycleConfiguration"
_NOT_OFFERED = frozenset({"NotImplemented", "MethodNotAllowed", "MissingContentMD5"})
"""Answers of servers without lifecycle rules; MinIO before 2025-01-20 does not take boto3's way of asking."""


def prepare_bucket(objects: S3ObjectStore, settings: Settings) -> Iterator[str]:
    """Set up what is missing; yields a line for each finished step.

    Raises:
        StorageError: the user of ``objects`` may not do it; that of MinIO's administrator may.
        StorageUnavailableError: the server did not answer.
    """
    yield f"bucket {objects.bucket}: {'created' if create_bucket(objects, settings.s3_region) else 'is there'}"
    if settings.s3_public_endpoint:
        allow_public_reading(objects)
        yield "previews: everybody may read them, nobody may list them"
    else:
        yield "previews: not published, since S3_PUBLIC_ENDPOINT is not set"
    days = chunk_days(settings)
    if expire_chunks(objects, days):
        yield f"chunks: the server removes them after {days} days"
    else:
        yield "chunks: this server offers no lifecycle rules; switch on the schedule remove_old_chunks_daily"


def create_bucket(objects: S3ObjectStore, region: str) -> bool:
    """True if the bucket was created now, False if it was there.

    Raises:
        StorageError: it may not be created, or belongs to somebody else.
    """
    place = f"s3://{objects.bucket}"
    try:
        with explained(place, objects.endpoint):
            objects.client.head_bucket(Bucket=objects.bucket)
            return False
    except ArtifactMissingError:  # 404: what is missing is the bucket
        where = {} if region == "us-east-1" else {"CreateBucketConfiguration": {"LocationConstraint": region}}
        with explained(place, objects.endpoint):
            objects.client.create_bucket(Bucket=objects.bucket, **where)
        return True


def chunk_days(settings: Settings) -> int:
    """``CHUNK_MAX_AGE_DAYS`` in whole days, as rules want them."""
    return ceil(settings.chunk_max_age_days)


def chunk_rule(objects: S3ObjectStore, days: int) -> dict[str, Any]:
    """The lifecycle rule that removes the chunks of abandoned clips.

    It looks at each chunk alone: ``days`` must be more than a clip takes. A chunk that goes too early is made again.
    """
    return {
        "ID": f"{_RULE_ID}-{objects.location_id}",
        "Status": "Enabled",
        "Filter": {"Prefix": f"{objects.full_key(CHUNKS_PREFIX)}/"},
        "Expiration": {"Days": days},
    }


def expire_chunks(objects: S3ObjectStore, days: int) -> bool:
    """Add or renew the rule, keeping the others; False if the server offers no such rules.

    Raises:
        StorageError: the user may not change rules.
    """
    place = f"lifecycle rules of s3://{objects.bucket}"
    try:
        ours = chunk_rule(objects, days)
        others = [rule for rule in _current_rules(objects, place) if rule.get("ID") != ours["ID"]]
        with explained(place, objects.endpoint):
            objects.client.put_bucket_lifecycle_configuration(
                Bucket=objects.bucket, LifecycleConfiguration={"Rules": [*others, ours]}
            )
    except StorageError as error:
        if error_code(error.__cause__) in _NOT_OFFERED:
            return False
        raise
    return True


def _current_rules(objects: S3ObjectStore, place: str) -> list[dict[str, Any]]:
    try:
        with explained(place, objects.endpoint):
            answer = objects.client.get_bucket_lifecycle_configuration(Bucket=objects.bucket)
            return list(answer.get("Rules", []))
    except StorageError as error:
        if error_code(error.__cause__) == _NO_RULES:
            return []
        raise
