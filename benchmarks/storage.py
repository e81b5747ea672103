"""Measures the artifact store on a real S3 server on this machine against plain boto3 and the ``aws`` command.

    python benchmarks/storage.py                        256 MB per transfer, memory for a file of 2 GB; 8 GB of disk
    python benchmarks/storage.py --size 64 --memory-size 256

Ratios are of ways taken in turn in one run on one machine; server and client share its processors. Plain boto3 is
``upload_file`` and ``download_file`` with their defaults, which is what ``aws s3 cp`` does too; it hashes nothing.
Memory is what a process of its own grows by. What does not belong here: pass or fail (tests decide that).
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(REPOSITORY))

from libs.settings import Settings, load_settings  # noqa: E402 - the server of the tests lives beside this folder
from libs.storage.artifacts import ArtifactFiles, ArtifactStore  # noqa: E402
from libs.storage.backends.client import create_s3_client  # noqa: E402
from libs.storage.backends.factory import objects_from_settings  # noqa: E402
from tests.s3_server import S3Server, s3_server  # noqa: E402

_BUCKET = "benchmark"
_PLAIN_KEY = "plain/clip.mp4"
_PIECE = 1 << 20

Transfer = Callable[[], None]


def main() -> None:
    """Run all measurements in a temporary folder that is removed afterwards."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=256, help="MB of each transfer (default 256)")
    parser.add_argument("--memory-size", type=int, default=2048, help="MB of the file to watch memory with")
    parser.add_argument("--rounds", type=int, default=3, help="each way is taken that often; the median counts")
    parser.add_argument("--folder", type=Path, help="where to put the files")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        _report_memory(arguments.child[0], Path(arguments.child[1]))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="storage-benchmark-") as name:
        folder = Path(name)
        with s3_server(folder / "server") as server:
            os.environ |= server.environment(_BUCKET) | {"DATA_DIR": str(folder / "data"), "S3_PREFIX": ""}
            create_s3_client(load_settings()).create_bucket(Bucket=_BUCKET)
            measure_throughput(folder, arguments.size, arguments.rounds, server)
            measure_memory(folder, arguments.memory_size)


def measure_throughput(folder: Path, megabytes: int, rounds: int, server: S3Server) -> None:
    """Upload and download of one file, each way in turn."""
    settings = load_settings()
    seconds: dict[str, dict[str, list[float]]] = {"upload": {}, "download": {}}
    for number in range(rounds):
        source = _random_file(folder / f"scratch-{number}" / "clip.mp4", megabytes)
        for direction, ways in _ways(folder, source, settings, server).items():
            for way, transfer in ways.items():
                begin = time.perf_counter()
                transfer()
                seconds[direction].setdefault(way, []).append(time.perf_counter() - begin)
        shutil.rmtree(source.parent)
        shutil.rmtree(folder / "targets")
    for direction, ways in seconds.items():
        plain = median(ways["plain boto3"])
        print(f"\n{direction} of {megabytes} MB")
        for way, taken in ways.items():
            ratio = "" if way == "plain boto3" else f"   {plain / median(taken):.2f} x plain boto3"
            print(f"  {way:<42} {megabytes / median(taken):7.0f} MB/s{ratio}")
    if not shutil.which("aws"):
        print("\naws s3 cp: not measured, the command is not installed (pip install awscli)")


def _ways(folder: Path, source: Path, settings: Settings, server: S3Server) -> dict[str, dict[str, Transfer]]:
    """Direction -> name -> one transfer. Uploads must have run before downloads."""
    targets = folder / "targets"
    targets.mkdir()
    plain, store = _plain_client(settings), ArtifactStore(objects_from_settings(settings), targets / "writers")
    reader = ArtifactStore(store.objects, targets / "readers")
    files = ArtifactFiles(source.parent)
    ways: dict[str, dict[str, Transfer]] = {
        "upload": {
            "plain boto3": lambda: plain.upload_file(str(source), _BUCKET, _PLAIN_KEY),
            "publish (hash, checksums, manifest)": lambda: _ignored(store.publish("animation", "p", files)),
        },
        "download": {
            "plain boto3": lambda: plain.download_file(_BUCKET, _PLAIN_KEY, str(targets / "plain.mp4")),
            "fetch (verified, kept in the cache)": lambda: _ignored(reader.fetch("animation", "p")),
            "fetch again (from the cache, verified)": lambda: _ignored(reader.fetch("animation", "p")),
        },
    }
    if shutil.which("aws"):
        keys = {"AWS_ACCESS_KEY_ID": server.access_key, "AWS_SECRET_ACCESS_KEY": server.secret_key}
        copy, place = ["aws", "s3", "cp", "--quiet", "--endpoint-url", server.endpoint], f"s3://{_BUCKET}/aws/clip.mp4"

        def aws(*arguments: str) -> None:
            subprocess.run([*copy, *arguments], env=os.environ | keys, check=True)

        ways["upload"]["aws s3 cp"] = lambda: aws(str(source), place)
        ways["download"]["aws s3 cp"] = lambda: aws(place, str(targets / "aws.mp4"))
    return ways


