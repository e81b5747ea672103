"""A file is there whole or not at all, and stays after a power cut."""

import os
from pathlib import Path

import pytest

from libs.files import atomic_write as module
from libs.files.atomic_write import PARTIAL_SUFFIX, atomic_write, write_bytes_atomically


def test_readers_see_the_old_file_until_the_new_one_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "f"
    write_bytes_atomically(path, b"old")
    with atomic_write(path) as temporary:
        temporary.write_bytes(b"new")
        assert path.read_bytes() == b"old"
        assert temporary.parent == path.parent
        assert temporary.name.startswith(".f.")
        assert temporary.name.endswith(PARTIAL_SUFFIX)
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in path.parent.iterdir()] == ["f"]


def test_a_block_that_raises_leaves_everything_as_it_was(tmp_path: Path) -> None:
    path, staging = tmp_path / "folder" / "f", tmp_path / "staging"
    write_bytes_atomically(path, b"old")
    with pytest.raises(KeyboardInterrupt), atomic_write(path, staging) as temporary:
        temporary.write_bytes(b"half")
        assert temporary.parent == staging
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    assert list(staging.iterdir()) == []


def test_two_writers_of_one_file_do_not_interfere(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "f") as one, atomic_write(tmp_path / "f") as two:
        assert one != two
        one.write_bytes(b"1")
        two.write_bytes(b"2")
    assert (tmp_path / "f").read_bytes() == b"1"


def test_bytes_are_on_the_disk_before_the_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "f"
    flushed: list[tuple[str, bool]] = []

    def fsync(descriptor: int) -> None:
        flushed.append((Path(f"/proc/self/fd/{descriptor}").readlink().name, path.exists()))

    opened = len(os.listdir("/proc/self/fd"))  # noqa: PTH208 - counts, and takes no part
    monkeypatch.setattr(module.os, "fsync", fsync)
    with atomic_write(path) as temporary:
        temporary.write_bytes(b"1")
    assert flushed == [(temporary.name, False), (tmp_path.name, True)]
    assert len(os.listdir("/proc/self/fd")) == opened  # noqa: PTH208
