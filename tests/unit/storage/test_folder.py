import errno
import os
import time
from pathlib import Path

import pytest

from libs.errors import StorageError, StorageUnavailableError
from libs.storage.folder import FolderObjectStore
from libs.storage.sha256 import sha256_of_file


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
        ("read_bytes", lambda o: o.get_bytes("k")),
        ("unlink", lambda o: o.delete("k")),
        ("is_file", lambda o: o.head("k")),
    ],
)
def test_errors_of_the_disk_are_explained_where_nothing_is_written(objects, monkeypatch, step, call):
    objects.put_bytes("k", b"1")

    def fail(self, **options):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES), str(self))

    monkeypatch.setattr(Path, step, fail)
    with pytest.raises(StorageError, match="permissions below DATA_DIR"):
        call(objects)


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
