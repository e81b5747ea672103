"""Removing objects that no manifest names: what killed runs left behind, and nothing a run may still want.

See ``inspection`` for finding them.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from libs.errors import InputError
from libs.storage.artifacts import TRUSTED_FOR
from libs.storage.backends.store import ObjectInfo, ObjectStore

MINIMUM_AGE = 2 * TRUSTED_FOR
"""A run that finds its file stored already relies on it only within ``TRUSTED_FOR`` of its upload, and sends it again
later. So what is older than twice that and still in no manifest never gets into one without becoming young first."""


def require_safe_age(older_than: timedelta) -> timedelta:
    """``older_than`` itself, if no run can be about to name what is that old.

    Raises:
        InputError: it is too short.
    """
    if older_than < MINIMUM_AGE:
        raise InputError(
            f"--older-than must be at least {MINIMUM_AGE.days} days: younger objects may belong to a run that goes on"
        )
    return older_than


def remove_orphans(
    objects: ObjectStore, orphans: Iterable[ObjectInfo], older_than: timedelta, now: datetime | None = None
) -> list[ObjectInfo]:
    """Remove those of ``orphans`` that are ``older_than`` that, and say which went.

    Each is checked again first: one that was stored again since the inspection stays.

    Raises:
        InputError: ``older_than`` is too short.
    """
    limit = (now or datetime.now(UTC)) - require_safe_age(older_than)
    removed = []
    for orphan in orphans:
        current = next((info for info in objects.list(orphan.key) if info.key == orphan.key), None)
        if current is not None and current.modified < limit:
            objects.delete(orphan.key)
            removed.append(current)
    return removed
