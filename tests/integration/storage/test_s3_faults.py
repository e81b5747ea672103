"""What a bucket can answer when something is wrong: a real server, and one that only has faults."""

import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from botocore.awsrequest import AWSResponse

from libs.errors import ArtifactMissingError, SettingsError, StorageError, StorageUnavailableError
from libs.settings import load_settings
from libs.storage.artifacts import ArtifactFiles, ArtifactStore
from libs.storage.backends.client import create_s3_client
from libs.storage.backends.factory import objects_from_settings, store_from_settings
from libs.storage.backends.folder import FolderObjectStore
from libs.storage.backends.s3 import S3ObjectStore
from libs.storage.backends.sha256 import sha256_of_file

pytestmark = pytest.mark.s3


def client(endpoint, access_key="key", secret_key="secret", attempts=2, seconds=60.0):
    import boto3
    from botocore.config import Config

    return boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        config=Config(
            retries={"mode": "standard", "total_max_attempts": attempts}, connect_timeout=60, read_timeout=seconds
        ),
    )


def every_call(objects, tmp_path):
    (tmp_path / "file").write_bytes(b"data")
    digest = sha256_of_file(tmp_path / "file")
    return {
        "put_bytes": lambda: objects.put_bytes("k", b"x"),
        "put_file": lambda: objects.put_file("k", tmp_path / "file", digest, "text/plain"),
        "get_bytes": lambda: objects.get_bytes("k"),
        "get_file": lambda: objects.get_file("k", tmp_path / "copy"),
        "head": lambda: objects.head("k"),
        "exists": lambda: objects.exists("k"),
        "list": lambda: list(objects.list()),
        "delete": lambda: objects.delete("k"),
    }


def assert_every_call_raises(objects, tmp_path, error_class, pattern):
    for name, call in every_call(objects, tmp_path).items():
        with pytest.raises(error_class, match=pattern) as raised:
            call()
        assert type(raised.value) is error_class, name
    assert not (tmp_path / "copy").exists()


class Faulty(BaseHTTPRequestHandler):
    """Answers every request the same way."""

    status, code, cut, hangs = 503, "SlowDown", False, False
    end = threading.Event()

    def answer(self):
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.hangs:
            self.end.wait()
        body = f"<Error><Code>{self.code}</Code><Message>not today</Message></Error>".encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(body) * (1000 if self.cut else 1)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = answer  # noqa: N815 - names that http.server looks for

    def log_message(self, *arguments):
        pass


@pytest.fixture
def faulty_server():
    servers, end = [], threading.Event()

    def start(**behaviour) -> str:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Faulty,), {**behaviour, "end": end}))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    end.set()
    for server in servers:
        server.shutdown()


@pytest.mark.slow
@pytest.mark.parametrize(("status", "code"), [(503, "SlowDown"), (500, "InternalError"), (502, "BadGateway")])
def test_faults_of_the_server_are_worth_trying_again(faulty_server, tmp_path, status, code):
    objects = S3ObjectStore(client(faulty_server(status=status, code=code)), "bucket")
    assert_every_call_raises(objects, tmp_path, StorageUnavailableError, r"s3://bucket/.* at http://127\.0\.0\.1")
    assert StorageUnavailableError.retryable


def test_a_fault_is_known_while_the_upload_still_ends_in_its_thread(faulty_server, tmp_path, monkeypatch):
    """As on a busy machine."""
    controller = "s3transfer.manager.TransferCoordinatorController"
    monkeypatch.setattr(f"{controller}.remove_transfer_coordinator", lambda *_: None)
    objects = S3ObjectStore(client(faulty_server(status=503, code="SlowDown"), attempts=1), "bucket")
    with pytest.raises(StorageUnavailableError, match="SlowDown"):
        every_call(objects, tmp_path)["put_file"]()


def test_a_full_disk_of_the_server_is_worth_trying_again(faulty_server):
    objects = S3ObjectStore(client(faulty_server(status=507, code="XMinioStorageFull")), "bucket")
    with pytest.raises(StorageUnavailableError, match="the server's disk is full"):
        objects.put_bytes("k", b"x")


