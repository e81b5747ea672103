"""Which code a process runs: one digest over the source files, the same in a checkout and in an image without git.

The code location says its own in Redis; a worker with another one would make runs that were planned by other code. See
``orchestration.policies`` for the code versions of assets.
"""

import hashlib
from functools import lru_cache
from pathlib import Path

from redis import Redis

from libs.settings import REPOSITORY_ROOT

KEY = "one-to-all:code-version"
VALID_SECONDS = 60 * 60
"""A code location reports it every ten seconds; the report of one that ended long ago does not count."""

ANSWER_SECONDS = 5.0
_FOLDERS = ("libs", "orchestration")


def digest_of(root: Path) -> str:
    """A digest of all Python files of the product below ``root``, with their names."""
    digest = hashlib.sha256()
    for folder in _FOLDERS:
        for path in sorted((root / folder).rglob("*.py")):
            digest.update(f"{path.relative_to(root).as_posix()}\0".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:12]


@lru_cache(maxsize=1)
def code_version() -> str:
    """That of this process: call it when the process starts, as files may be changed later."""
    return digest_of(REPOSITORY_ROOT)


def announce_code(redis_url: str) -> None:
    """Say which code this process, the code location, runs.

    Raises:
        redis.exceptions.RedisError: Redis cannot be reached.
    """
    with Redis.from_url(redis_url, socket_timeout=ANSWER_SECONDS) as redis:
        redis.set(KEY, code_version(), ex=VALID_SECONDS)


def announced_code(redis_url: str) -> str | None:
    """The version that the code location reports; None if it reports none.

    Raises:
        redis.exceptions.RedisError: Redis cannot be reached.
    """
    with Redis.from_url(redis_url, socket_timeout=ANSWER_SECONDS) as redis:
        found = redis.get(KEY)
    return found.decode() if isinstance(found, bytes) else None
