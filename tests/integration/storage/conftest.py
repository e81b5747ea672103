"""Every test here runs against both stores: a folder, and a bucket of a real S3 server."""

from pathlib import Path

import pytest

from libs.storage.artifacts import ArtifactFiles, ArtifactStore
from libs.storage.backends.folder import FolderObjectStore
from libs.storage.backends.s3 import S3ObjectStore
from libs.storage.backends.store import ObjectStore


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.s3)])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> ObjectStore:
    """An empty object store."""
    if request.param == "folder":
        return FolderObjectStore(tmp_path / "store")
    return S3ObjectStore(request.getfixturevalue("s3_client"), request.getfixturevalue("s3_bucket"), "some/prefix")


@pytest.fixture
def store(objects: ObjectStore, tmp_path: Path) -> ArtifactStore:
    """An artifact store on it, with an empty cache."""
    return ArtifactStore(objects, tmp_path / "cache")


@pytest.fixture
def make_files(tmp_path: Path):
    """``make_files({"name": bytes})``: a new scratch folder with these files, as an asset hands it over."""
    count = 0

    def make(contents: dict[str, bytes], **options) -> ArtifactFiles:
        nonlocal count
        count += 1
        folder = tmp_path / f"scratch-{count}"
        for name, data in contents.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        return ArtifactFiles(folder, **options)

    return make
