"""The keys of everything in the store.

    <asset>/<partition>/<sha256, first 16 digits>/<file>      one file of an artifact, immutable
    <asset>/<partition>/manifests/<digest, first 16>.json     the manifest of that content, kept as history
    <asset>/<partition>/manifest.json                         the newest manifest, written last
    suspect/<key>                                             the object at <key> was found corrupt: upload it again
    chunks/<request>/<digest of the inputs>/<lengths>/...     finished chunks of an unfinished clip (``chunks``)

Assets without partitions have ``_unpartitioned`` instead of the partition; no partition key starts with an
underscore. The object stores add a bucket's prefix.
"""

import re

from libs.errors import StorageError

UNPARTITIONED = "_unpartitioned"
CHUNKS_PREFIX = "chunks"
NEWEST_MANIFEST = "/manifest.json"
"""The end of the key of a newest manifest."""

_PREFIX_DIGITS = 16
_MAXIMUM_KEY_BYTES = 900
"""S3 allows 1024; the difference is room for ``S3_PREFIX``."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_CONTROL_OR_BACKSLASH = re.compile(r"[\x00-\x1f\x7f\\]")


def check_key(key: str) -> str:
    """``key`` itself, if it is safe in a bucket and as a path below a folder.

    Raises:
        StorageError: empty or too long, absolute, no Unicode text, with empty, ``.`` or ``..`` components,
            backslashes or control characters.
    """
    parts = key.split("/")
    if any(part in {"", ".", ".."} for part in parts) or _CONTROL_OR_BACKSLASH.search(key):
        raise StorageError(
            f"{key!r} cannot be a key: expected names joined by single slashes, without '.', '..', backslashes or "
            "control characters"
        )
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise StorageError(f"{key!r} cannot be a key: it is not valid Unicode text") from None
    if size > _MAXIMUM_KEY_BYTES:
        raise StorageError(f"a key of {size} bytes is too long, at most {_MAXIMUM_KEY_BYTES}: {key[:80]}…")
    return key


def check_file_name(name: str) -> str:
    """``name`` itself, if it is a plain relative path (letters, digits, ``.``, ``_``, ``-``, joined by ``/``).

    Raises:
        StorageError: anything else.
    """
    if not all(_NAME.fullmatch(part) for part in name.split("/")):
        raise StorageError(
            f"{name!r} cannot be a file of an artifact: expected letters, digits, '.', '_' and '-', each part of the "
            "path starting with a letter or digit"
        )
    return name


def artifact_prefix(asset: str, partition: str | None) -> str:
    """The key prefix of everything about one asset and partition.

    Raises:
        StorageError: the asset's name or the partition key cannot be part of a key.
    """
    check_file_name(asset)
    if partition is None:
        return f"{asset}/{UNPARTITIONED}"
    if not _NAME.fullmatch(partition):
        raise StorageError(
            f"partition {partition!r} of {asset} cannot be part of a key: expected letters, digits, '.', '_' and '-'"
        )
    return f"{asset}/{partition}"


def file_key(asset: str, partition: str | None, sha256: str, name: str) -> str:
    """The immutable key of one file's content."""
    return f"{artifact_prefix(asset, partition)}/{sha256[:_PREFIX_DIGITS]}/{check_file_name(name)}"


def manifest_key(asset: str, partition: str | None) -> str:
    """The key of the newest manifest."""
    return artifact_prefix(asset, partition) + NEWEST_MANIFEST


def manifest_history_key(asset: str, partition: str | None, digest: str) -> str:
    """The key under which the manifest of one content stays after newer ones were published."""
    return f"{artifact_prefix(asset, partition)}/manifests/{digest[:_PREFIX_DIGITS]}.json"


def suspect_key(key: str) -> str:
    """The key of the record that the object at ``key`` is corrupt."""
    return f"suspect/{key}"
