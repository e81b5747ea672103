import os
import threading
from datetime import UTC, datetime, timedelta

import pytest

from libs.errors import ArtifactCorruptError, ArtifactMissingError, StorageError
from libs.storage.artifacts import ArtifactStore
from libs.storage.backends.keys import file_key, manifest_key


def contents(artifact):
    folder = artifact.folder
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_what_is_published_is_fetched(store, make_files, tmp_path):
    files = make_files({"clip.mp4": b"moving", "poses/driver.npz": b"points", ".hidden": b"no"})
    manifest = store.publish("animation", "dance-1", files, {"run_id": "r1", "seed": 42})
    assert manifest.digest == files.digest
    assert manifest.attributes == {"run_id": "r1", "seed": 42}
    assert abs(manifest.created - datetime.now(UTC)) < timedelta(minutes=1)
    assert manifest.size == 12
    assert [(file.name, file.content_type) for file in manifest.files] == [
        ("clip.mp4", "video/mp4"),
        ("poses/driver.npz", "application/x-npz"),
    ]
    assert store.manifest("animation", "dance-1") == manifest
    for reader in (store, ArtifactStore(store.objects, tmp_path / "other cache")):
        artifact = reader.fetch("animation", "dance-1")
        assert artifact.manifest == manifest
        assert contents(artifact) == {"clip.mp4": b"moving", "poses/driver.npz": b"points"}
        assert artifact.path("clip.mp4").read_bytes() == b"moving"
        with pytest.raises(ArtifactMissingError, match=r"no file 'other'; it has clip\.mp4, poses/driver\.npz"):
            artifact.path("other")


def test_one_file_can_be_opened_without_fetching_the_others(store, make_files, tmp_path):
    store.publish("animation", "p", make_files({"a.txt": b"A", "b.txt": b"B"}))
    reader = ArtifactStore(store.objects, tmp_path / "other cache")
    with reader.open_file("animation", "p", "b.txt") as file:
        assert file.read() == b"B"
    held = [path for path in (tmp_path / "other cache" / "files").rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in held] == [b"B"]


def test_assets_partitions_and_the_unpartitioned_do_not_mix(store, make_files):
    for asset, partition in (("a", "x"), ("a", "y"), ("b", "x"), ("a", None), ("b", None)):
        store.publish(asset, partition, make_files({"f": f"{asset}{partition}".encode()}))
    for asset, partition in (("a", "x"), ("a", "y"), ("b", "x"), ("a", None), ("b", None)):
        assert store.fetch(asset, partition).path("f").read_bytes() == f"{asset}{partition}".encode()


def test_nothing_stored_names_the_way_out(store):
    assert store.manifest("animation", "dance-1") is None
    with pytest.raises(ArtifactMissingError) as missing:
        store.fetch("animation", "dance-1")
    assert "animation, partition dance-1: nothing is stored (looked for " in str(missing.value)
    assert "--select animation --partition dance-1" in str(missing.value)


def test_names_that_cannot_be_keys_are_refused_before_anything_is_stored(store, make_files):
    for asset, partition in (("..", "p"), ("a/../b", "p"), ("", "p"), ("a", ".."), ("a", "x/y"), ("a", ""), ("a", "ä")):
        with pytest.raises(StorageError, match="cannot be"):
            store.publish(asset, partition, make_files({"f": b"x"}))
    with pytest.raises(StorageError, match="cannot be a file of an artifact"):
        store.publish("a", "p", make_files({"a file": b"x"}))
    with pytest.raises(StorageError, match="holds no files") as empty:
        store.publish("a", "p", make_files({}))
    assert not empty.value.retryable
    assert list(store.objects.list()) == []


