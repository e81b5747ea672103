import errno
import os
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from libs.errors import ArtifactMissingError, StorageError, StorageUnavailableError
from libs.storage.backends import folder
from libs.storage.backends.folder import FolderObjectStore
from libs.storage.backends.sha256 import sha256_of_file


@pytest.fixture
def objects(tmp_path):
    return FolderObjectStore(tmp_path / "store")


def test_bytes_of_another_digest_are_not_stored(objects, tmp_path):
    (tmp_path / "f").write_bytes(b"1")
    objects.put_bytes("k", b"before")
    with pytest.raises(StorageError, match="changed while it was stored") as raised:
        objects.put_file("k", tmp_path / "f", "0" * 64, "text/plain")
    assert not raised.value.retryable
    assert objects.get_bytes("k") == b"before"
    assert list((tmp_path / "store" / ".incoming").iterdir()) == []


def test_leftovers_are_no_objects_and_go_after_a_day(objects, tmp_path):
    objects.put_bytes("k", b"1")
    incoming = tmp_path / "store" / ".incoming"
    for name, days in (("old", 2), ("new", 0)):
        (incoming / name).write_bytes(b"half")
        os.utime(incoming / name, (time.time() - days * 86400,) * 2)
    assert [info.key for info in objects.list()] == ["k"]
    objects.put_bytes("k", b"2")
    assert [path.name for path in incoming.iterdir()] == ["new"]


@pytest.mark.parametrize(
    ("number", "error_class", "words"),
    [(errno.ENOSPC, StorageUnavailableError, "free space"), (errno.EACCES, StorageError, "permissions below DATA_DIR")],
)
def test_errors_of_the_disk_are_explained(objects, monkeypatch, number, error_class, words):
    objects.put_bytes("k", b"before")

    def fail(self, data):
        raise OSError(number, os.strerror(number), str(self))

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(error_class, match=words) as raised:
        objects.put_bytes("k", b"after")
    monkeypatch.undo()
    assert type(raised.value) is error_class
    assert "file://" in str(raised.value)
    assert objects.get_bytes("k") == b"before"


@pytest.mark.parametrize(
    ("step", "call"),
    [
        ("open", lambda o: o.get_bytes("k")),
        ("unlink", lambda o: o.delete("k")),
        ("stat", lambda o: o.stat("k")),
        ("open", lambda o: o.head("k")),
    ],
)
def test_errors_of_the_disk_are_explained_where_nothing_is_written(objects, monkeypatch, step, call):
    objects.put_bytes("k", b"1")

    def fail(path, *flags, **options):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(f"libs.storage.backends.folder.os.{step}", fail)
    with pytest.raises(StorageError, match="permissions below DATA_DIR"):
        call(objects)
    monkeypatch.undo()


def test_a_folder_is_no_object(objects):
    objects.put_bytes("a/b", b"1")
    assert not objects.exists("a")
    objects.delete("a")
    assert objects.get_bytes("a/b") == b"1"


def test_an_object_cannot_be_a_folder_as_well(objects):
    objects.put_bytes("a", b"1")
    with pytest.raises(StorageError):
        objects.put_bytes("a/b", b"2")
    objects.put_bytes("c/d", b"1")
    with pytest.raises(StorageError):
        objects.put_bytes("c", b"2")


def test_digests_tell_the_truth_about_what_is_there(objects, tmp_path):
    objects.put_bytes("k", b"1")
    (tmp_path / "store" / "k").write_bytes(b"2")
    assert objects.head("k").sha256 == sha256_of_file(tmp_path / "store" / "k")


def test_a_name_that_no_file_can_have_is_no_object(objects):
    objects.put_bytes("inbox/a", b"1")  # without the folder there is no file to begin with
    key = f"inbox/{'x' * 300}"
    assert not objects.exists(key)
    assert objects.head(key) is None
    objects.delete(key)


