"""Looks at an inbox in a bucket with thousands of documents: what each accepts, how long it takes, how often it asks.

    python benchmarks/inbox.py [DOCUMENTS] [LOOKS]

Against the S3 server of the tests (MinIO's front end on a local disk, sharing this machine's processors).
"""

import json
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import boto3

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from libs.requests.inbox.inbox import Inbox
from libs.requests.inbox.intake import InboxScanner, ScanState
from libs.requests.lifecycle.accepted import AcceptedRequests
from libs.storage.backends.s3 import S3ObjectStore
from tests.s3_server import s3_server

BUCKET = "inbox-benchmark"


def main() -> None:
    """Fill the bucket, then look."""
    documents, looks = (int(argument) for argument in (*sys.argv[1:], "10000", "5")[:2])
    with TemporaryDirectory() as folder, s3_server(Path(folder)) as server:
        client = boto3.client(
            "s3",
            endpoint_url=server.endpoint,
            region_name="us-east-1",
            aws_access_key_id=server.access_key,
            aws_secret_access_key=server.secret_key,
        )
        _fill(client, documents)
        calls: Counter[str] = Counter()
        client.meta.events.register("before-call.s3", lambda model, **_: calls.update([model.name]))
        objects = S3ObjectStore(client, BUCKET)
        intake, state = InboxScanner(Inbox(objects), AcceptedRequests(objects), "sandbox"), ScanState()
        for number in range(looks):
            calls.clear()
            started = time.perf_counter()
            found = intake.scan(state, datetime.now(UTC))
            state = found.state
            seconds = time.perf_counter() - started
            print(f"look {number + 1}: {len(found.accepted)} accepted, {seconds:.1f} s, {dict(calls)}", flush=True)


def _fill(client: Any, documents: int) -> None:
    client.create_bucket(Bucket=BUCKET)
    for name in ("r.png", "d.mp4"):
        client.put_object(Bucket=BUCKET, Key=f"inbox/{name}", Body=name.encode())

    def put(number: int) -> None:
        fields = {"id": f"a{number:05}", "reference": "r.png", "driver": "d.mp4"}
        client.put_object(Bucket=BUCKET, Key=f"inbox/a{number:05}.json", Body=json.dumps(fields).encode())

    with ThreadPoolExecutor(8) as workers:
        list(workers.map(put, range(documents)))


if __name__ == "__main__":
    main()
