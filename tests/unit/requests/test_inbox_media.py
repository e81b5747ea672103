"""Media out of the inbox: what their copies are called, and how it is seen that they changed."""

import hashlib
from dataclasses import replace

import pytest

from libs.errors import ArtifactMissingError, InputError
from libs.requests.inbox.inbox import Inbox
from libs.storage.backends.folder import FolderObjectStore


@pytest.mark.parametrize(
    ("path", "copy"),
    [
        ("dance.MP4", "driver.mp4"),
        ("sets/a.b/dance.mov", "driver.mov"),
        ("dance", "driver"),
        ("dance.mp4 (1)", "driver"),
        ("dance.mp4~", "driver"),
        ("dänce.vidéo", "driver"),
    ],
)
def test_only_ordinary_suffixes_are_kept(tmp_path, path, copy):
    """A copy becomes a file of an artifact, whose names are plain."""
    file = tmp_path / "file"
    file.write_bytes(b"content")
    inbox = Inbox(FolderObjectStore(tmp_path / "store"))
    inbox.put(path, file)
    fetched = inbox.fetch_media("driver", path, tmp_path / "driver")
    assert fetched.name == copy
    assert fetched.read_bytes() == b"content"


def test_a_file_that_is_not_there_is_an_error_of_its_field(tmp_path):
    with pytest.raises(InputError, match=r"driver: there is no file 'dance.mp4'"):
        Inbox(FolderObjectStore(tmp_path / "store")).fetch_media("driver", "dance.mp4", tmp_path / "driver")


class Unhashed(FolderObjectStore):
    """As a bucket into which another program put its files: nobody recorded their digests."""

    def head(self, key):
        found = super().head(key)
        return found and replace(found, sha256=None)


@pytest.mark.parametrize("kind", [FolderObjectStore, Unhashed])
def test_the_digest_of_a_media_file(tmp_path, kind):
    objects = kind(tmp_path / "store")
    objects.put_bytes("inbox/d.mp4", b"video")
    inbox, digest = Inbox(objects), hashlib.sha256(b"video").hexdigest()
    assert inbox.media_digest("d.mp4") == digest
    assert inbox.media_digest("d.mp4", read_up_to=5) == digest
    assert inbox.media_digest("d.mp4", read_up_to=4).startswith("5 bytes of 20")
    assert inbox.media_digest("gone.mp4") is None


def test_a_media_file_that_is_taken_back_while_it_is_read_has_no_digest(tmp_path, monkeypatch):
    objects = Unhashed(tmp_path / "store")
    objects.put_bytes("inbox/d.mp4", b"video")

    def gone(*_):
        raise ArtifactMissingError("gone")

    monkeypatch.setattr(objects, "get_file", gone)
    assert Inbox(objects).media_digest("d.mp4") is None


def test_all_media_are_neither_documents_nor_refused(tmp_path):
    objects = FolderObjectStore(tmp_path / "store")
    for name in ("d.mp4", "sub/r.png", "a.yaml", "b.JSON", "rejected/a.yaml", "rejected/a.yaml.error.txt"):
        objects.put_bytes(f"inbox/{name}", b"1")
    assert [path for path, _ in Inbox(objects).all_media()] == ["d.mp4", "sub/r.png"]


def test_a_folder_is_put_with_media_before_documents(tmp_path, monkeypatch):
    for name in ("a.yaml", "b.mp4", "c.png"):
        (tmp_path / name).write_bytes(b"1")
    (tmp_path / "sub").mkdir()
    inbox, sent = Inbox(FolderObjectStore(tmp_path / "store")), []
    monkeypatch.setattr(inbox, "put", lambda name, _: sent.append(name))
    inbox.put_folder(tmp_path)
    assert sent == ["b.mp4", "c.png", "a.yaml"]
