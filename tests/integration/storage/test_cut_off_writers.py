"""Every writer to the bucket, cut off from the server before each of its writes: what is read is the old or the new."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libs.errors import StorageUnavailableError
from libs.requests.documents.animation_request import AnimationRequest
from libs.requests.inbox.inbox import Inbox
from libs.requests.lifecycle.accepted import AcceptedRequests
from libs.settings import load_settings
from libs.storage.artifacts import ArtifactFiles, ArtifactStore
from libs.storage.backends import client as client_module
from libs.storage.backends.client import create_s3_client
from libs.storage.backends.s3 import S3ObjectStore
from libs.storage.chunks import StoredChunks
from tests.s3_server import S3Server
from tests.tcp_proxy import TcpProxy, tcp_proxy

WRITES = {"PutObject", "CreateMultipartUpload", "UploadPart", "CompleteMultipartUpload", "DeleteObject"}
LARGE = (8 << 20) + 1
"""Bytes of a file that goes up in two parts."""


@dataclass(frozen=True)
class Writer:
    """``write(objects, folder, version)`` stores version 1 or 2; ``read(objects, folder)`` says which one is there."""

    write: Callable[[S3ObjectStore, Path, int], Any]
    read: Callable[[S3ObjectStore, Path], Any]
    may_be_lost: bool = False


def _file(folder: Path, version: int) -> Path:
    path = folder / f"version-{version}" / "clip.mp4"
    if not path.exists():
        path.parent.mkdir(parents=True)
        path.write_bytes(bytes([version]) * LARGE)
    return path


def _read_artifact(objects: S3ObjectStore, folder: Path) -> int:
    store = ArtifactStore(objects, folder / f"cache-{len(list(folder.iterdir()))}")
    return store.fetch("animation", "p").path("clip.mp4").read_bytes()[0]


def _request(version: int) -> AnimationRequest:
    fields = {"id": "p", "reference": "a.png", "driver": "b.mp4", "model": "sandbox", "seed": version}
    return AnimationRequest.model_validate(fields)


def _read_request(objects: S3ObjectStore, folder: Path) -> int:
    requests = AcceptedRequests(objects)
    accepted = requests.find("p")
    assert accepted is not None
    assert requests.is_pending(accepted), "every accepted request is pending"
    return accepted.request.seed


def _read_chunk(objects: S3ObjectStore, folder: Path) -> int | None:
    loaded = StoredChunks(objects, "chunks/p/x").load(0)
    return None if loaded is None else int(loaded[0, 0, 0, 0])


WRITERS = {
    "artifact": Writer(
        lambda objects, folder, version: ArtifactStore(objects, folder / "writers cache").publish(
            "animation", "p", ArtifactFiles(_file(folder, version).parent)
        ),
        _read_artifact,
    ),
    "media": Writer(
        lambda objects, folder, version: Inbox(objects).put("clip.mp4", _file(folder, version)),
        lambda objects, folder: objects.get_bytes("inbox/clip.mp4")[0],
    ),
    "request": Writer(
        lambda objects, folder, version: AcceptedRequests(objects).accept(
            _request(version), {}, document="p.json", default_model="sandbox"
        ),
        _read_request,
    ),
    "chunk": Writer(
        lambda objects, folder, version: StoredChunks(objects, "chunks/p/x").save(
            0, np.full((2, 4, 4, 3), version, np.uint8)
        ),
        _read_chunk,
        may_be_lost=True,  # it is made again
    ),
}


@pytest.fixture
def objects_through(s3_server: S3Server, s3_bucket: str, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """``objects_through(endpoint, prefix)``: the store of production, with clients that try once."""
    monkeypatch.setattr(client_module, "client_config", partial(client_module.client_config, attempts=1))
    environment = s3_server.environment(s3_bucket)

    def make(endpoint: str, prefix: str) -> S3ObjectStore:
        for name, value in (environment | {"S3_ENDPOINT": endpoint}).items():
            monkeypatch.setenv(name, value)
        return S3ObjectStore(create_s3_client(load_settings()), s3_bucket, prefix)

    return make


def cut_off_after(objects: S3ObjectStore, proxy: TcpProxy, writes: int) -> None:
    """From write number ``writes`` on no connection through ``proxy`` lasts."""
    seen = itertools.count()

    def count(model: Any, **_: Any) -> None:
        if model.name in WRITES and next(seen) >= writes:
            proxy.reset_after, proxy.resets_left = 1, 10**6

    objects.client.meta.events.register("before-call.s3", count)


@pytest.mark.s3
@pytest.mark.slow
@pytest.mark.parametrize("name", list(WRITERS))
def test_what_is_read_is_what_was_there_or_what_came(
    name: str, s3_server: S3Server, objects_through: Callable[..., Any], tmp_path: Path
) -> None:
    writer = WRITERS[name]
    for writes in range(20):
        place = f"{name}/{writes}"
        with tcp_proxy(s3_server.endpoint) as proxy:
            direct, through = objects_through(s3_server.endpoint, place), objects_through(proxy.endpoint, place)
            writer.write(direct, tmp_path, 1)
            assert writer.read(direct, tmp_path) == 1
            cut_off_after(through, proxy, writes)
            try:
                writer.write(through, tmp_path, 2)
                finished = True
            except StorageUnavailableError as error:
                assert error.retryable
                finished = False
            assert writer.read(direct, tmp_path) in ({1, 2, None} if writer.may_be_lost else {1, 2})
            writer.write(direct, tmp_path, 2)
            assert writer.read(direct, tmp_path) == 2, "trying again makes it whole"
        if finished:
            assert writes > 0, "nothing was cut off"
            return
    pytest.fail("the writer never came to an end")
