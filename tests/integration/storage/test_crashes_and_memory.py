"""Writers in processes of their own: killed in the middle of an upload, and watched for their memory."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from shutil import rmtree

import pytest

from libs.storage.artifacts import ArtifactFiles, ArtifactStore
from libs.storage.backends.sha256 import sha256_of_file

REPOSITORY = Path(__file__).resolve().parents[3]
PIECE = 1 << 20

CHILD = """
import json, signal, sys
from pathlib import Path
from libs.settings import load_settings
from libs.storage.artifacts import ArtifactFiles
from libs.storage.backends.factory import store_from_settings
from tests.memory_peak import peak_bytes
store = store_from_settings(load_settings())
if sys.argv[1] == "publish":
    files = ArtifactFiles(Path(sys.argv[2]))
    files.digest
    store.objects.exists("warm/up")
    before = peak_bytes()
    print("started", flush=True)
    if len(sys.argv) > 3:
        # Ends this process as abruptly as SIGKILL, at the same place on any machine: after so much computing.
        signal.setitimer(signal.ITIMER_PROF, float(sys.argv[3]))
    store.publish("animation", "p", files, {})
else:
    store.objects.exists("warm/up")
    before = peak_bytes()
    artifact = store.fetch("animation", "p")
    print(artifact.folder)
print(json.dumps({"grown": peak_bytes() - before}), flush=True)
"""


@pytest.fixture(params=["folder", pytest.param("bucket", marks=pytest.mark.s3)])
def environment(request, tmp_path) -> dict[str, str]:
    """The settings of the child processes."""
    base = {key: value for key, value in os.environ.items() if not key.startswith("S3_")}
    base["DATA_DIR"] = str(tmp_path / "data")
    if request.param == "bucket":
        server = request.getfixturevalue("s3_server")
        base |= server.environment(request.getfixturevalue("s3_bucket")) | {"S3_PREFIX": "p"}
    return base


@pytest.fixture
def store(environment, monkeypatch) -> ArtifactStore:
    """The same store in this process, with a cache of its own."""
    from libs.settings import load_settings
    from libs.storage.backends.factory import objects_from_settings

    for name in ("S3_ENDPOINT", "S3_ACCESS_KEY", "S3_SECRET_KEY", "S3_BUCKET_NAME", "S3_PREFIX", "DATA_DIR"):
        monkeypatch.delenv(name, raising=False)
        if name in environment:
            monkeypatch.setenv(name, environment[name])
    return ArtifactStore(objects_from_settings(load_settings()), Path(environment["DATA_DIR"]) / "our cache")


def child(environment, *arguments) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, *map(str, arguments)],
        env=environment,
        cwd=REPOSITORY,
        stdout=subprocess.PIPE,
        text=True,
    )


def write_file(path: Path, megabytes: int) -> None:
    """Bytes that repeat but are no zeros, in a file of this size."""
    path.parent.mkdir(parents=True, exist_ok=True)
    block = os.urandom(PIECE)
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(block)


@pytest.mark.slow
def test_a_writer_killed_in_the_middle_leaves_the_artifact_before(environment, store, tmp_path):
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "clip.mp4").write_bytes(b"old")
    before = store.publish("animation", "p", ArtifactFiles(tmp_path / "old"))
    new = tmp_path / "new"
    (new / "a").mkdir(parents=True)
    (new / "a" / "first.json").write_bytes(b"{}")
    write_file(new / "clip.mp4", 200)
    killed_in_the_middle = 0
    for computing_seconds in (0.01, 0.05, 0.12):
        process = child(environment, "publish", new, computing_seconds)
        finished = "grown" in process.communicate()[0]
        assert finished or process.returncode == -signal.SIGPROF
        killed_in_the_middle += not finished
        if not finished:
            assert store.manifest("animation", "p") == before
            assert store.fetch("animation", "p").path("clip.mp4").read_bytes() == b"old"
    assert killed_in_the_middle, "every writer was faster than its killer: make the file larger"
    # Nothing that was left behind is taken for an object, and the work can simply be done again.
    whole = {"animation/p/manifest.json", f"animation/p/manifests/{before.digest[:16]}.json", before.files[0].key}
    digests = {sha256_of_file(path)[:16]: path.stat().st_size for path in new.rglob("*") if path.is_file()}
    for info in store.objects.list():
        assert info.key in whole or info.size == digests[info.key.split("/")[2]]
    process = child(environment, "publish", new)
    assert "grown" in process.communicate()[0]
    fetched = store.fetch("animation", "p")
    assert sha256_of_file(fetched.path("clip.mp4")) == sha256_of_file(new / "clip.mp4")


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(environment, store, tmp_path):
    new = tmp_path / "new"
    write_file(new / "clip.mp4", 256)
    published = child(environment, "publish", new).communicate()[0]
    assert published.startswith("started"), "the writer failed"
    grown = json.loads(published.splitlines()[-1])["grown"]
    assert grown < 96e6, f"publishing took {grown / 1e6:.0f} MB"
    rmtree(Path(environment["DATA_DIR"]) / "artifact_cache")
    fetched = child(environment, "fetch")
    lines = fetched.communicate()[0].splitlines()
    grown = json.loads(lines[-1])["grown"]
    assert grown < 96e6, f"fetching took {grown / 1e6:.0f} MB"
    assert sha256_of_file(Path(lines[0]) / "clip.mp4") == sha256_of_file(new / "clip.mp4")
