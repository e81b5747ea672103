"""What is stored against the manifests, in a folder and in a bucket; and what may be removed."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from libs.errors import ArtifactCorruptError, InputError
from libs.housekeeping.inspection import ProblemKind, inspect
from libs.housekeeping.orphans import MINIMUM_AGE, remove_orphans
from libs.storage.artifacts import TRUSTED_FOR, ArtifactStore
from libs.storage.backends.keys import suspect_key
from libs.storage.backends.store import ObjectStore

WEEK = timedelta(days=7)
ORPHAN = "animation/p/0123456789abcdef/clip.mp4"


def in_days(days: float) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


def overwrite(objects: Any, key: str, data: bytes, recorded: str) -> None:
    """Other bytes in the place of an object, under the digest recorded before: bit rot."""
    if hasattr(objects, "root"):
        (objects.root / key).write_bytes(data)
    else:
        full_key = objects.full_key(key)
        objects.client.put_object(Bucket=objects.bucket, Key=full_key, Body=data, Metadata={"sha256": recorded})


def test_a_sound_store_has_no_problems(store: ArtifactStore, make_files: Any) -> None:
    store.publish("animation", "p", make_files({"clip.mp4": b"old"}))
    store.publish("animation", "p", make_files({"clip.mp4": b"new", "d/summary.json": b"{}"}))
    store.publish("model_verification", None, make_files({"manifest.json": b'{"a file": "of this name"}'}))
    for key in ("chunks/p/0123456789abcdef/x", "inbox/a.json", "requests/documents/a.json", "suspect/x", "archive/a/b"):
        store.objects.put_bytes(key, b"1")
    found = inspect(store.objects, full=True)
    assert (found.problems, found.orphans, found.unknown) == ((), (), ())
    assert (found.manifests, found.bytes_read) == (5, 3 + 3 + 2 + 26)
    assert found.objects == 4 + 5 + 5


def test_missing_and_shortened_files_are_found_without_reading(store: ArtifactStore, make_files: Any) -> None:
    gone = store.publish("animation", "p", make_files({"clip.mp4": b"whole clip", "summary.json": b"{}"})).files[0]
    short = store.publish("pose_tracks", None, make_files({"driver.npz": b"points"})).files[0]
    store.objects.delete(gone.key)
    overwrite(store.objects, short.key, b"point", short.sha256)
    first, second = inspect(store.objects).problems
    assert (first.kind, first.asset, first.partition, first.key) == (ProblemKind.MISSING, "animation", "p", gone.key)
    assert first.newest
    assert "animation, partition p: clip.mp4 is gone" in str(first)
    assert first.command.endswith("--select animation --partition p")
    assert (second.kind, second.asset, second.partition) == (ProblemKind.CORRUPT, "pose_tracks", None)
    assert "5 bytes instead of 6" in second.detail
    assert second.command.endswith("--select pose_tracks")


def test_rotten_bits_are_found_by_reading_and_repaired_by_publishing(store: ArtifactStore, make_files: Any) -> None:
    file = store.publish("animation", "p", make_files({"clip.mp4": b"whole clip"})).files[0]
    overwrite(store.objects, file.key, b"whole clap", file.sha256)
    assert inspect(store.objects).problems == ()
    seen: list[tuple[int, int]] = []
    (problem,) = inspect(store.objects, full=True, report=lambda done, total: seen.append((done, total))).problems
    assert (problem.kind, problem.key) == (ProblemKind.CORRUPT, file.key)
    assert seen == [(10, 10)]
    assert store.objects.exists(suspect_key(file.key))
    store.publish("animation", "p", make_files({"clip.mp4": b"whole clip"}))
    assert inspect(store.objects, full=True).problems == ()
    assert store.objects.get_bytes(file.key) == b"whole clip"


def test_older_content_is_looked_after_but_told_apart(store: ArtifactStore, make_files: Any) -> None:
    old = store.publish("animation", "p", make_files({"clip.mp4": b"old", "same": b"same"})).files
    store.publish("animation", "p", make_files({"clip.mp4": b"new", "same": b"same"}))
    store.objects.delete(old[0].key)
    store.objects.delete(old[1].key)
    newest, older = inspect(store.objects).problems
    assert (newest.key, newest.newest) == (old[1].key, True)
    assert (older.key, older.newest) == (old[0].key, False)
    assert "(older content)" in str(older)


@pytest.mark.parametrize("which", ["newest", "history"])
def test_an_unreadable_manifest_is_named_and_protects_what_it_may_name(
    store: ArtifactStore, make_files: Any, which: str
) -> None:
    manifest = store.publish("animation", "p", make_files({"clip.mp4": b"1"}))
    history = f"animation/p/manifests/{manifest.digest[:16]}.json"
    keys = {"newest": "animation/p/manifest.json", "history": history}
    store.objects.put_bytes(ORPHAN, b"2")
    store.objects.put_bytes(keys[which], b"{}")
    found = inspect(store.objects)
    (problem,) = found.problems
    assert (problem.kind, problem.key, problem.partition) == (ProblemKind.UNREADABLE, keys[which], "p")
    assert problem.newest == (which == "newest")
    assert found.orphans == ()
    # A sound manifest of something else in its place is no better.
    store.objects.put_bytes(keys[which], store.publish("a", None, make_files({"f": b"1"})).to_json())
    assert "manifest of a" in inspect(store.objects).problems[0].detail


def test_orphans_are_files_of_artifacts_that_no_manifest_names(store: ArtifactStore, make_files: Any) -> None:
    file = store.publish("animation", "p", make_files({"clip.mp4": b"1"})).files[0]
    objects = store.objects
    objects.put_bytes(f"previews/{file.key}", b"1")
    for key in (ORPHAN, f"previews/{ORPHAN}", "animation/q/0123456789abcdef/manifest.json"):
        objects.put_bytes(key, b"x")
    objects.put_bytes("compute_logs/run/step.out", b"log")
    found = inspect(objects)
    # What is called like a manifest, but is none, is not touched: it may have been one.
    assert [problem.key for problem in found.problems] == ["animation/q/0123456789abcdef/manifest.json"]
    assert {info.key for info in found.orphans} == {ORPHAN, f"previews/{ORPHAN}"}
    assert [info.key for info in found.unknown] == ["compute_logs/run/step.out"]


def test_only_old_orphans_go(store: ArtifactStore, make_files: Any) -> None:
    store.publish("animation", "p", make_files({"clip.mp4": b"1"}))
    objects: ObjectStore = store.objects
    before = {info.key for info in objects.list()}
    objects.put_bytes(ORPHAN, b"12345")
    orphans = inspect(objects).orphans
    assert remove_orphans(objects, orphans, WEEK) == []
    assert remove_orphans(objects, orphans, WEEK, in_days(6.9)) == []
    with pytest.raises(InputError, match="at least 2 days"):
        remove_orphans(objects, orphans, timedelta(hours=47), in_days(100))
    assert objects.exists(ORPHAN)
    assert [info.key for info in remove_orphans(objects, orphans, WEEK, in_days(7.1))] == [ORPHAN]
    assert remove_orphans(objects, orphans, WEEK, in_days(7.1)) == []
    assert {info.key for info in objects.list()} == before
    assert store.fetch("animation", "p").path("clip.mp4").read_bytes() == b"1"


def test_a_run_never_relies_on_a_file_that_may_be_removed_as_an_orphan(
    store: ArtifactStore, make_files: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A killed run's file was found to be an orphan; a new run with the same file comes before it is removed."""
    from libs.storage import artifacts

    file = store.publish("animation", "p", make_files({"clip.mp4": b"content"})).files[0]
    for info in list(store.objects.list()):
        if "manifest" in info.key:
            store.objects.delete(info.key)
    orphans = inspect(store.objects).orphans
    assert [info.key for info in orphans] == [file.key]
    sent = []
    put_file = store.objects.put_file
    monkeypatch.setattr(store.objects, "put_file", lambda key, *rest: (sent.append(key), put_file(key, *rest)))
    store.publish("animation", "p", make_files({"clip.mp4": b"content"}))
    assert sent == [], "a young file is not sent again"

    class Tomorrow(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
            return datetime.now(tz) + TRUSTED_FOR

    monkeypatch.setattr(artifacts, "datetime", Tomorrow)
    store.publish("animation", "p", make_files({"clip.mp4": b"content"}))
    assert sent == [file.key], "an old one is"
    assert MINIMUM_AGE > TRUSTED_FOR


def test_a_file_stored_again_since_the_inspection_stays(store: ArtifactStore, make_files: Any) -> None:
    store.objects.put_bytes(ORPHAN, b"1")
    (orphan,) = inspect(store.objects).orphans
    aged = type(orphan)(orphan.key, orphan.size, in_days(-30))
    assert remove_orphans(store.objects, [aged], WEEK) == []
    assert store.objects.exists(ORPHAN)


def test_a_loss_between_inspection_and_loading_is_still_found(store: ArtifactStore, make_files: Any) -> None:
    file = store.publish("animation", "p", make_files({"clip.mp4": b"1"})).files[0]
    assert inspect(store.objects, full=True).problems == ()
    store.objects.delete(file.key)
    fresh = ArtifactStore(store.objects, store.cache.folder.with_name("fresh"))
    with pytest.raises(ArtifactCorruptError, match="--select animation --partition p"):
        fresh.fetch("animation", "p")