def test_a_newer_artifact_replaces_and_the_older_stays_reachable_by_its_digest(store, make_files):
    first = store.publish("a", "p", make_files({"f": b"one", "g": b"same"}))
    second = store.publish("a", "p", make_files({"f": b"two", "g": b"same"}))
    assert first.digest != second.digest
    assert contents(store.fetch("a", "p")) == {"f": b"two", "g": b"same"}
    assert contents(store.fetch("a", "p", first.digest)) == {"f": b"one", "g": b"same"}
    with pytest.raises(ArtifactMissingError, match="with content 0000"):
        store.fetch("a", "p", "0" * 64)


def test_the_same_content_is_sent_once(store, make_files, monkeypatch):
    sent = []
    original = store.objects.put_file
    monkeypatch.setattr(store.objects, "put_file", lambda key, *rest: (sent.append(key), original(key, *rest)))
    store.publish("a", "p", make_files({"f": b"one", "g": b"two"}))
    assert len(sent) == 2
    store.publish("a", "p", make_files({"f": b"one", "g": b"TWO"}))
    assert len(sent) == 3
    store.publish("a", "p", make_files({"f": b"one", "g": b"TWO"}))
    assert len(sent) == 3


def test_equal_content_has_equal_digests_at_any_time_and_path(make_files):
    first, second = make_files({"f": b"1", "d/g": b"2"}), make_files({"d/g": b"2", "f": b"1"})
    assert first.digest == second.digest
    others = [{"f": b"1", "d/g": b"3"}, {"f": b"1", "g": b"2"}, {"f": b"2", "d/g": b"1"}, {"f": b"1"}]
    assert len({make_files(other).digest for other in others} | {first.digest}) == 5


def test_a_file_that_changes_after_hashing_is_not_published(store, make_files):
    files = make_files({"f": b"one"})
    assert files.digest
    (files.folder / "f").write_bytes(b"other")
    with pytest.raises(StorageError, match="changed after it was hashed"):
        store.publish("a", "p", files)
    assert store.manifest("a", "p") is None


def test_a_file_that_changes_while_it_is_sent_is_not_published(store, make_files, monkeypatch):
    """A bucket would keep its new bytes under the digest of the old ones."""
    files = make_files({"f": b"one"})
    monkeypatch.setattr(store.objects, "put_file", lambda _, path, *rest: path.write_bytes(b"other"))
    with pytest.raises(StorageError, match="changed after it was hashed"):
        store.publish("a", "p", files)
    assert store.manifest("a", "p") is None


def test_a_failing_upload_leaves_the_artifact_before_and_a_retry_succeeds(store, make_files, monkeypatch):
    before = store.publish("a", "p", make_files({"f": b"old"}))
    original = store.objects.put_file
    calls = []

    def failing(key, *rest):
        calls.append(key)
        if len(calls) == 2:
            raise StorageError("connection lost")
        return original(key, *rest)

    monkeypatch.setattr(store.objects, "put_file", failing)
    files = make_files({"f": b"new", "g": b"new too", "h": b"new as well"})
    with pytest.raises(StorageError, match="connection lost"):
        store.publish("a", "p", files)
    assert store.manifest("a", "p") == before
    assert contents(store.fetch("a", "p")) == {"f": b"old"}
    store.publish("a", "p", files)
    assert len(calls) == 4  # f was there already
    assert contents(store.fetch("a", "p")) == {"f": b"new", "g": b"new too", "h": b"new as well"}


def test_a_corrupt_object_is_found_named_and_repaired_by_publishing_again(store, make_files, tmp_path):
    manifest = store.publish("animation", "dance-1", make_files({"clip.mp4": b"whole clip"}))
    key = manifest.files[0].key
    # Bit rot: other bytes of the same size under the same recorded digest.
    corrupt_in_place(store.objects, key, b"whole clap", manifest.files[0].sha256)
    reader = ArtifactStore(store.objects, tmp_path / "other cache")
    for _ in range(2):
        with pytest.raises(ArtifactCorruptError) as corrupt:
            reader.fetch("animation", "dance-1")
        for part in ("animation, partition dance-1", "clip.mp4", key, "--select animation --partition dance-1"):
            assert part in str(corrupt.value)
    assert not any(path.is_file() for path in (tmp_path / "other cache" / "artifacts").rglob("*"))
    store.publish("animation", "dance-1", make_files({"clip.mp4": b"whole clip"}))
    assert contents(reader.fetch("animation", "dance-1")) == {"clip.mp4": b"whole clip"}
    assert list(store.objects.list("suspect/")) == []


