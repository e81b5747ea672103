"""A bucket of S3 or MinIO as an object store, through a boto3 client made elsewhere.

See ``client`` for credentials and time-outs, ``s3_errors`` for what errors mean.
"""

import hashlib
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from libs.errors import ArtifactMissingError, StorageError, StorageUnavailableError
from libs.files.atomic_write import atomic_write
from libs.storage.backends.keys import check_key
from libs.storage.backends.s3_errors import (
    MISSING_OBJECT_CODES,
    REFUSED_WITHOUT_REASON_CODES,
    error_code,
    explained,
    missing_bucket,
)
from libs.storage.backends.store import ObjectInfo

_PART_BYTES = 8 << 20
_PAUSES_OF_A_LOST_FOLDER = (0.01, 0.05, 0.2, 0.5)
_PARTS_AT_ONCE = 4
"""Memory of one transfer: parts at once times part size, 32 MiB."""

_OTHER_VERSION_CODES = frozenset({"PreconditionFailed", "412", "ConditionalRequestConflict", "409"})
_CONDITION_UNKNOWN_CODES = frozenset({"NotImplemented", "501", "InvalidArgument", "InvalidRequest", "400"})
"""Answers of servers that do not know a condition; most of those take the request as if there were none."""

_TRIAL_PREFIX = "requests/claims"
"""What a process that died leaves of its trial of a conditional delete goes with the claims of such processes."""

_NO_VERSION = '"00000000000000000000000000000000"'

_DIGEST_METADATA = "sha256"
_LOCATION_DIGITS = 8