def test_a_listing_that_is_not_found_is_no_missing_object(faulty_server):
    """A web server, or a proxy, in the place of an S3 server."""
    objects = S3ObjectStore(client(faulty_server(status=404, code="NotFound")), "bucket")
    with pytest.raises(
        StorageError, match=r"cannot be listed \(404\); check that S3_ENDPOINT is an S3 server"
    ) as caught:
        list(objects.list("animation/"))
    assert type(caught.value) is StorageError


def test_no_server_is_worth_trying_again_and_names_the_setting(tmp_path):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        objects = S3ObjectStore(client(f"http://127.0.0.1:{unused.getsockname()[1]}", attempts=1), "bucket")
        assert_every_call_raises(objects, tmp_path, StorageUnavailableError, "S3_ENDPOINT")


@pytest.mark.slow
def test_a_server_that_does_not_answer_in_time_is_worth_trying_again(faulty_server, tmp_path):
    objects = S3ObjectStore(client(faulty_server(hangs=True), attempts=1, seconds=0.5), "bucket")
    for name, call in every_call(objects, tmp_path).items():
        if name != "get_file":  # s3transfer tries five times
            with pytest.raises(StorageUnavailableError, match=r"Timeout.*S3_ENDPOINT"):
                call()


def test_a_download_that_breaks_off_leaves_nothing(faulty_server, tmp_path):
    objects = S3ObjectStore(client(faulty_server(status=200, cut=True), attempts=1), "bucket")
    with pytest.raises(StorageUnavailableError):
        objects.get_bytes("k")
    with pytest.raises(StorageError):
        objects.get_file("k", tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("status", "code", "advice"),
    [
        (403, "RequestTimeTooSkewed", "clock"),
        (403, "AccessDenied", "S3_ACCESS_KEY"),
        (400, "AuthorizationHeaderMalformed", "S3_REGION"),
        (400, "EntityTooLarge", "larger than the server accepts"),
        (418, "Teapot", "not today"),
    ],
)
def test_refusals_name_what_to_change_and_are_final(faulty_server, status, code, advice):
    objects = S3ObjectStore(client(faulty_server(status=status, code=code)), "bucket")
    with pytest.raises(StorageError, match=advice) as refused:
        objects.put_bytes("k", b"x")
    assert not refused.value.retryable


@pytest.mark.parametrize(("held", "words"), [(b"da", "holds 2 bytes"), (None, "holds nothing")])
def test_a_server_that_holds_less_than_was_sent_is_worth_trying_again(
    s3_client, s3_bucket, tmp_path, monkeypatch, held, words
):
    def lossy(_transfer, path, bucket, key, **options):
        if held is not None:
            s3_client.put_object(Bucket=bucket, Key=key, Body=held)

    objects = S3ObjectStore(s3_client, s3_bucket)
    monkeypatch.setattr("boto3.s3.transfer.S3Transfer.upload_file", lossy)
    with pytest.raises(StorageUnavailableError, match=f"sent 4 bytes, the server {words}; try again"):
        every_call(objects, tmp_path)["put_file"]()


def test_folders_are_no_objects(s3_client, s3_bucket):
    s3_client.put_object(Bucket=s3_bucket, Key="inbox/folder/", Body=b"")
    objects = S3ObjectStore(s3_client, s3_bucket)
    objects.put_bytes("inbox/file", b"1")
    assert [info.key for info in objects.list()] == ["inbox/file"]


def test_a_missing_bucket_is_named(s3_server, tmp_path):
    objects = S3ObjectStore(client(s3_server.endpoint, s3_server.access_key, s3_server.secret_key), "no-such-bucket")
    assert_every_call_raises(
        objects, tmp_path, StorageError, r"s3://no-such-bucket.*creates it, or correct S3_BUCKET_NAME"
    )
    with pytest.raises(StorageError, match="S3_BUCKET_NAME"):
        ArtifactStore(objects, tmp_path / "cache").fetch("a", "p")


@pytest.mark.parametrize("wrong", ["access", "secret"])
def test_wrong_keys_are_named_but_not_shown(s3_server, s3_bucket, tmp_path, wrong):
    access = "wrong-access" if wrong == "access" else s3_server.access_key
    objects = S3ObjectStore(client(s3_server.endpoint, access, "wrong-secret-key"), s3_bucket)
    for call in every_call(objects, tmp_path).values():
        with pytest.raises(StorageError, match=rf"S3_{wrong.upper()}_KEY") as refused:
            call()
        assert not refused.value.retryable
        assert "wrong-secret-key" not in str(refused.value)


