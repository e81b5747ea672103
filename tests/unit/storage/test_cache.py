import hashlib
import os
import threading
import time
from datetime import UTC, datetime, timedelta

import pytest

from libs.errors import ArtifactCorruptError
from libs.storage.cache import ArtifactCache
from libs.storage.manifest import Manifest, StoredFile, content_digest

HOUR = timedelta(hours=1)


class Source:
    """Stands for the store: counts what is downloaded."""

    def __init__(self):
        self.contents: dict[str, bytes] = {}
        self.downloads: list[str] = []

    def manifest(self, contents):
        files = []
        for name, data in contents.items():
            digest = hashlib.sha256(data).hexdigest()
            self.contents[digest] = data
            files.append(StoredFile(name=name, size=len(data), sha256=digest, content_type="x/y", key=f"k/{name}"))
        return Manifest(
            asset="a",
            partition=None,
            files=tuple(files),
            digest=content_digest((file.name, file.sha256) for file in files),
            created=datetime.now(UTC),
        )

    def __call__(self, file, destination):
        self.downloads.append(file.name)
        destination.write_bytes(self.contents[file.sha256])


@pytest.fixture
def source():
    return Source()


@pytest.fixture
def cache(tmp_path):
    return ArtifactCache(tmp_path / "cache")


def age(path, hours):
    os.utime(path, (time.time() - hours * 3600,) * 2)


def test_content_is_downloaded_once_for_all_artifacts(cache, source):
    first, second = source.manifest({"x": b"same", "y": b"1"}), source.manifest({"z": b"same", "y": b"2"})
    folder = cache.artifact(first, source)
    assert (folder / "x").read_bytes() == b"same"
    linked = (folder / "x").stat().st_ctime_ns
    assert cache.artifact(first, source) == folder
    assert (folder / "x").stat().st_ctime_ns == linked, "whoever reads an intact copy does not see it go"
    assert sorted(source.downloads) == ["x", "y"]
    assert (cache.artifact(second, source) / "z").samefile(folder / "x")
    assert sorted(source.downloads) == ["x", "y", "y"]


@pytest.mark.parametrize("damage", [b"damaged bytes!!!", b"short", b""])
def test_a_damaged_copy_is_replaced(cache, source, damage):
    manifest = source.manifest({"x": b"sixteen bytes ok"})
    path = cache.artifact(manifest, source) / "x"
    path.chmod(0o644)
    path.write_bytes(damage)
    assert (cache.artifact(manifest, source) / "x").read_bytes() == b"sixteen bytes ok"
    assert source.downloads == ["x", "x"]


def test_copies_are_read_only(cache, source):
    path = cache.artifact(source.manifest({"x": b"1"}), source) / "x"
    assert path.stat().st_mode & 0o222 == 0


def test_a_failed_download_leaves_nothing_that_looks_whole(cache, source):
    manifest = source.manifest({"x": b"1", "y": b"2"})

    def failing(file, destination):
        if file.name == "y":
            destination.write_bytes(b"ha")
            raise ArtifactCorruptError("no")
        source(file, destination)

    with pytest.raises(ArtifactCorruptError):
        cache.artifact(manifest, failing)
    held = [path for path in (cache.folder / "files").rglob("*") if path.is_file()]
    assert [path.read_bytes() for path in held] == [b"1"]
    assert (cache.artifact(manifest, source) / "y").read_bytes() == b"2"


def test_published_files_are_kept_without_a_download(cache, source, tmp_path):
    manifest = source.manifest({"x": b"published"})
    (tmp_path / "x").write_bytes(b"published")
    cache.add(tmp_path / "x", manifest.files[0].sha256)
    (tmp_path / "x").unlink()
    assert (cache.artifact(manifest, source) / "x").read_bytes() == b"published"
    assert source.downloads == []


def test_a_published_file_that_its_writer_changes_later_is_not_believed(cache, source, tmp_path):
    manifest = source.manifest({"x": b"published"})
    (tmp_path / "x").write_bytes(b"published")
    cache.add(tmp_path / "x", manifest.files[0].sha256)
    (tmp_path / "x").write_bytes(b"scribbled")
    assert (cache.artifact(manifest, source) / "x").read_bytes() == b"published"
    assert (tmp_path / "x").read_bytes() == b"scribbled"


def test_without_hard_links_files_are_copied(cache, source, monkeypatch):
    def refuse(*arguments, **options):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", refuse)
    manifest = source.manifest({"d/x": b"1"})
    for _ in range(2):
        assert (cache.artifact(manifest, source) / "d" / "x").read_bytes() == b"1"
    assert source.downloads == ["d/x"]


def test_many_readers_at_once_download_once(cache, source):
    manifest = source.manifest({"x": b"1" * 1_000_000, "y": b"2"})
    found = []

    def read():
        folder = ArtifactCache(cache.folder).artifact(manifest, source)
        found.append((folder / "x").read_bytes() == b"1" * 1_000_000)

    readers = [threading.Thread(target=read) for _ in range(8)]
    for reader in readers:
        reader.start()
    for reader in readers:
        reader.join()
    assert found == [True] * 8
    assert sorted(source.downloads) == ["x", "y"]


