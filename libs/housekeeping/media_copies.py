"""Copies of media that no request needs: each stored clip has a copy in ``request_media``."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from libs.requests.inbox.accepted_media import MEDIA_PREFIX, MINIMUM_COPY_AGE
from libs.storage.backends.store import ObjectInfo, ObjectStore


def unneeded_copies(
    objects: ObjectStore, needed: set[str], older_than: timedelta = MINIMUM_COPY_AGE, now: datetime | None = None
) -> Iterator[ObjectInfo]:
    """Copies that are not among the keys ``needed``, and were made at least ``older_than`` ago."""
    limit = (now or datetime.now(UTC)) - max(older_than, MINIMUM_COPY_AGE)
    for info in objects.list(f"{MEDIA_PREFIX}/"):
        if info.key not in needed and info.modified < limit:
            yield info
