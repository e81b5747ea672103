"""Chunks of abandoned clips, which are removed after a while.

Works on folders and buckets alike; a bucket can do the same by itself with a lifecycle rule (docs/storage.md). The
chunks of a clip that was just published go at once (``StoredChunks.clear``).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import groupby

from libs.storage.backends.keys import CHUNKS_PREFIX
from libs.storage.backends.store import ObjectInfo, ObjectStore
from libs.storage.chunks import StoredChunks

_CLIP_COMPONENTS = 3
"""``chunks/<request>/<digest of the inputs>``: the part of a key that all chunks of a clip share."""


@dataclass(frozen=True)
class OldChunks:
    """The chunks of one clip: how much there is, and when the last of them was stored."""

    prefix: str
    objects: int
    bytes: int
    modified: datetime


def find_old_chunks(objects: ObjectStore, older_than: timedelta, now: datetime | None = None) -> Iterator[OldChunks]:
    """The clips whose newest chunk is ``older_than`` that; a clip in the making is as young as its latest chunk."""
    limit = (now or datetime.now(UTC)) - older_than
    listed = objects.list(f"{CHUNKS_PREFIX}/")
    for prefix, group in groupby(listed, key=_clip_of):
        found = _summed_up(prefix, list(group))
        if found.modified < limit:
            yield found


def remove_old_chunks(objects: ObjectStore, older_than: timedelta, now: datetime | None = None) -> list[OldChunks]:
    """Remove them, and say what went."""
    old = list(find_old_chunks(objects, older_than, now))
    for chunks in old:
        StoredChunks(objects, chunks.prefix).clear()
    return old


def _clip_of(info: ObjectInfo) -> str:
    return "/".join(info.key.split("/")[:_CLIP_COMPONENTS])


def _summed_up(prefix: str, infos: list[ObjectInfo]) -> OldChunks:
    newest = max(info.modified for info in infos)
    return OldChunks(prefix, len(infos), sum(info.size for info in infos), newest)