def test_pruning_removes_what_was_not_used_for_longest(cache, source):
    manifests = [source.manifest({"x": bytes([number]) * 1000, "common": b"c" * 100}) for number in range(4)]
    for number, manifest in enumerate(manifests):
        folder = cache.artifact(manifest, source)
        age(folder, 10 - number)
        for file in manifest.files:
            age(cache.folder / "files" / file.sha256[:2] / file.sha256, 10 - number)
    cache.artifact(manifests[0], source)  # used again now
    report = cache.prune(2500, spare_younger_than=HOUR)
    assert (report.bytes_before, report.bytes_after) == (4100, 2100)
    source.downloads.clear()
    for number in (0, 3):
        cache.artifact(manifests[number], source)
    assert source.downloads == []
    cache.artifact(manifests[1], source)
    assert source.downloads == ["x"]


def test_pruning_spares_what_was_used_lately(cache, source):
    folder = cache.artifact(source.manifest({"x": b"1" * 1000}), source)
    report = cache.prune(0, spare_younger_than=HOUR)
    assert report.removed == 0
    assert (folder / "x").exists()
    assert cache.prune(0, spare_younger_than=timedelta(0)).bytes_after == 0


def test_pruning_removes_what_was_published_and_never_fetched(cache, source, tmp_path):
    file = source.manifest({"x": b"published"}).files[0]
    (tmp_path / "x").write_bytes(b"published")
    cache.add(tmp_path / "x", file.sha256)
    (tmp_path / "x").unlink()
    kept = cache.folder / "files" / file.sha256[:2] / file.sha256
    assert cache.prune(0, spare_younger_than=HOUR).removed == 0
    age(kept, 2)
    assert cache.prune(9, spare_younger_than=HOUR).removed == 0, "there is room for it"
    report = cache.prune(8, spare_younger_than=HOUR)
    assert (report.removed, report.bytes_before, report.bytes_after) == (1, 9, 0)


def test_pruning_leaves_what_a_process_works_on(cache, source):
    manifest, file = source.manifest({"x": b"1"}), source.manifest({"y": b"2"}).files[0]
    view, single = cache.artifact(manifest, source), cache.file(file, source)
    for path in (view, single):
        age(path, 1)
    with cache._lock("artifact", manifest.digest), cache._lock("file", file.sha256):
        assert cache.prune(0, spare_younger_than=timedelta(0)).removed == 0
        assert (view / "x").exists()
        assert single.exists()
    assert cache.prune(0, spare_younger_than=timedelta(0)).bytes_after == 0


def test_pruning_removes_leftovers_of_killed_processes_after_a_day(cache, source):
    cache.artifact(source.manifest({"x": b"1"}), source)
    old, new = cache.folder / "files" / "aa" / ".x.1.partial", cache.folder / "files" / "aa" / ".x.2.partial"
    old.parent.mkdir(parents=True, exist_ok=True)
    for leftover in (old, new):
        leftover.write_bytes(b"half")
    age(old, 30)
    cache.prune(10**9)
    assert not old.exists()
    assert new.exists()


def test_pruning_a_cache_that_does_not_exist(cache):
    assert cache.prune(0).removed == 0


def fill(cache, source, count):
    """``count`` old artifacts with a file of their own and one they share."""
    for number in range(count):
        manifest = source.manifest({"x": f"{number:06d}".encode() * 10, "common": b"c" * 100})
        view = cache.folder / "artifacts" / manifest.digest
        view.mkdir(parents=True)
        for file in manifest.files:
            copy = cache.folder / "files" / file.sha256[:2] / file.sha256
            if not copy.exists():
                copy.parent.mkdir(parents=True, exist_ok=True)
                copy.write_bytes(source.contents[file.sha256])
                age(copy, 2)
            os.link(copy, view / file.name)
        age(view, 2)


@pytest.mark.parametrize("kept_bytes", [0, 1000])
def test_pruning_walks_the_cache_once_however_many_artifacts_it_removes(tmp_path, source, monkeypatch, kept_bytes):
    folders_read = []
    for count in (40, 160):
        cache = ArtifactCache(tmp_path / f"cache-{count}")
        fill(cache, source, count)
        calls = 0
        scandir = os.scandir

        def counting(*args, scandir=scandir):
            nonlocal calls
            calls += 1
            return scandir(*args)

        with monkeypatch.context() as patched:
            patched.setattr(os, "scandir", counting)
            report = cache.prune(kept_bytes, spare_younger_than=HOUR)
        assert report.bytes_before == 60 * count + 100
        assert report.bytes_after == (0 if kept_bytes == 0 else 1000)
        held = {path.stat().st_ino: path.stat().st_size for path in cache.folder.rglob("*") if path.is_file()}
        assert sum(held.values()) == report.bytes_after
        folders_read.append(calls / count)
    assert folders_read[1] < 1.5 * folders_read[0]
