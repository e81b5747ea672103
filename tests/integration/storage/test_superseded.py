"""Contents that newer ones replaced long ago go; what is the newest, was lately, or is referred to, stays whole."""

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from libs.errors import InputError, StorageUnavailableError
from libs.housekeeping.inspection import inspect
from libs.housekeeping.prunable import Pruned, find_prunable, remove_prunable
from libs.housekeeping.superseded import find_superseded, remove_superseded
from libs.provenance.record import ClipOrigin, Device, InputFile, ModelFiles, Provenance, RunRecord
from libs.provenance.run_record import PROVENANCE_FILE
from libs.requests.documents.animation_request import AnimationRequest
from libs.requests.lifecycle.archive import RequestArchive
from libs.storage import artifacts
from libs.storage.artifacts import ArtifactStore
from libs.storage.backends.folder import FolderObjectStore
from libs.storage.backends.keys import manifest_history_key, manifest_key, suspect_key

QUARTER = timedelta(days=90)


def in_days(days: float) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)


@pytest.fixture
def publish(store: ArtifactStore, make_files: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """``publish(asset, contents, after=days)``: as it would be stored that many days from now; partition ``p``."""

    def at(asset: str, contents: dict[str, bytes], after: float = 0.0) -> Any:
        class Later(datetime):
            @classmethod
            def now(cls, tz: Any = None) -> datetime:  # type: ignore[override]
                return datetime.now(tz) + timedelta(days=after)

        with monkeypatch.context() as patch:
            patch.setattr(artifacts, "datetime", Later)
            return store.publish(asset, "p", make_files(contents))

    return at


def keys_of(store: ArtifactStore) -> set[str]:
    return {info.key for info in store.objects.list()}


def is_sound(store: ArtifactStore) -> bool:
    found = inspect(store.objects, full=True)
    return (found.problems, found.orphans) == ((), ())


def test_what_was_replaced_long_ago_goes_and_the_newest_stays(store: ArtifactStore, publish: Any) -> None:
    old = publish("animation", {"clip.mp4": b"old clip", "summary.json": b"{}"})
    preview, mark = f"previews/{old.file('clip.mp4').key}", suspect_key(old.file("clip.mp4").key)
    new = publish("animation", {"clip.mp4": b"new", "summary.json": b"{}"}, after=1)
    store.publish("model_verification", None, artifacts.ArtifactFiles(store.fetch("animation", "p").folder))
    kept = keys_of(store) - {old.file("clip.mp4").key, manifest_history_key("animation", "p", old.digest)}
    store.objects.put_bytes(preview, b"picture")
    store.objects.put_bytes(mark, b"")

    assert find_superseded(store.objects, QUARTER, now=in_days(90.9)) == []
    (found,) = find_superseded(store.objects, QUARTER, now=in_days(91.1))
    assert found.content.manifest == old
    assert found.bytes == len(b"old clip") + len(b"picture"), "the summary belongs to the newest as well"
    assert keys_of(store) > kept, "looking removes nothing"
    assert remove_superseded(store.objects, [found], QUARTER, in_days(91.1)) == [found]
    assert keys_of(store) == kept
    assert is_sound(store)
    assert [manifest.digest for manifest in store.history("animation", "p")] == [new.digest]
    fresh = ArtifactStore(store.objects, store.cache.folder.with_name("fresh"))
    assert fresh.fetch("animation", "p").path("clip.mp4").read_bytes() == b"new"
    assert find_superseded(store.objects, QUARTER, now=in_days(1000)) == []


def test_an_age_that_is_not_safe_removes_nothing(store: ArtifactStore, publish: Any) -> None:
    publish("animation", {"clip.mp4": b"1"})
    publish("animation", {"clip.mp4": b"2"}, after=1)
    found = find_superseded(store.objects, QUARTER, now=in_days(100))
    before = keys_of(store)
    assert find_superseded(store.objects, QUARTER) == [], "the time is now where nobody says another"
    with pytest.raises(InputError, match="at least 2 days"):
        find_superseded(store.objects, timedelta(hours=47))
    with pytest.raises(InputError, match="at least 2 days"):
        remove_superseded(store.objects, found, timedelta(hours=47), in_days(100))
    assert keys_of(store) == before


def test_only_the_last_contents_of_a_busy_partition_were_replaced_lately(tmp_path: Path, make_files: Any) -> None:
    store = ArtifactStore(FolderObjectStore(tmp_path / "store"), tmp_path / "cache")
    for days in (200, 150):
        long_ago = datetime.now(UTC) - timedelta(days=days)
        manifest = store.publish("animation", "p", make_files({"clip.mp4": f"{days}".encode()}))
        document = manifest.model_copy(update={"created": long_ago}).to_json()
        history = manifest_history_key("animation", "p", manifest.digest)
        store.objects.put_bytes(history, document)
        os.utime(store.objects.root / history, (long_ago.timestamp(), long_ago.timestamp()))
    store.publish("animation", "p", make_files({"clip.mp4": b"newest"}))
    (found,) = find_prunable(store, QUARTER).superseded
    assert store.fetch("animation", "p", found.content.manifest.digest).path("clip.mp4").read_bytes() == b"200"


def test_a_file_that_several_older_contents_name_is_counted_once(store: ArtifactStore, publish: Any) -> None:
    for day, clip in enumerate((b"1", b"2")):
        publish("animation", {"clip.mp4": clip, "summary.json": b"as before"}, after=day)
    publish("animation", {"clip.mp4": b"3"}, after=2)
    found = find_superseded(store.objects, QUARTER, now=in_days(100))
    assert [len(one.files) for one in found] == [2, 1]
    assert sum(one.bytes for one in found) == len(b"12as before")


def test_what_people_put_into_the_inbox_is_never_judged(store: ArtifactStore, publish: Any) -> None:
    """Whatever it looks like: a folder of artifacts that somebody copied there is not ours."""
    publish("inbox", {"clip.mp4": b"1"})
    publish("inbox", {"clip.mp4": b"2"}, after=1)
    assert find_prunable(store, QUARTER, now=in_days(100)) == Pruned([], [])


def test_what_was_the_newest_lately_stays_however_old_it_is(store: ArtifactStore, publish: Any) -> None:
    first = publish("animation", {"clip.mp4": b"1"})
    second = publish("animation", {"clip.mp4": b"2"}, after=80)
    publish("animation", {"clip.mp4": b"3"}, after=100)
    assert find_superseded(store.objects, QUARTER, now=in_days(169)) == []
    found = find_superseded(store.objects, QUARTER, now=in_days(171))
    assert [superseded.content.manifest for superseded in found] == [first]
    assert len(find_superseded(store.objects, QUARTER, now=in_days(191))) == 2
    again = publish("animation", {"clip.mp4": b"1"}, after=120)
    found = find_superseded(store.objects, QUARTER, now=in_days(1000))
    assert {superseded.content.manifest.digest for superseded in found} == {
        manifest.digest for manifest in store.history("animation", "p") if manifest.digest != again.digest
    }
    assert second.digest in {superseded.content.manifest.digest for superseded in found}


def test_a_process_killed_at_any_moment_leaves_a_sound_store_and_the_next_finishes(
    store: ArtifactStore, publish: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    for content in (b"1", b"2"):
        publish("animation", {"clip.mp4": content, "summary.json": content})
    publish("animation", {"clip.mp4": b"3"}, after=1)
    then, delete = in_days(100), store.objects.delete
    done: list[str] = []

    def cut_off(key: str) -> None:
        if done:
            raise StorageUnavailableError("killed")
        done.append(key)
        delete(key)

    monkeypatch.setattr(store.objects, "delete", cut_off)
    for _ in range(40):
        done.clear()
        found = find_prunable(store, QUARTER, now=then)
        try:
            remove_prunable(store, found, QUARTER, then)
        except StorageUnavailableError:
            assert inspect(store.objects, full=True).problems == ()
            assert store.fetch("animation", "p").path("clip.mp4").read_bytes() == b"3"
        else:
            break
    assert find_prunable(store, QUARTER, now=then).bytes == 0
    assert is_sound(store)
    assert len(keys_of(store)) == 3


def test_a_content_published_again_since_it_was_found_stays(store: ArtifactStore, publish: Any) -> None:
    publish("animation", {"clip.mp4": b"1"})
    publish("animation", {"clip.mp4": b"2"}, after=1)
    then = in_days(100)
    found = find_superseded(store.objects, QUARTER, now=then)
    publish("animation", {"clip.mp4": b"1"}, after=2)
    before = keys_of(store)
    assert remove_superseded(store.objects, found, QUARTER, then) == []
    assert keys_of(store) == before
    assert is_sound(store)
    publish("animation", {"clip.mp4": b"2"}, after=3)
    assert remove_superseded(store.objects, found, QUARTER, then) == [], "it was the newest until now"
    assert keys_of(store) == before


def test_a_partition_that_cannot_be_judged_since_it_was_found_loses_no_file(store: ArtifactStore, publish: Any) -> None:
    old = publish("animation", {"clip.mp4": b"1"})
    publish("animation", {"clip.mp4": b"2"}, after=1)
    found = find_superseded(store.objects, QUARTER, now=in_days(100))
    newest = store.objects.get_bytes(manifest_key("animation", "p"))
    store.objects.delete(manifest_key("animation", "p"))
    before = keys_of(store)
    assert remove_superseded(store.objects, found, QUARTER, in_days(100)) == []
    assert keys_of(store) == before
    store.objects.put_bytes(manifest_key("animation", "p"), newest)
    store.objects.put_bytes("animation/p/manifests/0123456789abcdef.json", b"{")
    (removed,) = remove_superseded(store.objects, found, QUARTER, in_days(100))
    assert removed.files == (), "the damaged one may name them"
    assert store.objects.exists(old.files[0].key)


def test_the_newest_is_found_by_its_digest_even_without_its_copy_in_the_history(
    store: ArtifactStore, publish: Any
) -> None:
    """As where it was published again while its older self was removed."""
    newest = publish("animation", {"clip.mp4": b"1"})
    store.objects.delete(manifest_history_key("animation", "p", newest.digest))
    assert store.fetch("animation", "p", newest.digest).manifest == newest
    assert store.manifest("animation", "p", newest.digest[:16]) == newest, "as people type it"
    assert store.manifest("animation", "p", "0" * 64) is None
    assert is_sound(store)


def test_a_file_that_another_content_names_by_now_stays(store: ArtifactStore, publish: Any) -> None:
    old = publish("animation", {"clip.mp4": b"1", "summary.json": b"{}"})
    publish("animation", {"clip.mp4": b"2"}, after=1)
    then = in_days(100)
    found = find_superseded(store.objects, QUARTER, now=then)
    publish("animation", {"clip.mp4": b"1"}, after=2)
    (removed,) = remove_superseded(store.objects, found, QUARTER, then)
    assert [info.key for info in removed.files] == [old.file("summary.json").key]
    assert is_sound(store)


def test_partitions_that_cannot_be_judged_are_left_alone(store: ArtifactStore, publish: Any) -> None:
    old = publish("animation", {"clip.mp4": b"1"})
    between = publish("animation", {"clip.mp4": b"2"}, after=0.5)
    publish("animation", {"clip.mp4": b"3"}, after=1)
    newest = store.objects.get_bytes(manifest_key("animation", "p"))
    store.objects.put_bytes(manifest_key("animation", "p"), newest[:-20])
    assert find_superseded(store.objects, QUARTER, now=in_days(100)) == []
    store.objects.delete(manifest_key("animation", "p"))
    assert find_superseded(store.objects, QUARTER, now=in_days(100)) == []
    store.objects.put_bytes(manifest_key("animation", "p"), newest)
    found = find_superseded(store.objects, QUARTER, now=in_days(100))
    assert {one.content.manifest.digest for one in found} == {old.digest, between.digest}
    store.objects.put_bytes("animation/p/manifests/0123456789abcdef.json", b"{")
    assert find_superseded(store.objects, QUARTER, now=in_days(100)) == []


def test_removing_a_manifest_spares_files_of_other_artifacts(store: ArtifactStore, publish: Any) -> None:
    store.objects.put_bytes("inbox/reference.png", b"a person's picture")
    poses = publish("pose_tracks", {"driver.npz": b"points"})
    old = publish("animation", {"clip.mp4": b"1", "summary.json": b"{}"})
    publish("animation", {"clip.mp4": b"2"}, after=1)
    clip, summary = old.files
    changed = (
        clip.model_copy(update={"key": "inbox/reference.png"}),
        summary.model_copy(update={"key": poses.files[0].key}),
    )
    document = old.model_copy(update={"files": changed}).to_json()
    store.objects.put_bytes(manifest_history_key("animation", "p", old.digest), document)
    then = in_days(100)
    found = find_superseded(store.objects, QUARTER, now=then)
    assert [superseded.files for superseded in found] == [()]
    remove_superseded(store.objects, found, QUARTER, then)
    assert store.objects.exists("inbox/reference.png")
    assert store.objects.exists(poses.files[0].key)


def provenance(poses: str, picture: str, video: str) -> bytes:
    """The record beside a clip that was made from these poses and this picture and video."""
    request = AnimationRequest(id="p", reference="p.png", driver="p.mp4").resolve("sandbox")
    origin = ClipOrigin(
        request=request.clip_fields(),
        reference=InputFile(path="p.png", sha256=picture),
        driver=InputFile(path="p.mp4", sha256=video),
        pose_conditioning=poses,
        model=ModelFiles(variant="sandbox", locks={}),
        engine={},
        code_version="1",
        libraries={},
        device=Device(kind="cpu", name="cpu", dtype="float32"),
    )
    run = RunRecord(
        run_id="r",
        finished=datetime.now(UTC),
        code=None,
        device="cpu",
        memory_plan=None,
        start="cold",
        chunks=1,
        chunks_resumed=0,
        seconds={},
        stream_digest=video,
    )
    return Provenance(clip=origin, run=run).to_json().encode()


def names(found: Any) -> set[tuple[str, str]]:
    return {(one.content.manifest.asset, one.content.manifest.digest) for one in found.superseded}


def test_what_a_clip_that_stays_was_made_from_stays_with_it(store: ArtifactStore, publish: Any) -> None:
    poses = [publish("pose_conditioning", {"poses.npz": data}, after) for after, data in enumerate((b"0", b"1", b"2"))]
    media = [publish("request_media", {"p.png": data}, after) for after, data in enumerate((b"a", b"b", b"c"))]
    digests = [(one.digest, *[two.files[0].sha256] * 2) for one, two in zip(poses, media, strict=True)]
    clips = [
        publish("animation", {"clip.mp4": bytes([n]), PROVENANCE_FILE: provenance(*digests[n])}, 50 * n) for n in (0, 1)
    ]
    # Day 100: the first clip was replaced lately, so what it was made from stays. Poses and media 1 are the newest's.
    assert names(find_prunable(store, QUARTER, now=in_days(100))) == set()
    first = {("pose_conditioning", poses[0].digest), ("request_media", media[0].digest)}
    gone = find_prunable(store, QUARTER, now=in_days(200))
    assert names(gone) == {*first, ("animation", clips[0].digest)}
    needed = find_prunable(store, QUARTER, lambda manifest: manifest == poses[0], in_days(200))
    assert names(needed) == names(gone) - {("pose_conditioning", poses[0].digest)}
    damaged = clips[1].file(PROVENANCE_FILE)
    document = store.objects.get_bytes(damaged.key)
    for text in (b"{", b"\xff"):
        store.objects.put_bytes(damaged.key, text)
        assert names(find_prunable(store, QUARTER, now=in_days(200))) == set(), "it may name any of them"
    store.objects.delete(damaged.key)
    assert names(find_prunable(store, QUARTER, now=in_days(200))) == set(), "nobody knows what it named"
    store.objects.put_bytes(damaged.key, document)
    remove_prunable(store, gone, QUARTER, in_days(200))
    assert is_sound(store)
    assert store.fetch("pose_conditioning", "p", poses[1].digest).path("poses.npz").read_bytes() == b"1"


def test_the_media_of_a_clip_that_stays_do_where_one_of_them_is_named(store: ArtifactStore, publish: Any) -> None:
    """As where the same picture was sent again with another video: both copies hold it."""
    files = (
        {"p.png": b"picture 0", "p.mp4": b"0"},
        {"p.png": b"1", "p.mp4": b"video 1"},
        {"p.png": b"2", "p.mp4": b"2"},
    )
    media = [publish("request_media", content, after) for after, content in enumerate(files)]
    picture, video = media[0].file("p.png").sha256, media[1].file("p.mp4").sha256
    publish("animation", {"clip.mp4": b"clip", PROVENANCE_FILE: provenance("0" * 64, picture, video)})
    publish("request_media", {"p.png": b"3"}, after=3)
    assert names(find_prunable(store, QUARTER, now=in_days(100))) == {("request_media", media[2].digest)}


def test_what_an_archived_clip_was_made_from_stays_with_it(store: ArtifactStore, publish: Any) -> None:
    """Also where the request's newest poses were others by then."""
    poses = publish("pose_conditioning", {"poses.npz": b"1"})
    publish("animation", {"clip.mp4": b"1", PROVENANCE_FILE: provenance(poses.digest, "0" * 64, "0" * 64)})
    publish("pose_conditioning", {"poses.npz": b"2"}, after=1)
    RequestArchive(store).record("p")
    publish("animation", {"clip.mp4": b"2"}, after=2)
    assert names(find_prunable(store, QUARTER, now=in_days(100))) == set()


def test_a_clip_without_origin_protects_no_other_artifacts(store: ArtifactStore, publish: Any) -> None:
    publish("animation", {"clip.mp4": b"clip"})
    old = publish("pose_conditioning", {"poses.npz": b"1"})
    publish("pose_conditioning", {"poses.npz": b"2"}, after=1)
    assert names(find_prunable(store, QUARTER, now=in_days(100))) == {("pose_conditioning", old.digest)}


def test_what_no_manifest_names_goes_as_well_when_it_is_old_enough(store: ArtifactStore, publish: Any) -> None:
    publish("animation", {"clip.mp4": b"1"})
    publish("animation", {"clip.mp4": b"22"}, after=1)
    orphan = "animation/p/0123456789abcdef/clip.mp4"
    store.objects.put_bytes(orphan, b"333")
    assert find_prunable(store, QUARTER, now=in_days(89)) == Pruned([], [])
    found = find_prunable(store, QUARTER, now=in_days(92))
    assert (found.bytes, [info.key for info in found.orphans]) == (4, [orphan])
    assert remove_prunable(store, found, QUARTER, in_days(92)) == found
    assert not store.objects.exists(orphan)


def test_what_the_record_of_an_archived_request_names_stays(
    store: ArtifactStore, publish: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    delivered = publish("animation", {"clip.mp4": b"delivered"})
    RequestArchive(store).record("p")
    trial = publish("animation", {"clip.mp4": b"trial"}, after=1)
    publish("animation", {"clip.mp4": b"newest"}, after=2)
    store.objects.put_bytes("archive/p/damaged.json", b"{}")
    assert names(find_prunable(store, QUARTER, now=in_days(100))) == set(), "it may name any of them"
    with monkeypatch.context() as patch:
        patch.setattr(RequestArchive, "records", lambda *_: (_ for _ in ()).throw(StorageUnavailableError("away")))
        with pytest.raises(StorageUnavailableError):
            find_prunable(store, QUARTER, now=in_days(100))
    store.objects.delete("archive/p/damaged.json")
    found = find_prunable(store, QUARTER, now=in_days(100))
    assert names(found) == {("animation", trial.digest)}
    remove_prunable(store, found, QUARTER, in_days(100))
    assert store.fetch("animation", "p", delivered.digest).path("clip.mp4").read_bytes() == b"delivered"