def test_a_folder_that_cannot_be_read_is_no_empty_one(objects, monkeypatch):
    """What it holds would look missing, and files whose manifest lies there like orphans."""
    objects.put_bytes("animation/p/manifest.json", b"{}")
    objects.put_bytes("animation/p/0123456789abcdef/clip.mp4", b"1")
    listing = os.scandir

    def scandir(path):
        if str(path).endswith("0123456789abcdef"):
            raise PermissionError(13, "Permission denied", str(path))
        return listing(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(StorageError, match=r"Permission denied .*0123456789abcdef.*; check the permissions"):
        list(objects.list("animation/"))
    assert list(objects.list("nothing/here/")) == []


@pytest.fixture
def secret(tmp_path):
    """A folder outside the store with a file that its users must not see."""
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret.yaml").write_text("password")
    return tmp_path / "outside"


def test_links_are_neither_listed_nor_read_nor_written_through(objects, secret):
    objects.put_bytes("inbox/a.yaml", b"1")
    inbox = objects.root / "inbox"
    (inbox / "file.yaml").symlink_to(secret / "secret.yaml")
    (inbox / "folder").symlink_to(secret)
    (inbox / "inside.yaml").symlink_to(inbox / "a.yaml")
    assert [info.key for info in objects.list("inbox/")] == ["inbox/a.yaml"]
    assert list(objects.list("inbox/folder/")) == []
    assert list(objects.links("inbox/")) == ["inbox/file.yaml", "inbox/folder", "inbox/inside.yaml"]
    for key in ("inbox/file.yaml", "inbox/folder/secret.yaml", "inbox/inside.yaml"):
        assert not objects.exists(key)
        assert objects.stat(key) is objects.head(key) is None
        with pytest.raises(ArtifactMissingError):
            objects.get_bytes(key)
        with pytest.raises(ArtifactMissingError):
            objects.get_file(key, objects.root / "copy")
    with pytest.raises(StorageError, match="symbolic link"):
        objects.put_bytes("inbox/folder/new.yaml", b"1")
    objects.delete("inbox/folder/secret.yaml")
    objects.put_bytes("inbox/file.yaml", b"takes the place of the link")
    assert [path.name for path in secret.iterdir()] == ["secret.yaml"]
    assert (secret / "secret.yaml").read_text() == "password"


def test_deleting_a_link_leaves_what_it_points_to(objects, secret):
    objects.put_bytes("inbox/a.yaml", b"1")
    (objects.root / "inbox" / "file.yaml").symlink_to(secret / "secret.yaml")
    objects.delete("inbox/file.yaml")
    assert list(objects.links("inbox/")) == []
    assert (secret / "secret.yaml").exists()


def test_the_store_and_its_top_level_folders_may_be_links(tmp_path, secret):
    (tmp_path / "disk" / "inbox").mkdir(parents=True)
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts" / "inbox").symlink_to(tmp_path / "disk" / "inbox")
    (tmp_path / "link").symlink_to(tmp_path / "artifacts")
    objects = FolderObjectStore(tmp_path / "link")
    objects.put_bytes("inbox/sub/a.yaml", b"1")
    assert objects.get_bytes("inbox/sub/a.yaml") == b"1"
    assert [info.key for info in objects.list("inbox/")] == ["inbox/sub/a.yaml"]


def test_a_pipe_is_no_object(objects):
    objects.put_bytes("inbox/a", b"1")
    os.mkfifo(objects.root / "inbox" / "pipe.yaml")
    assert [info.key for info in objects.list("inbox/")] == ["inbox/a"]
    assert objects.head("inbox/pipe.yaml") is None


def test_a_time_that_no_calendar_holds_is_the_nearest_one(monkeypatch):
    for seconds, expected in ((1e12, datetime.max), (-1e12, datetime.min)):
        status = os.stat_result((0o100644, 1, 1, 1, 0, 0, 5, seconds, seconds, seconds))
        assert folder._described(status, "inbox/d.mp4", None).modified == expected.replace(tzinfo=UTC)


def test_a_listing_may_begin_behind_a_key(objects):
    for name in ("a", "b", "c/d"):
        objects.put_bytes(f"inbox/{name}", b"1")
    assert [info.key for info in objects.list("inbox/", start_after="inbox/a")] == ["inbox/b", "inbox/c/d"]