class S3ObjectStore:
    """See :class:`libs.storage.backends.store.ObjectStore`.

    ``client`` is a boto3 S3 client, for example of ``dagster_aws.s3.S3Resource``; the bucket must exist; ``prefix`` is
    put before every key. Large files go up in parts with a SHA-256 checksum each, which the server verifies (none where
    the client sends checksums only when required); an object appears when all parts are there. The digest of the whole
    is kept as metadata ``sha256``. Safe to use from several threads.
    """

    def __init__(self, client: Any, bucket: str, prefix: str = "") -> None:
        self.client = client
        self.bucket = bucket
        self.prefix = prefix.strip("/")
        self._bucket_seen = False
        self._knows_conditional_deletes = True
        self._heeds_conditional_deletes: bool | None = None

    def put_file(
        self, key: str, path: Path, sha256: str, content_type: str, cache_control: str | None = None
    ) -> ObjectInfo:
        """See the protocol; the stored size is compared with the file's afterwards.

        Raises:
            StorageUnavailableError: the server stored another number of bytes.
        """
        arguments = {"ContentType": content_type, "Metadata": {_DIGEST_METADATA: sha256}, **self._checksum}
        if cache_control:
            arguments["CacheControl"] = cache_control
        size = path.stat().st_size
        with self._explained(key):
            self._put(lambda: self._upload(path, key, arguments))
        stored = self.head(key)
        if stored is None or stored.size != size:
            held = "nothing" if stored is None else f"{stored.size} bytes"
            raise StorageUnavailableError(f"{self.uri(key)}: sent {size} bytes, the server holds {held}; try again")
        return stored

    def _upload(self, path: Path, key: str, arguments: dict[str, Any]) -> None:
        """Like the client's ``upload_file``, but the server's error leaves it as it is.

        boto3's wrapper may lose the error that it wraps: while the transfer still ends in its thread, boto3 raises that
        error once more on its way out, and Python cuts the chain rather than make it a circle.
        """
        from boto3.exceptions import S3UploadFailedError  # noqa: PLC0415 - loading the code location stays light
        from boto3.s3.transfer import S3Transfer  # noqa: PLC0415

        with S3Transfer(self.client, self._transfer_config) as transfer:
            try:
                transfer.upload_file(str(path), self.bucket, self.full_key(key), extra_args=arguments)
            except S3UploadFailedError as error:
                raise error.__context__ or error from None

    def put_bytes(self, key: str, data: bytes, content_type: str = "application/octet-stream") -> ObjectInfo:
        """See the protocol."""
        digest = hashlib.sha256(data).hexdigest()
        with self._explained(key):
            self._put(
                lambda: self.client.put_object(
                    Bucket=self.bucket,
                    Key=self.full_key(key),
                    Body=data,
                    ContentType=content_type,
                    Metadata={_DIGEST_METADATA: digest},
                    **self._checksum,
                )
            )
        return ObjectInfo(key, len(data), datetime.now(UTC), digest, content_type)

    @staticmethod
    def _put(put: Callable[[], object]) -> None:
        """Call ``put``, again where the server answers that there is no such object.

        A server that keeps objects as files does so when another process removes the last object of a folder just then.
        """
        from boto3.exceptions import Boto3Error  # noqa: PLC0415
        from botocore.exceptions import ClientError  # noqa: PLC0415

        for seconds in _PAUSES_OF_A_LOST_FOLDER:
            try:
                put()
            except (ClientError, Boto3Error) as error:
                if error_code(error) != "NoSuchKey":
                    raise
                time.sleep(seconds)
            else:
                return
        put()

    def get_file(self, key: str, destination: Path) -> None:
        """See the protocol."""
        with self._explained(key), atomic_write(destination) as temporary:
            self.client.download_file(self.bucket, self.full_key(key), str(temporary), Config=self._transfer_config)

    def get_bytes(self, key: str) -> bytes:
        """See the protocol."""
        with self._explained(key):
            return bytes(self.client.get_object(Bucket=self.bucket, Key=self.full_key(key))["Body"].read())

    def head(self, key: str) -> ObjectInfo | None:
        """See the protocol."""
        try:
            with self._explained(key):
                answer = self.client.head_object(Bucket=self.bucket, Key=self.full_key(key))
        except ArtifactMissingError:
            return None
        return ObjectInfo(
            key=key,
            size=answer["ContentLength"],
            modified=answer["LastModified"],
            sha256=answer.get("Metadata", {}).get(_DIGEST_METADATA),
            content_type=answer.get("ContentType"),
            version=answer.get("ETag"),
        )

    def stat(self, key: str) -> ObjectInfo | None:
        """See the protocol; the digest is known where it was recorded."""
        return self.head(key)

    def exists(self, key: str) -> bool:
        """See the protocol."""
        return self.head(key) is not None

    def list(self, prefix: str = "", start_after: str = "") -> Iterator[ObjectInfo]:
        """See the protocol."""
        behind = {"StartAfter": f"{self._before}{start_after}"} if start_after else {}
        for page in self._pages(Prefix=f"{self._before}{prefix}", **behind):
            for entry in page.get("Contents", ()):
                if not entry["Key"].endswith("/"):  # some servers list folders
                    yield ObjectInfo(
                        entry["Key"][len(self._before) :],
                        entry["Size"],
                        entry["LastModified"],
                        version=entry.get("ETag"),
                    )

    def folders(self, prefix: str) -> Iterator[str]:
        """See the protocol."""
        before = f"{self._before}{prefix}/"
        for page in self._pages(Prefix=before, Delimiter="/"):
            for entry in page.get("CommonPrefixes", ()):
                yield entry["Prefix"].removeprefix(before).removesuffix("/")

    @property
    def _before(self) -> str:
        return f"{self.prefix}/" if self.prefix else ""

    def _pages(self, **wanted: str) -> Iterator[dict[str, Any]]:
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, **wanted)
        place = f"s3://{self.bucket}/{self.prefix}"
        try:
            with explained(place, self.endpoint):
                yield from pages
        except ArtifactMissingError as error:  # the answer to a listing never is that there is no such object
            raise StorageError(
                f"{place} at {self.endpoint}: cannot be listed (404); check that S3_ENDPOINT is an S3 server, and no "
                "proxy answers in its place, and that the bucket exists"
            ) from error

    def copy(self, source: ObjectInfo, target: str) -> ObjectInfo:
        """See the protocol; the server copies, and its recorded digest with it."""
        from botocore.exceptions import ClientError  # noqa: PLC0415

        same = {"CopySourceIfMatch": source.version} if source.version else {}
        place = {"Bucket": self.bucket, "Key": self.full_key(source.key)}
        with self._explained(source.key):
            try:
                self.client.copy_object(Bucket=self.bucket, Key=self.full_key(target), CopySource=place, **same)
            except ClientError as error:
                if error_code(error) in _OTHER_VERSION_CODES:
                    raise ArtifactMissingError(f"{self.uri(source.key)} changed while it was copied") from error
                raise
        copied = self.head(target)
        if copied is None:
            raise StorageUnavailableError(f"{self.uri(target)}: the copy that the server made is not there; try again")
        return copied

    def links(self, prefix: str = "") -> Iterator[str]:  # noqa: ARG002
        """See the protocol."""
        return iter(())

    def delete(self, key: str) -> None:
        """See the protocol."""
        with suppress(ArtifactMissingError), self._explained(key):
            self.client.delete_object(Bucket=self.bucket, Key=self.full_key(key))

    def delete_version(self, info: ObjectInfo) -> bool:
        """See the protocol; the server is told which version is meant, and asked before where it may not care."""
        if not (self._heeds_conditional_deletes and info.version):
            found = self.head(info.key)
            if found is None or found.version != info.version:
                return False
        return self._delete_if_match(info)

    def _delete_if_match(self, info: ObjectInfo) -> bool:
        """Delete on condition of the version, where the server takes conditions; False where it is another one."""
        from botocore.exceptions import ClientError  # noqa: PLC0415

        same = {"IfMatch": info.version} if info.version and self._knows_conditional_deletes else {}
        try:
            with self._explained(info.key):
                try:
                    self.client.delete_object(Bucket=self.bucket, Key=self.full_key(info.key), **same)
                except ClientError as error:
                    if error_code(error) in _OTHER_VERSION_CODES:
                        return False
                    if not same or error_code(error) not in _CONDITION_UNKNOWN_CODES:
                        raise
                    self._knows_conditional_deletes = False
                    self.client.delete_object(Bucket=self.bucket, Key=self.full_key(info.key))
        except ArtifactMissingError:
            return False
        return True

    def deletes_exact_versions(self) -> bool:
        """See the protocol; tried once, with an object of its own: some servers ignore the condition."""
        if self._heeds_conditional_deletes is None:
            key = f"{_TRIAL_PREFIX}/{uuid.uuid4().hex}"
            self.put_bytes(key, b"")
            other = ObjectInfo(key, 0, datetime.now(UTC), version=_NO_VERSION)
            self._heeds_conditional_deletes = not self._delete_if_match(other)
            if self._heeds_conditional_deletes:
                self.delete(key)
        return self._heeds_conditional_deletes

    def uri(self, key: str) -> str:
        """An ``s3://`` address."""
        return f"s3://{self.bucket}/{self.full_key(key)}"

    @property
    def endpoint(self) -> str:
        """The server's address."""
        return str(self.client.meta.endpoint_url)

    @cached_property
    def location_id(self) -> str:
        """Eight digits that tell this prefix from others in the bucket.

        For names of policies and rules: several installations, each with a prefix of its own, may share a bucket.
        """
        return hashlib.sha256(self.prefix.encode()).hexdigest()[:_LOCATION_DIGITS]

    @cached_property
    def _checksum(self) -> dict[str, str]:
        """The argument of an upload that asks for a checksum, unless the client is to send none."""
        sends_checksums = self.client.meta.config.request_checksum_calculation != "when_required"
        return {"ChecksumAlgorithm": "SHA256"} if sends_checksums else {}

    @cached_property
    def _transfer_config(self) -> Any:
        from boto3.s3.transfer import TransferConfig  # noqa: PLC0415

        return TransferConfig(
            multipart_threshold=_PART_BYTES, multipart_chunksize=_PART_BYTES, max_concurrency=_PARTS_AT_ONCE
        )

    def full_key(self, key: str) -> str:
        """``key`` in the bucket: with the prefix before it."""
        return f"{self.prefix}/{check_key(key)}" if self.prefix else check_key(key)

    @contextmanager
    def _explained(self, key: str) -> Iterator[None]:
        place = self.uri(key)
        try:
            with explained(place, self.endpoint):
                yield
        except ArtifactMissingError:
            # In the answer to HEAD a missing bucket looks like a missing object.
            with explained(place, self.endpoint):
                self._require_bucket()
            raise
        except StorageError as error:
            # An answer to HEAD has no body, so no reason: another call hears whether it is the key, the clock, ...
            if error_code(error.__cause__) in REFUSED_WITHOUT_REASON_CODES:
                with explained(place, self.endpoint):
                    self.client.get_object(Bucket=self.bucket, Key=self.full_key(key), Range="bytes=0-0")
            raise

    def _require_bucket(self) -> None:
        from botocore.exceptions import ClientError  # noqa: PLC0415 - loading the code location stays light

        if self._bucket_seen:
            return
        try:
            self.client.head_bucket(Bucket=self.bucket)
        except ClientError as error:
            if error_code(error) in {*MISSING_OBJECT_CODES, "NoSuchBucket"}:
                raise missing_bucket(self.bucket, self.endpoint) from error
            raise
        self._bucket_seen = True
