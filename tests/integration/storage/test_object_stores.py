import hashlib
import os
from datetime import UTC, datetime, timedelta

import pytest

from libs.errors import ArtifactMissingError, StorageError
from libs.storage.backends.sha256 import sha256_of_file


def test_bytes_come_back_as_they_were(objects):
    assert not objects.exists("a/b.json")
    info = objects.put_bytes("a/b.json", b'{"x": 1}', "application/json")
    assert objects.get_bytes("a/b.json") == b'{"x": 1}'
    assert objects.exists("a/b.json")
    for answer in (info, objects.head("a/b.json")):
        assert (answer.key, answer.size, answer.content_type) == ("a/b.json", 8, "application/json")
        assert answer.sha256 == hashlib.sha256(b'{"x": 1}').hexdigest()
        assert abs(answer.modified - datetime.now(UTC)) < timedelta(minutes=1)
    objects.put_bytes("a/b.json", b"", "application/json")
    assert objects.get_bytes("a/b.json") == b""


@pytest.mark.parametrize("size", [0, 1, 8 << 20, (8 << 20) + 1, 20_000_000])
def test_files_of_one_and_many_parts_come_back_as_they_were(objects, tmp_path, size):
    source = tmp_path / "source.mp4"
    source.write_bytes(os.urandom(size))
    digest = sha256_of_file(source)
    info = objects.put_file("clips/clip 1 – ä.mp4", source, digest, "video/mp4", "no-cache")
    assert (info.size, info.sha256, info.content_type) == (size, digest, "video/mp4")
    objects.get_file("clips/clip 1 – ä.mp4", tmp_path / "new folder" / "copy.mp4")
    assert sha256_of_file(tmp_path / "new folder" / "copy.mp4") == digest
    assert [entry.name for entry in (tmp_path / "new folder").iterdir()] == ["copy.mp4"]


def test_what_is_missing(objects, tmp_path):
    assert objects.head("no/such") is None
    objects.delete("no/such")
    with pytest.raises(ArtifactMissingError, match="no/such"):
        objects.get_bytes("no/such")
    with pytest.raises(ArtifactMissingError, match="no/such"):
        objects.get_file("no/such", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    objects.put_bytes("folder/file", b"x")
    assert not objects.exists("folder")
    with pytest.raises(ArtifactMissingError):
        objects.get_bytes("folder")


def test_listing_by_prefix(objects):
    assert list(objects.list()) == []
    for key in ("b/2", "a/1", "b/1", "b/10", "bb/1"):
        objects.put_bytes(key, key.encode())
    assert [info.key for info in objects.list()] == ["a/1", "b/1", "b/10", "b/2", "bb/1"]
    assert [info.key for info in objects.list("b/")] == ["b/1", "b/10", "b/2"]
    assert [info.key for info in objects.list("b/1")] == ["b/1", "b/10"]
    assert [info.key for info in objects.list("b")] == ["b/1", "b/10", "b/2", "bb/1"]
    assert list(objects.list("none/such")) == []
    assert next(objects.list("b/10")).size == 4
    objects.delete("b/1")
    assert [info.key for info in objects.list("b/")] == ["b/10", "b/2"]


@pytest.mark.parametrize("key", ["", "/a", "a//b", "../a", "a/../b", "a/./b", "a/", "a\\b", "a\nb", "x" * 901])
def test_unsafe_keys_are_refused_everywhere(objects, tmp_path, key):
    (tmp_path / "file").write_bytes(b"x")
    calls = [
        lambda: objects.put_bytes(key, b"x"),
        lambda: objects.put_file(key, tmp_path / "file", sha256_of_file(tmp_path / "file"), "text/plain"),
        lambda: objects.get_bytes(key),
        lambda: objects.get_file(key, tmp_path / "copy"),
        lambda: objects.head(key),
        lambda: objects.delete(key),
        lambda: objects.uri(key),
    ]
    for call in calls:
        with pytest.raises(StorageError, match="key"):
            call()


def test_addresses_name_the_place(objects):
    assert objects.uri("a/b").endswith("/a/b")
    assert objects.uri("a/b").startswith(("file:///", "s3://test-"))
