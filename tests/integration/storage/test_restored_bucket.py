"""A bucket brought back from a backup (docs/operations.md): by a copy that keeps metadata, and by one that loses it."""

from pathlib import Path
from typing import Any

import pytest

from libs.housekeeping.inspection import inspect
from libs.storage.artifacts import ArtifactStore
from libs.storage.backends.s3 import S3ObjectStore

pytestmark = pytest.mark.s3


@pytest.fixture
def lost(s3_client: Any, s3_bucket: str, make_files: Any, tmp_path: Path) -> ArtifactStore:
    """A store with two contents of one clip."""
    store = ArtifactStore(S3ObjectStore(s3_client, s3_bucket), tmp_path / "cache")
    for content in (b"first", b"second"):
        store.publish("animation", "dance-1", make_files({"clip.mp4": content}))
    return store


@pytest.mark.parametrize("keeps_metadata", [True, False])
def test_a_restored_bucket_is_whole_and_in_use(
    lost: ArtifactStore, s3_client: Any, make_files: Any, tmp_path: Path, keeps_metadata: bool
) -> None:
    source, target = lost.objects.bucket, f"{lost.objects.bucket}-restored"  # type: ignore[attr-defined]
    s3_client.create_bucket(Bucket=target)
    for info in lost.objects.list():
        if keeps_metadata:  # from server to server
            s3_client.copy({"Bucket": source, "Key": info.key}, target, info.key)
        else:  # by way of files
            s3_client.put_object(Bucket=target, Key=info.key, Body=lost.objects.get_bytes(info.key))
    restored = ArtifactStore(S3ObjectStore(s3_client, target), tmp_path / "cache-of-the-restored")
    found = inspect(restored.objects, full=True)
    assert (found.problems, found.orphans, found.manifests) == ((), (), 3)
    assert restored.fetch("animation", "dance-1").path("clip.mp4").read_bytes() == b"second"
    before = restored.manifest("animation", "dance-1")
    assert before is not None
    again = restored.publish("animation", "dance-1", make_files({"clip.mp4": b"second"}))
    assert again.digest == before.digest
    third = restored.publish("animation", "dance-1", make_files({"clip.mp4": b"third"}))
    assert restored.fetch("animation", "dance-1").path("clip.mp4").read_bytes() == b"third"
    assert restored.fetch("animation", "dance-1", before.digest).path("clip.mp4").read_bytes() == b"second"
    assert third.digest != before.digest
