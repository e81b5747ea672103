"""Digests against hashlib, and when the cache may be believed."""

import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from libs.model_repo.verification import digests
from libs.model_repo.verification.digests import CACHE_NAME, DigestCache, Signature, sha256_of_files


def _write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def test_equals_hashlib_for_every_file(tmp_path: Path) -> None:
    contents = {_write(tmp_path / f"{size}.bin", os.urandom(size)): size for size in (0, 1, 5_000_000, 1024 * 1024)}
    found = sha256_of_files(contents, DigestCache(None))
    assert found == {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in contents}


def test_the_second_time_nothing_is_read(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.bin", b"a" * 1000)
    read: list[int] = []

    def progress(stage: str, done: int, total: int | None, detail: str = "") -> None:
        read.append(done)

    first = sha256_of_files([path], DigestCache(tmp_path / CACHE_NAME), progress=progress)
    assert read == [1000]
    assert sha256_of_files([path], DigestCache(tmp_path / CACHE_NAME), progress=progress) == first
    assert read == [1000]
    assert sha256_of_files([path], DigestCache(tmp_path / CACHE_NAME), trust_cache=False, progress=progress) == first
    assert read == [1000, 1000]


def test_a_hard_link_is_known_by_the_file_it_links_to(tmp_path: Path) -> None:
    path = _write(tmp_path / "a.bin", b"content")
    cache = DigestCache(None)
    sha256_of_files([path], cache)
    os.link(path, tmp_path / "b.bin")
    assert cache.known(tmp_path / "b.bin") == hashlib.sha256(b"content").hexdigest()


def test_a_write_right_after_hashing_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    for round_ in range(20):
        _write(path, b"%06d" % round_)
        cache = DigestCache(None)
        digest = sha256_of_files([path], cache)[path]
        assert not cache.changed(path)
        _write(path, b"%06d" % (round_ + 1))
        assert cache.known(path) != digest
        assert cache.changed(path)


def test_a_write_between_hashing_and_the_answer_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = _write(tmp_path / "a.bin", b"before")
    os.link(path, tmp_path / "b.bin")
    answers = digests.as_completed

    def late(jobs: Any) -> Iterator[Any]:
        for job in list(answers(jobs)):
            path.write_bytes(b"after!")
            os.utime(path, (1, 1))
            yield job

    monkeypatch.setattr(digests, "as_completed", late)
    cache = DigestCache(None)
    sha256_of_files([path, tmp_path / "b.bin"], cache)
    assert cache.known(path) is None
    assert cache.changed(path) and cache.changed(tmp_path / "b.bin")


def test_a_file_just_written_is_hashed_when_the_clock_has_moved_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another write in the same tick would leave size and time as they are."""
    waited: list[float] = []
    monkeypatch.setattr(digests.time, "sleep", waited.append)
    old, young = _write(tmp_path / "old.bin", b"1"), _write(tmp_path / "young.bin", b"2")
    now = time.time()
    os.utime(old, (now - 10, now - 10))
    monkeypatch.setattr(digests.time, "time", lambda: young.stat().st_mtime)
    sha256_of_files([old, young], DigestCache(None))
    assert waited == [digests._CLOCK_GRANULARITY_SECONDS]


def test_two_caches_on_one_file_keep_what_both_learned(tmp_path: Path) -> None:
    one, two = _write(tmp_path / "1.bin", b"1"), _write(tmp_path / "2.bin", b"2")
    first, second = DigestCache(tmp_path / CACHE_NAME), DigestCache(tmp_path / CACHE_NAME)
    sha256_of_files([one], first)
    sha256_of_files([two], second)
    merged = DigestCache(tmp_path / CACHE_NAME)
    assert merged.known(one) and merged.known(two)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": 9}', '{"format": 1, "files": {"a": 1}}'])
def test_a_broken_cache_counts_as_empty(tmp_path: Path, text: str) -> None:
    path = _write(tmp_path / "a.bin", b"a")
    (tmp_path / CACHE_NAME).write_text(text)
    cache = DigestCache(tmp_path / CACHE_NAME)
    assert cache.known(path) is None
    cache.record(path, Signature.of(path), "0" * 64)
    cache.save()
    assert json.loads((tmp_path / CACHE_NAME).read_text())["files"]
