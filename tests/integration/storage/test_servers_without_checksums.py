"""An S3 server that refuses the checksum headers of newer clients: a real server behind a proxy that does so."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest

from libs.errors import StorageError
from libs.settings import load_settings
from libs.storage.artifacts import ArtifactFiles, ArtifactStore
from libs.storage.backends.factory import objects_from_settings
from orchestration.storage.resources import SettingsResource, StorageResource

pytestmark = pytest.mark.s3

REFUSED = ("x-amz-sdk-checksum-algorithm", "x-amz-trailer", "x-amz-checksum-mode")


class WithoutChecksums(BaseHTTPRequestHandler):
    """Passes requests on, but for those with a header that the server does not know."""

    protocol_version = "HTTP/1.1"
    target: str
    answer = (400, "InvalidArgument", "Unsupported header '{header}' received for this API call.")

    def forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        for header in REFUSED:
            if header in self.headers:
                self.refuse(header)
                return
        connection = http.client.HTTPConnection(self.target)
        connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
        for name, value in self.headers.items():  # the signature covers the Host header
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        content = answer.read()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in {"connection", "transfer-encoding", "date", "server"}:
                self.send_header(name, value)
        if answer.getheader("Content-Length") is None:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
        connection.close()

    def refuse(self, header: str) -> None:
        status, code, message = self.answer
        body = f"<Error><Code>{code}</Code><Message>{message.format(header=header)}</Message></Error>".encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_GET = do_PUT = do_HEAD = do_DELETE = do_POST = forward  # noqa: N815 - names that http.server looks for

    def log_message(self, *arguments) -> None:
        pass


@contextmanager
def proxy_without_checksums(endpoint: str, answer: tuple[int, str, str] | None = None) -> Iterator[str]:
    behaviour = {"target": urlsplit(endpoint).netloc} | ({"answer": answer} if answer else {})
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (WithoutChecksums,), behaviour))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(name="use")
def _use(s3_server, s3_bucket, tmp_path, monkeypatch):
    """Points the settings at another address of the server."""

    def use(endpoint: str, **more: str) -> None:
        settings = s3_server.environment(s3_bucket) | {"S3_ENDPOINT": endpoint, "DATA_DIR": str(tmp_path)} | more
        for name, value in settings.items():
            monkeypatch.setenv(name, value)

    return use


@pytest.mark.parametrize(
    "answer",
    [
        None,
        (501, "NotImplemented", "A header you provided implies functionality that is not implemented."),
        (400, "XAmzContentSHA256Mismatch", "The provided 'x-amz-content-sha256' header does not match."),
    ],
)
def test_the_error_names_the_setting(s3_server, use, answer):
    with proxy_without_checksums(s3_server.endpoint, answer) as endpoint:
        use(endpoint)
        with pytest.raises(StorageError, match="S3_CHECKSUMS=false") as refused:
            objects_from_settings(load_settings()).put_bytes("k", b"x")
    assert not refused.value.retryable


@pytest.mark.parametrize("through", ["the command line's client", "dagster_aws"])
def test_without_checksums_everything_can_be_stored_and_read(s3_server, use, tmp_path, through):
    with proxy_without_checksums(s3_server.endpoint) as endpoint:
        use(endpoint, S3_CHECKSUMS="false")
        settings = load_settings()
        dagster_storage = StorageResource(settings=SettingsResource())
        objects = dagster_storage.objects() if through == "dagster_aws" else objects_from_settings(settings)
        files = tmp_path / "files"
        files.mkdir()
        (files / "small.json").write_text("{}")
        (files / "clip.mp4").write_bytes(bytes(20_000_000))  # goes up in parts
        ArtifactStore(objects, tmp_path / "cache").publish("animation", "dance", ArtifactFiles(files))
        fetched = ArtifactStore(objects, tmp_path / "elsewhere").fetch("animation", "dance")
        assert fetched.path("clip.mp4").stat().st_size == 20_000_000
        assert [info.key for info in objects.list("animation/")]
        objects.delete(next(iter(objects.list("animation/"))).key)


def test_without_checksums_a_changed_body_is_still_refused(s3_server, s3_bucket, use):
    """The signature covers the digest of the body."""
    with proxy_without_checksums(s3_server.endpoint) as endpoint:
        use(endpoint, S3_CHECKSUMS="false")
        client = objects_from_settings(load_settings()).client
        client.meta.events.register("before-send.s3.PutObject", _flip_the_body)
        with pytest.raises(client.exceptions.ClientError, match=r"(?i)sha256|digest|signature"):
            client.put_object(Bucket=s3_bucket, Key="k", Body=b"what was meant")


def _flip_the_body(request, **_) -> None:
    request.body = b"something else"


def test_with_checksums_each_upload_carries_one(s3_server, use):
    use(s3_server.endpoint)
    objects = objects_from_settings(load_settings())
    sent = []
    objects.client.meta.events.register("before-send.s3.PutObject", lambda request, **_: sent.append(request.headers))
    objects.put_bytes("k", b"x")
    assert "x-amz-checksum-sha256" in {name.lower() for name in sent[0]}