def test_plain_http_asked_for_https(s3_server, s3_bucket):
    objects = S3ObjectStore(client(s3_server.endpoint.replace("http:", "https:"), attempts=1), s3_bucket)
    with pytest.raises(StorageError, match="https or http in S3_ENDPOINT"):
        objects.put_bytes("k", b"x")


def test_the_client_of_dagster_aws_works_as_well(s3_server, s3_bucket, tmp_path):
    from dagster_aws.s3 import S3Resource

    resource = S3Resource(
        endpoint_url=s3_server.endpoint,
        region_name="us-east-1",
        aws_access_key_id=s3_server.access_key,
        aws_secret_access_key=s3_server.secret_key,
    )
    store = ArtifactStore(S3ObjectStore(resource.get_client(), s3_bucket), tmp_path / "cache")
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "clip.mp4").write_bytes(b"x" * 20_000_000)
    manifest = store.publish("a", "p", ArtifactFiles(tmp_path / "files"))
    fetched = ArtifactStore(store.objects, tmp_path / "fresh").fetch("a", "p")
    assert fetched.path("clip.mp4").stat().st_size == 20_000_000
    head = resource.get_client().head_object(Bucket=s3_bucket, Key=manifest.files[0].key)
    assert head["ContentType"] == "video/mp4"
    assert "immutable" in head["CacheControl"]


def test_settings_choose_the_store(s3_server, s3_bucket, tmp_path, monkeypatch):
    monkeypatch.setenv("DATA_DIR", str(tmp_path))
    for name in ("S3_ENDPOINT", "S3_ACCESS_KEY", "S3_SECRET_KEY", "S3_BUCKET_NAME", "S3_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    in_folder = objects_from_settings(load_settings())
    assert isinstance(in_folder, FolderObjectStore)
    assert in_folder.root == tmp_path / "artifacts"
    with pytest.raises(SettingsError, match="S3_ENDPOINT is not set"):
        create_s3_client(load_settings())
    for name, value in (s3_server.environment(s3_bucket) | {"S3_PREFIX": "team/"}).items():
        monkeypatch.setenv(name, value)
    store = store_from_settings(load_settings())
    assert store.objects.uri("x") == f"s3://{s3_bucket}/team/x"
    store.objects.put_bytes("x", b"1")
    with pytest.raises(ArtifactMissingError):
        store.fetch("a", None)
    monkeypatch.setenv("S3_ENDPOINT", "no address")
    with pytest.raises(SettingsError, match="S3_ENDPOINT='no address'"):
        create_s3_client(load_settings())


def test_choosing_a_folder_never_loads_boto3(tmp_path):
    import subprocess
    import sys

    code = (
        "import sys; from pathlib import Path; "
        "from libs.storage import artifacts; "
        "from libs.storage.backends import client, factory, folder, s3, s3_errors; "
        f"folder.FolderObjectStore(Path({str(tmp_path)!r})).put_bytes('k', b'x'); "
        "assert 'boto3' not in sys.modules and 'botocore' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).resolve().parents[3])


def test_an_upload_is_sent_again_where_its_folder_was_removed_just_then(s3_client, s3_bucket, tmp_path: Path) -> None:
    """A server that keeps objects as files removes a folder with its last object, and has no place for the new one."""
    objects = S3ObjectStore(s3_client, s3_bucket)
    refused: list[str] = []

    def has_no_folder(request, **_):
        if refused.count(request.url) == 2:
            return None
        refused.append(request.url)
        answer = AWSResponse(request.url, 404, {"Content-Type": "application/xml"}, None)
        answer._content = b"<Error><Code>NoSuchKey</Code><Message>The specified key does not exist.</Message></Error>"
        return answer

    s3_client.meta.events.register("before-send.s3.PutObject", has_no_folder)
    (tmp_path / "file").write_bytes(b"data")
    objects.put_bytes("claims/a", b"data")
    objects.put_file("claims/b", tmp_path / "file", sha256_of_file(tmp_path / "file"), "text/plain")
    assert [objects.get_bytes(f"claims/{name}") for name in "ab"] == [b"data"] * 2
    assert len(refused) == 4
