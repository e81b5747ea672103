"""Chunks nobody came back for are removed by age, clip by clip, from folders and buckets."""

from datetime import UTC, datetime, timedelta

import numpy as np

from libs.housekeeping.old_chunks import find_old_chunks, remove_old_chunks
from libs.storage.backends.store import ObjectStore
from libs.storage.chunks import StoredChunks

FRAMES = np.arange(4 * 2 * 2 * 3, dtype=np.uint8).reshape(4, 2, 2, 3)
WEEK = timedelta(days=7)


def later(days: float) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


def test_old_chunks_go_and_young_ones_stay(objects: ObjectStore) -> None:
    clip = StoredChunks(objects, "chunks/dance/0123/81-5-81")
    for index in range(2):
        clip.save(index, FRAMES)
    objects.put_bytes("animation/dance/manifest.json", b"{}")

    assert remove_old_chunks(objects, WEEK) == []
    assert remove_old_chunks(objects, WEEK, later(6.9)) == []
    assert clip.load(1) is not None

    (removed,) = remove_old_chunks(objects, WEEK, later(7.1))
    assert (removed.prefix, removed.objects) == ("chunks/dance/0123", 4)
    assert removed.bytes > 0
    assert [info.key for info in objects.list()] == ["animation/dance/manifest.json"]
    assert clip.load(0) is None


def test_chunks_of_an_unfinished_clip_are_not_removed(objects: ObjectStore) -> None:
    """Its age is that of the chunk stored last, whatever the plan it belongs to."""
    StoredChunks(objects, "chunks/dance/0123/81-5-81").save(0, FRAMES)
    StoredChunks(objects, "chunks/dance-2/4567/81-5-81").save(0, FRAMES)
    first = max(info.modified for info in objects.list("chunks/"))
    while max(info.modified for info in objects.list("chunks/")) <= first:  # a bucket's clock ticks in seconds
        StoredChunks(objects, "chunks/dance/0123/33-5-33").save(3, FRAMES)
    newest = max(info.modified for info in objects.list("chunks/dance/"))

    between = newest + WEEK
    assert [old.prefix for old in find_old_chunks(objects, WEEK, between)] == ["chunks/dance-2/4567"]
    assert len(list(objects.list("chunks/"))) == 6, "looking removes nothing"
    assert len(remove_old_chunks(objects, WEEK, between + timedelta(seconds=1))) == 2
