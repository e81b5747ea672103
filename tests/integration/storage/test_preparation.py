"""``one-to-all storage prepare`` against a real server: what it makes, what it leaves alone, what the user may do."""

import json
import urllib.request
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError
from botocore.stub import Stubber
from typer.testing import CliRunner

from libs.command_line.storage import commands as command_line
from libs.errors import SettingsError, StorageError, StorageUnavailableError
from libs.settings import Settings, get_settings, load_settings
from libs.storage.admin.minio_user import administrator_settings, create_user, least_rights
from libs.storage.admin.preparation import chunk_rule, create_bucket, expire_chunks
from libs.storage.artifacts import ArtifactStore
from libs.storage.backends.factory import store_from_settings
from libs.storage.backends.s3 import S3ObjectStore
from libs.storage.previews import PublicPreviews, allow_public_reading
from tests.s3_server import S3Server
from tests.waiting import HANG_SECONDS

USER, SECRET = "pipeline-user", "e1f4c2a09b7d4c55"


@pytest.fixture
def settings(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """Of the one-shot that prepares: a bucket that is not there, a user who does not exist, the administrator."""
    environment = s3_server.environment(f"prepared-{uuid.uuid4().hex[:12]}") | {
        "S3_ACCESS_KEY": USER,
        "S3_SECRET_KEY": SECRET,
        "S3_PREFIX": "team",
        "S3_PUBLIC_ENDPOINT": s3_server.endpoint,
        "MINIO_ROOT_USER": s3_server.access_key,
        "MINIO_ROOT_PASSWORD": s3_server.secret_key,
        "DATA_DIR": str(tmp_path / "data"),
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    get_settings.cache_clear()
    yield load_settings()
    get_settings.cache_clear()


def prepare(*options: str) -> str:
    result = CliRunner().invoke(command_line.app, ["prepare", *options], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def code(call: Any, **arguments: Any) -> str:
    """The error code of the server's answer; empty if it agreed."""
    try:
        call(**arguments)
    except ClientError as error:
        return error.response["Error"]["Code"]
    return ""


@pytest.mark.s3
def test_bucket_policy_and_user_are_made_once_and_stay(settings: Settings, s3_client: Any, make_files: Any) -> None:
    bucket = settings.s3_bucket_name
    planned = json.loads(prepare().partition("Nothing was changed")[0])
    assert code(s3_client.head_bucket, Bucket=bucket) == "404", "without --apply nothing may be changed"
    assert planned["bucket"] == bucket
    assert planned["rights of the user"]["Statement"][1]["Resource"] == [f"arn:aws:s3:::{bucket}/team/*"]

    first = prepare("--apply")
    assert f"bucket {bucket}: created" in first
    assert "this server offers no lifecycle rules; switch on the schedule remove_old_chunks_daily" in first
    assert f"with the policy one-to-all-{bucket}" in first
    second = prepare("--apply")
    assert f"bucket {bucket}: is there" in second
    policy = json.loads(s3_client.get_bucket_policy(Bucket=bucket)["Policy"])
    assert len(policy["Statement"]) == 1
    for output in (first, second):
        assert SECRET not in output
        assert str(settings.minio_root_password.get_secret_value()) not in output  # type: ignore[union-attr]

    # The user's rights suffice for all that runs do, multipart uploads included.
    store = store_from_settings(settings)
    assert isinstance(store.objects, S3ObjectStore)
    files = make_files({"clip.mp4": b"0" * (20 << 20), "sheet.png": b"picture"}, previews=["sheet.png"])
    manifest = store.publish("animation", "dance-1", files)
    other_host = ArtifactStore(store.objects, settings.data_dir / "cache-of-another-host")
    assert other_host.fetch("animation", "dance-1").path("clip.mp4").stat().st_size == 20 << 20
    addresses = PublicPreviews(store.objects, str(settings.s3_public_endpoint)).publish(manifest, files)
    with urllib.request.urlopen(addresses["sheet.png"], timeout=HANG_SECONDS) as answer:
        assert answer.read() == b"picture"
    key = manifest.file("sheet.png").key
    store.objects.delete(key)
    assert not store.objects.exists(key)


@pytest.mark.s3
def test_the_user_may_do_nothing_else(settings: Settings, s3_client: Any, s3_bucket: str) -> None:
    prepare("--apply")
    objects = store_from_settings(settings).objects
    assert isinstance(objects, S3ObjectStore)
    client, own = objects.client, objects.bucket
    policy = json.dumps({"Version": "2012-10-17", "Statement": []})
    for call, arguments in (
        (client.put_object, {"Bucket": s3_bucket, "Key": "team/stolen", "Body": b"1"}),
        (client.list_objects_v2, {"Bucket": s3_bucket}),
        (client.put_object, {"Bucket": own, "Key": "other-team/stolen", "Body": b"1"}),
        (client.create_bucket, {"Bucket": "another-bucket"}),
        (client.delete_bucket, {"Bucket": own}),
        (client.put_bucket_policy, {"Bucket": own, "Policy": policy}),
    ):
        assert code(call, **arguments) == "AccessDenied", (call, arguments)
    as_user = settings.changed(minio_root_user=USER, minio_root_password=SECRET)
    with pytest.raises(StorageError, match="MinIO refused"):
        create_user(as_user, objects)


@pytest.mark.s3
def test_a_new_secret_is_taken_over(settings: Settings) -> None:
    prepare("--apply")
    renewed = settings.changed(s3_secret_key="a-new-secret-0123456")
    administrator = store_from_settings(administrator_settings(settings)).objects
    assert isinstance(administrator, S3ObjectStore)
    create_user(renewed, administrator)
    store_from_settings(renewed).objects.put_bytes("k", b"1")
    with pytest.raises(StorageError, match="S3_SECRET_KEY"):
        store_from_settings(settings).objects.put_bytes("k", b"2")


@pytest.mark.s3
def test_two_installations_share_a_bucket_and_keep_their_rights(settings: Settings) -> None:
    prepare("--apply")
    neighbours = settings.changed(s3_prefix="another-team", s3_access_key="another-user")
    administrator = store_from_settings(administrator_settings(neighbours)).objects
    assert isinstance(administrator, S3ObjectStore)
    create_user(neighbours, administrator)
    for one, other in ((settings, neighbours), (neighbours, settings)):
        store_from_settings(one).objects.put_bytes("k", b"1")
        with pytest.raises(StorageError, match="access denied"):
            store_from_settings(one.changed(s3_prefix=other.s3_prefix)).objects.put_bytes("k", b"2")


def test_the_administrator_must_not_be_the_user_of_runs(settings: Settings) -> None:
    with pytest.raises(SettingsError, match="every run would be one: choose another name"):
        administrator_settings(settings.changed(s3_access_key=settings.minio_root_user))


@pytest.mark.s3
def test_what_stands_in_the_way_is_explained(settings: Settings, s3_server: S3Server) -> None:
    wrong = settings.changed(minio_root_password="not-the-password")
    administrator = store_from_settings(administrator_settings(wrong)).objects
    assert isinstance(administrator, S3ObjectStore)
    with pytest.raises(StorageError, match="S3_SECRET_KEY"):
        create_bucket(administrator, "us-east-1")
    with pytest.raises(StorageError, match="MINIO_ROOT_PASSWORD") as refused:
        create_user(wrong, administrator)
    assert "not-the-password" not in str(refused.value)
    away = settings.changed(s3_endpoint="http://127.0.0.1:9")
    with pytest.raises(StorageUnavailableError, match="check S3_ENDPOINT"):
        create_user(away, administrator)


def stubbed(prefix: str = "") -> tuple[S3ObjectStore, Stubber]:
    """A bucket whose answers are given here; botocore checks each request against the S3 model."""
    client = boto3.client("s3", region_name="us-east-1", aws_access_key_id="k", aws_secret_access_key="s")
    return S3ObjectStore(client, "clips", prefix), Stubber(client)


def test_the_rule_for_chunks_stands_beside_the_rules_of_others() -> None:
    """The S3 server of the tests has no lifecycle rules: the requests are compared instead."""
    objects, server = stubbed("team")
    others = {"ID": "theirs", "Status": "Enabled", "Filter": {"Prefix": "logs/"}, "Expiration": {"Days": 1}}
    neighbours = chunk_rule(stubbed("another-team")[0], 5)
    rules = {"Rules": [others, neighbours, chunk_rule(objects, 3)]}
    assert chunk_rule(objects, 9)["Filter"] == {"Prefix": "team/chunks/"}
    server.add_response("get_bucket_lifecycle_configuration", rules, {"Bucket": "clips"})
    renewed = {"Rules": [others, neighbours, chunk_rule(objects, 9)]}
    server.add_response(
        "put_bucket_lifecycle_configuration", {}, {"Bucket": "clips", "LifecycleConfiguration": renewed}
    )
    with server:
        assert expire_chunks(objects, 9)
    server.assert_no_pending_responses()


@pytest.mark.parametrize("code", ["AccessDenied", "SlowDown"])
def test_what_others_set_is_not_replaced_where_it_cannot_be_read(code: str) -> None:
    """An answer that says nothing about it is not taken for an empty one."""
    for what, call in (
        ("get_bucket_lifecycle_configuration", lambda objects: expire_chunks(objects, 7)),
        ("get_bucket_policy", allow_public_reading),
    ):
        objects, server = stubbed()
        server.add_client_error(what, code, "", 403)
        with server, pytest.raises(StorageError, match=code) as caught:
            call(objects)
        assert caught.value.retryable == (code == "SlowDown")


@pytest.mark.parametrize("code", ["NotImplemented", "MethodNotAllowed", "MissingContentMD5"])
def test_servers_without_lifecycle_rules_say_so_in_several_ways(code: str) -> None:
    objects, server = stubbed()
    server.add_client_error("get_bucket_lifecycle_configuration", code, "", 400)
    with server:
        assert not expire_chunks(objects, 7)


@pytest.mark.parametrize(("region", "where"), [("us-east-1", {}), ("eu-1", {"LocationConstraint": "eu-1"})])
def test_a_bucket_is_made_in_its_region(region: str, where: dict[str, str]) -> None:
    objects, server = stubbed()
    expected = {"Bucket": "clips", "CreateBucketConfiguration": where} if where else {"Bucket": "clips"}
    server.add_client_error("head_bucket", "404", "", 404)
    server.add_response("create_bucket", {}, expected)
    with server:
        assert create_bucket(objects, region)


def test_the_first_rule_of_a_bucket_and_a_refusal() -> None:
    objects, server = stubbed()
    only = {"Bucket": "clips", "LifecycleConfiguration": {"Rules": [chunk_rule(objects, 7)]}}
    server.add_client_error("get_bucket_lifecycle_configuration", "NoSuchLifecycleConfiguration", "", 404)
    server.add_response("put_bucket_lifecycle_configuration", {}, only)
    server.add_client_error("get_bucket_lifecycle_configuration", "NoSuchLifecycleConfiguration", "", 404)
    server.add_client_error("put_bucket_lifecycle_configuration", "AccessDenied", "", 403)
    with server:
        assert expire_chunks(objects, 7)
        with pytest.raises(StorageError, match="access denied"):
            expire_chunks(objects, 7)


def test_rights_are_those_of_one_bucket_and_prefix() -> None:
    for prefix, below in (("", "arn:aws:s3:::clips/*"), ("team/a", "arn:aws:s3:::clips/team/a/*")):
        of_bucket, of_objects = least_rights(stubbed(prefix)[0])["Statement"]
        assert of_bucket["Resource"] == ["arn:aws:s3:::clips"]
        assert of_objects["Resource"] == [below]
        assert not [action for action in of_bucket["Action"] + of_objects["Action"] if "*" in action]
