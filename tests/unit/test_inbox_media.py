"""Media out of the inbox: what their copies are called."""

import pytest

from libs.errors import InputError
from libs.inbox import Inbox
from libs.storage.folder import FolderObjectStore


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
