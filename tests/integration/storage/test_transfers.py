"""How a large file travels to and from a bucket: in parts, several at once, no more of them than memory allows."""

import os
import threading
from pathlib import Path
from typing import Any

import pytest

from libs.settings import load_settings
from libs.storage.backends.client import create_s3_client
from libs.storage.backends.s3 import S3ObjectStore
from libs.storage.backends.sha256 import sha256_of_file
from tests.s3_server import S3Server
from tests.tcp_proxy import tcp_proxy

MEGABYTE = 1 << 20
PART_MEGABYTES = 8
MOST_AT_ONCE = 4
"""Times the size of a part: the memory of a transfer, which docs/storage.md promises not to grow with the file."""


class InFlight:
    """Counts the calls of one operation of a boto3 client, and how many of them were under way at the same time."""

    def __init__(self, client: Any, operation: str) -> None:
        self._lock = threading.Lock()
        self._now = self.calls = self.most = 0
        client.meta.events.register(f"before-call.s3.{operation}", self._begin)
        client.meta.events.register(f"after-call.s3.{operation}", self._end)

    def _begin(self, **_: Any) -> None:
        with self._lock:
            self.calls += 1
            self._now += 1
            self.most = max(self.most, self._now)

    def _end(self, **_: Any) -> None:
        with self._lock:
            self._now -= 1


@pytest.mark.s3
def test_large_files_travel_in_parallel_parts_and_bounded_memory(
    s3_server: S3Server, s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "clip.mp4"
    source.write_bytes(os.urandom(5 * PART_MEGABYTES * MEGABYTE + 1))
    with tcp_proxy(s3_server.endpoint) as proxy:
        proxy.bytes_per_second = 40 * MEGABYTE  # of each connection, so that parts meet
        for name, value in (s3_server.environment(s3_bucket) | {"S3_ENDPOINT": proxy.endpoint}).items():
            monkeypatch.setenv(name, value)
        client = create_s3_client(load_settings())
        whole, parts = InFlight(client, "PutObject"), InFlight(client, "UploadPart")
        ranges = InFlight(client, "GetObject")
        objects = S3ObjectStore(client, s3_bucket)
        objects.put_file("a/clip.mp4", source, sha256_of_file(source), "video/mp4")
        objects.get_file("a/clip.mp4", tmp_path / "copy.mp4")
    assert (whole.calls, parts.calls) == (0, 6)
    assert ranges.calls == 6
    assert 1 < parts.most <= MOST_AT_ONCE
    assert ranges.most > 1
    assert sha256_of_file(tmp_path / "copy.mp4") == sha256_of_file(source)