def measure_memory(folder: Path, megabytes: int) -> None:
    """What processes grow by that send and fetch one large file."""
    source = _random_file(folder / "large" / "clip.mp4", megabytes)
    print(f"\nmemory that transferring one file of {megabytes} MB takes")
    grown: dict[str, float] = {}
    for way in _CHILDREN:
        child = [sys.executable, __file__, "--child", way, str(source)]
        done = subprocess.run(child, check=True, capture_output=True, text=True, cwd=REPOSITORY)
        result = json.loads(done.stdout.splitlines()[-1])
        grown[way] = result["grown"] / 1e6
        print(f"  {way:<42} {grown[way]:7.0f} MB   {megabytes / result['seconds']:.0f} MB/s")
        shutil.rmtree(folder / "data", ignore_errors=True)
    print(f"  publish {grown['publish'] / grown['plain upload']:.2f} x plain upload, ", end="")
    print(f"fetch {grown['fetch'] / grown['plain download']:.2f} x plain download")


def _plain_upload(source: Path) -> Transfer:
    client = _plain_client(load_settings())
    client.head_bucket(Bucket=_BUCKET)
    return lambda: client.upload_file(str(source), _BUCKET, _PLAIN_KEY)


def _plain_download(source: Path) -> Transfer:
    client = _plain_client(load_settings())
    client.head_bucket(Bucket=_BUCKET)
    return lambda: client.download_file(_BUCKET, _PLAIN_KEY, str(source.with_name("copy")))


def _publish(source: Path) -> Transfer:
    settings = load_settings()
    store = ArtifactStore(objects_from_settings(settings), settings.artifact_cache_dir)
    store.objects.exists("warm/up")
    return lambda: _ignored(store.publish("animation", "large", ArtifactFiles(source.parent)))


def _fetch(_source: Path) -> Transfer:
    settings = load_settings()
    store = ArtifactStore(objects_from_settings(settings), settings.artifact_cache_dir)
    store.objects.exists("warm/up")
    return lambda: _ignored(store.fetch("animation", "large"))


_CHILDREN: dict[str, Callable[[Path], Transfer]] = {
    "publish": _publish,
    "fetch": _fetch,
    "plain upload": _plain_upload,
    "plain download": _plain_download,
}


def _report_memory(way: str, source: Path) -> None:
    transfer = _CHILDREN[way](source)  # connected: only the transfer itself counts
    before, begin = _peak_bytes(), time.perf_counter()
    transfer()
    print(json.dumps({"grown": _peak_bytes() - before, "seconds": time.perf_counter() - begin}))


def _peak_bytes() -> int:
    """Peak memory of this process; ``getrusage`` would inherit that of the parent."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def _plain_client(settings: Settings) -> Any:
    """A client as anybody would make it."""
    import boto3  # noqa: PLC0415

    assert settings.s3_access_key is not None
    assert settings.s3_secret_key is not None
    return boto3.client(
        "s3",
        endpoint_url=settings.s3_endpoint,
        region_name=settings.s3_region,
        aws_access_key_id=settings.s3_access_key.get_secret_value(),
        aws_secret_access_key=settings.s3_secret_key.get_secret_value(),
    )


def _random_file(path: Path, megabytes: int) -> Path:
    path.parent.mkdir(parents=True)
    with path.open("wb") as file:
        for _ in range(megabytes):
            file.write(os.urandom(_PIECE))
    return path


def _ignored(value: object) -> None:
    """For calls whose result does not matter here."""


if __name__ == "__main__":
    main()