def corrupt_in_place(objects, key, data, recorded_sha256):
    if hasattr(objects, "root"):
        (objects.root / key).write_bytes(data)
    else:
        objects.client.put_object(
            Bucket=objects.bucket, Key=f"{objects.prefix}/{key}", Body=data, Metadata={"sha256": recorded_sha256}
        )


def test_a_lost_object_is_found_named_and_repaired_by_publishing_again(store, make_files, tmp_path):
    manifest = store.publish("a", "p", make_files({"f": b"1", "g": b"2"}))
    store.objects.delete(manifest.files[1].key)
    reader = ArtifactStore(store.objects, tmp_path / "other cache")
    with pytest.raises(ArtifactCorruptError, match="a, partition p: g is gone"):
        reader.fetch("a", "p")
    store.publish("a", "p", make_files({"f": b"1", "g": b"2"}))
    assert contents(reader.fetch("a", "p")) == {"f": b"1", "g": b"2"}


@pytest.mark.parametrize(
    "data", [b"", b"{}", b'{"schema_version": 2}', b"\xff\x00", b'{"schema_version": 1, "asset": "a"']
)
def test_a_damaged_or_newer_manifest_is_an_error_that_names_it(store, make_files, data):
    store.publish("a", "p", make_files({"f": b"1"}))
    store.objects.put_bytes(manifest_key("a", "p"), data, "application/json")
    with pytest.raises(StorageError, match=r"a/p/manifest\.json: not a readable manifest"):
        store.fetch("a", "p")
    store.publish("a", "p", make_files({"f": b"1"}))
    assert contents(store.fetch("a", "p")) == {"f": b"1"}


def test_a_manifest_cannot_lead_out_of_its_folders(store, make_files):
    manifest = store.publish("a", "p", make_files({"f": b"1"}))
    document = manifest.to_json()
    for evil in (
        document.replace(b'"name": "f"', b'"name": "../../escaped"'),
        document.replace(b'"key": "a/p/', b'"key": "../a/p/'),
    ):
        assert evil != document
        store.objects.put_bytes(manifest_key("a", "p"), evil, "application/json")
        with pytest.raises(StorageError, match=r"a/p/manifest\.json: not a readable manifest.* cannot be a"):
            store.fetch("a", "p")


def test_two_writers_of_one_partition_leave_one_complete_artifact(store, make_files, tmp_path):
    candidates = [make_files({"f": os.urandom(200_000), "g": bytes([number])}) for number in range(4)]
    expected = [{name: file.path.read_bytes() for name, file in files.files.items()} for files in candidates]
    problems = []

    def write(number):
        try:
            for _ in range(3):
                ArtifactStore(store.objects, tmp_path / "cache").publish("a", "p", candidates[number])
                assert contents(ArtifactStore(store.objects, tmp_path / "cache").fetch("a", "p")) in expected
        except Exception as error:
            problems.append(error)

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert problems == []
    assert contents(ArtifactStore(store.objects, tmp_path / "fresh").fetch("a", "p")) in expected


def test_keys_are_where_the_documentation_says(store, make_files):
    manifest = store.publish("animation", "dance-1", make_files({"clip.mp4": b"1"}))
    file = manifest.files[0]
    assert (
        file.key
        == f"animation/dance-1/{file.sha256[:16]}/clip.mp4"
        == file_key("animation", "dance-1", file.sha256, "clip.mp4")
    )
    assert sorted(info.key for info in store.objects.list()) == sorted(
        [file.key, "animation/dance-1/manifest.json", f"animation/dance-1/manifests/{manifest.digest[:16]}.json"]
    )
