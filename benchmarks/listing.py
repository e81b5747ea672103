"""``one-to-all list`` on thousands of requests in every state: how long it takes, and how often it asks.

    python benchmarks/listing.py [REQUESTS] [RUNS] [--s3] [--profile]

On a folder, or with ``--s3`` on the S3 server of the tests (MinIO's front end on a local disk, sharing this machine's
processors); runs are in Dagster's SQLite.
"""

import argparse
import cProfile
import json
import os
import pstats
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory

import boto3
import dagster as dg

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from dagster._core.utils import make_new_run_id

from libs.progress import describe_progress
from libs.requests.documents.animation_request import AnimationRequest
from libs.requests.inbox.accepted_media import AcceptedMedium
from libs.requests.lifecycle.accepted import CONTENT_ATTRIBUTE, AcceptedRequests
from libs.requests.lifecycle.cancellations import Cancellation, Cancellations
from libs.requests.lifecycle.listing import RequestListing
from libs.storage.artifacts import ArtifactFiles, ArtifactStore
from libs.storage.backends.folder import FolderObjectStore
from libs.storage.backends.s3 import S3ObjectStore
from libs.storage.backends.store import ObjectStore
from orchestration.jobs import ANIMATE
from orchestration.policies import CONTENT_TAG
from orchestration.requests.control import InstanceRuns
from tests.s3_server import s3_server

BUCKET = "listing-benchmark"
EVENTS_OF_A_RUN = 12
STATES = ("stored", "stored", "stored", "stale", "failed", "canceled", "noted", "nightly", "busy", "queued")


def main() -> None:
    """Fill store and instance, then list."""
    parser = argparse.ArgumentParser()
    parser.add_argument("requests", type=int, nargs="?", default=5000)
    parser.add_argument("runs", type=int, nargs="?", default=600)
    parser.add_argument("--s3", action="store_true")
    parser.add_argument("--profile", action="store_true")
    arguments = parser.parse_args()
    with TemporaryDirectory() as folder, _objects(Path(folder), s3=arguments.s3) as (objects, calls):
        home = Path(folder, "home")
        home.mkdir()
        os.environ["DAGSTER_HOME"] = str(home)
        with dg.DagsterInstance.local_temp(str(home)) as instance:
            started = time.perf_counter()
            _fill(objects, home / "cache", instance, arguments.requests, arguments.runs)
            print(f"filled in {time.perf_counter() - started:.0f} s", flush=True)
            for limit in (100, 100, None):
                _list(objects, instance, limit, calls, profiled=arguments.profile and limit == 100)


def _list(
    objects: ObjectStore, instance: dg.DagsterInstance, limit: int | None, calls: Counter[str], *, profiled: bool
) -> None:
    profile = cProfile.Profile()
    calls.clear()
    listing = RequestListing(ArtifactStore(objects, Path(instance.root_directory, "cache")), InstanceRuns(instance))
    started, used = time.perf_counter(), time.process_time()
    if profiled:
        profile.enable()
    taken = listing.take(limit)
    profile.disable()
    seconds, used = time.perf_counter() - started, time.process_time() - used
    kinds = Counter(line.state.split(" ")[0].rstrip(",:") for line in taken.requests)
    print(
        f"limit {limit}: {seconds:.1f} s ({used:.1f} s of processor), {len(taken.requests)} lines, {dict(kinds)}, "
        f"{dict(calls)}",
        flush=True,
    )
    if profiled:
        pstats.Stats(profile).sort_stats("cumulative").print_stats(35)


@contextmanager
def _objects(folder: Path, *, s3: bool) -> Iterator[tuple[ObjectStore, Counter[str]]]:
    calls: Counter[str] = Counter()
    if not s3:
        yield FolderObjectStore(folder / "artifacts"), calls
        return
    with s3_server(folder / "server") as server:
        client = boto3.client(
            "s3",
            endpoint_url=server.endpoint,
            region_name="us-east-1",
            aws_access_key_id=server.access_key,
            aws_secret_access_key=server.secret_key,
        )
        client.create_bucket(Bucket=BUCKET)
        client.meta.events.register("before-call.s3", lambda model, **_: calls.update([model.name]))
        yield S3ObjectStore(client, BUCKET), calls


def _fill(objects: ObjectStore, cache: Path, instance: dg.DagsterInstance, count: int, runs: int) -> None:
    store, requests, cancellations = ArtifactStore(objects, cache), AcceptedRequests(objects), Cancellations(objects)
    medium = AcceptedMedium(key="requests/media/x", size=7, sha256="0" * 64, version="1")

    def fill(number: int) -> tuple[str, str, str]:
        state, request_id = STATES[number % len(STATES)], f"a{number:05}"
        fields = {"id": request_id, "reference": "r.png", "driver": "d.mp4", "model": "sandbox"}
        when = "nightly" if state == "nightly" else "now"
        media = {"r.png": medium, "d.mp4": medium}
        request = AnimationRequest.model_validate({**fields, "when": when})
        accepted = requests.accept(request, media, document=f"{request_id}.json", default_model="sandbox")
        if state in {"stored", "stale"}:
            with TemporaryDirectory() as folder:
                Path(folder, "clip.mp4").write_text(request_id)
                files = ArtifactFiles(Path(folder), attributes={CONTENT_ATTRIBUTE: accepted.content})
                store.publish("animation", request_id, files, {})
            requests.clear_pending(request_id, accepted.content)
        if state == "stale":
            request = AnimationRequest.model_validate({**fields, "prompt": "other"})
            accepted = requests.accept(request, media, document=f"{request_id}.json", default_model="sandbox")
        if state == "noted":
            cancellations.remember(Cancellation(request_id=request_id, canceled=datetime.now(UTC), by="ann"))
        return state, request_id, accepted.content

    with ThreadPoolExecutor(8) as workers:
        filled = list(workers.map(fill, range(count)))
    for name in ("r.png", "d.mp4"):
        objects.put_bytes(f"inbox/{name}", name.encode())
    for number in range(20):
        document = {"id": f"late{number}", "reference": "gone.png", "driver": "d.mp4"}
        objects.put_bytes(f"inbox/late{number}.json", json.dumps(document).encode())
    statuses = {
        "stored": dg.DagsterRunStatus.SUCCESS,
        "failed": dg.DagsterRunStatus.FAILURE,
        "canceled": dg.DagsterRunStatus.CANCELED,
        "busy": dg.DagsterRunStatus.STARTED,
        "queued": dg.DagsterRunStatus.NOT_STARTED,
    }
    launched = 0
    for state, request_id, content in reversed(filled):
        if state in statuses and launched < runs:
            launched += 1
            tags = {"dagster/partition": request_id, CONTENT_TAG: content}
            run = dg.DagsterRun(ANIMATE.name, make_new_run_id(), tags=tags, status=statuses[state])
            instance.add_run(run)
            for step in range(EVENTS_OF_A_RUN if state in {"busy", "failed"} else 2):
                line = describe_progress("sampling", step, EVENTS_OF_A_RUN, 0.5, "chunk 1 of 2")
                _log(instance, run, line)


def _log(instance: dg.DagsterInstance, run: dg.DagsterRun, line: str) -> None:
    entry = dg.EventLogEntry(
        error_info=None, level=20, user_message=line, run_id=run.run_id, timestamp=time.time(), step_key="animation"
    )
    instance.event_log_storage.store_event(entry)


if __name__ == "__main__":
    main()
