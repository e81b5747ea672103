"""A name of the store that one process at a time may write to, among those that ask.

Built on what every object store has: an object appears whole, and a listing shows what was stored before it.
Conditional writes would be shorter, but not every S3 server knows them, and some ignore the condition. Each process
stores a claim, then lists: who sees no other claim has the name until its claim is removed; all others take theirs back
and try again.
"""

import hashlib
import random
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from libs.storage.objects import ObjectStore

CLAIMS_PREFIX = "requests/claims"
ABANDONED_AFTER = timedelta(hours=1)
"""A claim this old was left by a process that died; the largest upload takes less."""

_FIRST_WAIT_SECONDS = 0.02
_LONGEST_WAIT_SECONDS = 0.5


@contextmanager
def claimed(objects: ObjectStore, key: str, patience_seconds: float) -> Iterator[bool]:
    """Whether this process has ``key`` to itself inside the block; False where another one kept it for so long."""
    prefix = f"{CLAIMS_PREFIX}/{hashlib.sha256(key.encode()).hexdigest()[:32]}."
    mine = f"{prefix}{uuid.uuid4().hex}"
    deadline = time.monotonic() + patience_seconds
    wait = _FIRST_WAIT_SECONDS
    try:
        while not (alone := _is_alone(objects, prefix, mine)):
            objects.delete(mine)
            if time.monotonic() >= deadline:
                break
            time.sleep(wait * random.uniform(0.5, 1.5))
            wait = min(2 * wait, _LONGEST_WAIT_SECONDS)
        yield alone
    finally:
        objects.delete(mine)


def _is_alone(objects: ObjectStore, prefix: str, mine: str) -> bool:
    """Store the claim ``mine``; True if there is no other one. The age of others counts by the store's clock."""
    objects.put_bytes(mine, b"")
    claims = {info.key: info.modified for info in objects.list(prefix)}
    if mine not in claims:
        return False
    now = claims.pop(mine)
    for key, since in list(claims.items()):
        if now - since > ABANDONED_AFTER:
            objects.delete(key)
            del claims[key]
    return not claims
