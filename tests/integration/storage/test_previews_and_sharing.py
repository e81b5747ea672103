"""Headers of stored objects, addresses that do not expire, and addresses that do: asked for as a browser would."""

import json
import logging
import urllib.error
import urllib.request
from datetime import timedelta
from email.message import Message
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import dagster as dg
import pytest

from libs.errors import ArtifactCorruptError, ArtifactMissingError, InputError, SettingsError
from libs.settings import Settings, load_settings
from libs.storage.artifacts import ArtifactStore
from libs.storage.backends.factory import store_from_settings
from libs.storage.backends.s3 import S3ObjectStore
from libs.storage.previews import PublicPreviews, allow_public_reading
from libs.storage.sharing import share
from tests.s3_server import S3Server
from tests.tcp_proxy import tcp_proxy
from tests.waiting import HANG_SECONDS, wait_until

DAY = timedelta(days=1)


@pytest.fixture
def settings(s3_server: S3Server, s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Settings of this process: the bucket, with a prefix."""
    environment = s3_server.environment(s3_bucket) | {"S3_PREFIX": "team/clips", "DATA_DIR": str(tmp_path / "data")}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return load_settings()


def get(address: str, method: str = "GET") -> tuple[int, bytes, Message]:
    try:
        with urllib.request.urlopen(urllib.request.Request(address, method=method), timeout=HANG_SECONDS) as answer:
            return answer.status, answer.read(), answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.read(), error.headers


@pytest.mark.s3
def test_previews_have_stable_addresses_for_everybody_and_nothing_else_has(
    settings: Settings, s3_server: S3Server, make_files: Any
) -> None:
    store = store_from_settings(settings)
    assert isinstance(store.objects, S3ObjectStore)
    files = make_files({"sheet.png": b"picture", "face.png": b"private"}, previews=["sheet.png"])
    manifest = store.publish("animation_review", "p", files)
    addresses = PublicPreviews(store.objects, f"{s3_server.endpoint}/").publish(manifest, files)
    assert list(addresses) == ["sheet.png"]
    assert "?" not in addresses["sheet.png"]
    assert get(addresses["sheet.png"])[0] == 403
    policy = allow_public_reading(store.objects)
    assert allow_public_reading(store.objects) == policy, "asking twice changes nothing"
    status, body, headers = get(addresses["sheet.png"])
    assert (status, body) == (200, b"picture")
    assert headers["Content-Type"] == "image/png"
    assert headers["Cache-Control"] == "public, max-age=31536000, immutable"
    bucket = f"{s3_server.endpoint}/{store.objects.bucket}"
    neighbours = ("team/clips/previews-of-mine/a", "team/clips/previewsx", "previews/a", "team/a")
    for key in neighbours:
        store.objects.client.put_object(Bucket=store.objects.bucket, Key=key, Body=b"private")
    for private in (
        *(f"{bucket}/{key}" for key in neighbours),
        f"{bucket}/{store.objects.full_key(manifest.file('face.png').key)}",
        f"{bucket}/{store.objects.full_key(manifest.file('sheet.png').key)}",
        f"{bucket}/{store.objects.full_key('animation_review/p/manifest.json')}",
        f"{bucket}?list-type=2&prefix=team/clips/previews/",
    ):
        assert get(private)[0] == 403, private
    assert get(addresses["sheet.png"], "DELETE")[0] == 403


@pytest.mark.s3
def test_the_policy_keeps_the_statements_of_others(settings: Settings, s3_client: Any) -> None:
    objects = store_from_settings(settings).objects
    assert isinstance(objects, S3ObjectStore)
    other = {
        "Sid": "Other",
        "Effect": "Allow",
        "Principal": {"AWS": ["*"]},
        "Action": ["s3:GetObject"],
        "Resource": [f"arn:aws:s3:::{objects.bucket}/public/*"],
    }
    document = json.dumps({"Version": "2012-10-17", "Statement": [other]})
    s3_client.put_bucket_policy(Bucket=objects.bucket, Policy=document)
    allow_public_reading(objects)
    neighbour = S3ObjectStore(s3_client, objects.bucket, "another/prefix")
    allow_public_reading(neighbour)
    policy = json.loads(s3_client.get_bucket_policy(Bucket=objects.bucket)["Policy"])
    public = {resource for statement in policy["Statement"] for resource in statement["Resource"]}
    places = ("public", "team/clips/previews", "another/prefix/previews")
    assert public == {f"arn:aws:s3:::{objects.bucket}/{place}/*" for place in places}
    assert len({statement["Sid"] for statement in policy["Statement"]}) == 3


@pytest.mark.parametrize("prefix", ["team*", "t?am/clips", "${aws:username}"])
def test_a_prefix_that_a_policy_would_take_for_a_pattern_is_refused(tmp_path: Path, prefix: str) -> None:
    settings = Settings(data_dir=tmp_path, _env_file=None, s3_endpoint=None)  # type: ignore[call-arg]
    with pytest.raises(SettingsError, match="S3_PREFIX"):
        settings.changed(s3_prefix=prefix)


@pytest.mark.s3
def test_a_shared_address_shows_the_clip_until_it_expires(settings: Settings, make_files: Any) -> None:
    store = store_from_settings(settings)
    store.publish("animation", "dance-1", make_files({"clip.mp4": b"moving pictures"}))
    address = share(store, settings, "animation", "dance-1", "clip.mp4", timedelta(hours=24))
    status, body, headers = get(address)
    assert (status, body) == (200, b"moving pictures")
    assert headers["Content-Type"] == "video/mp4"
    assert headers["Content-Disposition"] == 'inline; filename="dance-1.mp4"'
    assert parse_qs(urlsplit(address).query)["X-Amz-Expires"] == ["86400"]
    assert get(address.partition("?")[0])[0] == 403
    assert get(address, "PUT")[0] == 403
    tampered = address.replace("clip.mp4?", "other.mp4?")
    assert tampered != address
    assert get(tampered)[0] == 403
    short = share(store, settings, "animation", "dance-1", "clip.mp4", timedelta(seconds=1))
    wait_until("it expires", lambda: get(short)[0] == 403)


@pytest.mark.s3
def test_a_shared_address_is_one_that_browsers_reach(settings: Settings, s3_server: S3Server, make_files: Any) -> None:
    with tcp_proxy(s3_server.endpoint) as proxy:
        outside = settings.changed(s3_public_endpoint=proxy.endpoint)
        store = store_from_settings(outside)
        store.publish("animation", "p", make_files({"clip.mp4": b"moving"}))
        assert proxy.sent == 0
        address = share(store, outside, "animation", "p", "clip.mp4", DAY)
        assert address.startswith(f"{proxy.endpoint}/")
        assert get(address)[:2] == (200, b"moving")
        assert proxy.sent > 0


def test_sharing_from_a_folder_is_a_path(tmp_path: Path, make_files: Any) -> None:
    settings = Settings(data_dir=tmp_path, _env_file=None, s3_endpoint=None)  # type: ignore[call-arg]
    store = store_from_settings(settings)
    store.publish("animation", "p", make_files({"clip.mp4": b"moving"}))
    assert Path(share(store, settings, "animation", "p", "clip.mp4", DAY)).read_bytes() == b"moving"


def test_what_cannot_be_shared_is_explained(store: ArtifactStore, make_files: Any, tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path, _env_file=None, s3_endpoint=None)  # type: ignore[call-arg]
    manifest = store.publish("animation", "p", make_files({"clip.mp4": b"moving"}))
    for seconds in (0, 7 * 86400 + 1):
        with pytest.raises(InputError, match="--expires must be between 1s and 7d"):
            share(store, settings, "animation", "p", "clip.mp4", timedelta(seconds=seconds))
    with pytest.raises(ArtifactMissingError, match=r"no file 'clip\.avi'; it has clip\.mp4"):
        share(store, settings, "animation", "p", "clip.avi", DAY)
    with pytest.raises(ArtifactMissingError, match="--select animation --partition unknown"):
        share(store, settings, "animation", "unknown", "clip.mp4", DAY)
    store.objects.delete(manifest.files[0].key)
    with pytest.raises(ArtifactCorruptError, match="--select animation --partition p"):
        share(store, settings, "animation", "p", "clip.mp4", DAY)


@pytest.mark.parametrize("name", ["s3_endpoint", "s3_public_endpoint"])
def test_an_address_with_a_password_in_it_is_refused_without_showing_it(tmp_path: Path, name: str) -> None:
    settings = Settings(data_dir=tmp_path, _env_file=None, s3_endpoint=None)  # type: ignore[call-arg]
    with pytest.raises(SettingsError, match=name.upper()) as refused:
        settings.changed(**{name: "http://user:hunter2@127.0.0.1:9000"})
    assert "hunter2" not in str(refused.value)


@pytest.mark.s3
@pytest.mark.parametrize("public", [True, False])
def test_runs_write_preview_addresses_and_never_a_credential_or_a_signature(
    settings: Settings,
    s3_server: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    public: bool,
) -> None:
    from orchestration.storage.io_manager import ArtifactIOManager
    from orchestration.storage.outputs import folder_output
    from orchestration.storage.resources import SettingsResource, StorageResource

    if public:
        monkeypatch.setenv("S3_PUBLIC_ENDPOINT", s3_server.endpoint)
    folder = tmp_path / "sheet"
    folder.mkdir()
    (folder / "sheet.png").write_bytes(b"picture")

    @dg.asset
    def reviewed() -> dg.Output:
        return folder_output(folder, previews=["sheet.png"])

    @dg.asset
    def refused(reviewed: Any) -> dg.Output:
        monkeypatch.setenv("S3_SECRET_KEY", "another-secret")  # its output meets an error of the store
        other = tmp_path / "other"
        other.mkdir()
        (other / "f").write_bytes(b"1")
        return folder_output(other)

    storage = StorageResource(settings=SettingsResource())
    with (
        caplog.at_level(logging.INFO),
        caplog.at_level(logging.DEBUG, "libs"),
        dg.DagsterInstance.ephemeral() as instance,
    ):
        result = dg.materialize(
            [reviewed, refused],
            resources={"io_manager": ArtifactIOManager(storage=storage)},
            instance=instance,
            raise_on_error=False,
        )
        address = share(store_from_settings(settings), settings, "reviewed", None, "sheet.png", DAY)
        assert get(address)[0] == 200
        records = [dg.serialize_value(record) for record in instance.all_logs(result.run_id)]
    assert not result.success
    written = "\n".join([*records, caplog.text, *capfd.readouterr()])
    assert "S3_SECRET_KEY" in written, "the refusal is explained"
    assert written.count("sheet.png") > 2
    assert (f"![sheet.png]({s3_server.endpoint}/" in written) == public
    for secret in (s3_server.secret_key, "another-secret", "X-Amz-Signature", "X-Amz-Credential", address):
        assert secret not in written
    for info in store_from_settings(settings).objects.list():
        data = store_from_settings(settings).objects.get_bytes(info.key)
        assert s3_server.secret_key.encode() not in data
        assert b"X-Amz-" not in data
