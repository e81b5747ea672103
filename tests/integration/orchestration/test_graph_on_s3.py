"""The same graph with everything stored in a real S3 server."""

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from libs.media.video.probe import probe_video
from libs.sandbox.media import write_puppet_clip, write_puppet_picture
from libs.settings import load_settings
from libs.storage.backends.factory import store_from_settings
from libs.storage.backends.s3 import S3ObjectStore
from libs.storage.previews import allow_public_reading
from tests.integration.orchestration.shown_metadata import PICTURES, is_animated, picture_address, shown_by
from tests.s3_server import S3Server
from tests.waiting import HANG_SECONDS


@pytest.mark.slow
@pytest.mark.s3
def test_outputs_are_stored_in_the_bucket_and_secrets_nowhere(
    world: Any,
    s3_server: S3Server,
    s3_bucket: str,
    s3_client: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in s3_server.environment(s3_bucket).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("S3_PUBLIC_ENDPOINT", s3_server.endpoint)
    store = store_from_settings(load_settings())
    assert isinstance(store.objects, S3ObjectStore)
    allow_public_reading(store.objects)
    inbox_folder = tmp_path / "inbox"
    inbox_folder.mkdir()
    write_puppet_picture(inbox_folder / "puppet.png")
    write_puppet_clip(inbox_folder / "dance.mp4", frame_count=5)
    request = {"id": "in-s3", "reference": "puppet.png", "driver": "dance.mp4", "model": "sandbox", "steps": 1}
    (inbox_folder / "in-s3.json").write_text(json.dumps(request))
    for path in inbox_folder.iterdir():  # as another program puts it there: no digest is recorded
        s3_client.upload_file(str(path), s3_bucket, f"inbox/{path.name}")

    prepared = world.prepare_models()
    result = world.animate("in-s3")

    assert prepared.success
    assert result.success
    keys = {entry["Key"] for entry in s3_client.list_objects_v2(Bucket=s3_bucket)["Contents"]}
    clips = [key for key in keys if key.startswith("animation/in-s3/") and key.endswith("clip.mp4")]
    assert len(clips) == 1
    assert s3_client.head_object(Bucket=s3_bucket, Key=clips[0])["ContentType"] == "video/mp4"
    assert not [key for key in keys if key.startswith("chunks/")]
    assert probe_video(store.fetch("animation", "in-s3").path("clip.mp4")).frame_count == 5
    folder = world.data_dir / "artifacts"
    assert not (folder / "animation" / "in-s3").exists(), "nothing is stored in the folder beside the bucket"
    for run in (prepared, result):
        for record in world.instance.all_logs(run.run_id):
            assert s3_server.secret_key not in dg.serialize_value(record)

    shown = shown_by(result)
    for asset, pictures in PICTURES.items():
        for name, moves in pictures.items():
            address = picture_address(shown[asset][name])
            assert address.startswith(f"{s3_server.endpoint}/{s3_bucket}/previews/{asset}/in-s3/")
            with urllib.request.urlopen(address, timeout=HANG_SECONDS) as answer:
                assert is_animated(answer.read()) == moves
    clip = shown["animation"]["clip"]
    assert isinstance(clip, dg.UrlMetadataValue)
    assert clip.url == f"{s3_server.endpoint}/{s3_bucket}/{clips[0]}"
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(clip.url, timeout=HANG_SECONDS)
