"""Names of the store that one process at a time may write to, among those that ask.

Built on what every object store has: an object appears whole, and a listing shows what was stored before it.
Conditional writes would be shorter, but not every S3 server knows them, and some ignore the condition. Each process
stores a claim, then lists: who sees no other claim to a name has it until its own claim is removed; all others take
theirs back and try again.

    requests/claims/<digest of a key>.<random>      to one name
    requests/claims/several.<random>                to those whose digests it holds
"""

import hashlib
import random
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta

from libs.errors import ArtifactMissingError
from libs.storage.backends.store import ObjectStore

CLAIMS_PREFIX = "requests/claims"
ABANDONED_AFTER = timedelta(hours=1)
"""A claim this old was left by a process that died; the largest upload takes less."""

_SEVERAL = "several"
_DIGITS = 32

_FIRST_WAIT_SECONDS = 0.02
_LONGEST_WAIT_SECONDS = 0.5


@contextmanager
def claimed(objects: ObjectStore, key: str, patience_seconds: float) -> Iterator[bool]:
    """Whether this process has ``key`` to itself inside the block; False where another one kept it for so long."""
    digest = _digest(key)
    mine = f"{CLAIMS_PREFIX}/{digest}.{uuid.uuid4().hex}"
    deadline = time.monotonic() + patience_seconds
    wait = _FIRST_WAIT_SECONDS
    try:
        while not (alone := digest not in _claim(objects, mine, [digest])):
            objects.delete(mine)
            if time.monotonic() >= deadline:
                break
            time.sleep(wait * random.uniform(0.5, 1.5))
            wait = min(2 * wait, _LONGEST_WAIT_SECONDS)
        yield alone
    finally:
        objects.delete(mine)


@contextmanager
def claimed_together(objects: ObjectStore, keys: Iterable[str]) -> Iterator[set[str]]:
    """Those of ``keys`` that this process has to itself inside the block; one claim, however many they are."""
    digests = {key: _digest(key) for key in keys}
    mine = f"{CLAIMS_PREFIX}/{_SEVERAL}.{uuid.uuid4().hex}"
    try:
        others = _claim(objects, mine, digests.values(), "\n".join(digests.values()).encode())
        yield {key for key, digest in digests.items() if digest not in others}
    finally:
        objects.delete(mine)


def _claim(objects: ObjectStore, mine: str, digests: Iterable[str], content: bytes = b"") -> set[str]:
    """Store the claim ``mine`` to ``digests``; all that others claim. The age of claims counts by the store's clock."""
    objects.put_bytes(mine, content)
    claims = {info.key: info.modified for info in objects.list(f"{CLAIMS_PREFIX}/")}
    if mine not in claims:  # somebody took it for abandoned
        return set(digests)
    now = claims.pop(mine)
    others = set()
    for key, since in claims.items():
        if now - since > ABANDONED_AFTER:
            objects.delete(key)
            continue
        name = key.removeprefix(f"{CLAIMS_PREFIX}/").partition(".")[0]
        if name != _SEVERAL:
            others.add(name)
            continue
        with suppress(ArtifactMissingError):  # taken back meanwhile
            others.update(objects.get_bytes(key).decode().split())
    return others


def _digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()[:_DIGITS]
