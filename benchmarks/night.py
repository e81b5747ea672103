"""A bad night on real servers: many requests, some of them bad, and everything that may happen to a fleet meanwhile.

    python benchmarks/night.py                       200 requests; half an hour on two cores
    python benchmarks/night.py --requests 40         a short one
    python benchmarks/night.py --folder build/night  keeps databases, bucket and logs there

PostgreSQL, Redis and an S3 server of this machine, the production instance, and two GPU-queue workers that make tiny
clips of the sandbox on the CPU. Half of the requests are for now, half for the nightly batch; one in ten is bad. At
certain shares of the clips the database goes away for 15 s, the weights are taken from the hosts for a while, a
worker's process is killed, a worker is stopped as for an update, and at last the whole fleet ends, its database is
replaced by an older dump, and ``one-to-all restore`` brings it together with the bucket. Then every good request must
have one clip and its review, and every bad one a reason. The exit status is 1 where one has not. See
docs/operations.md, "Restoring".
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dagster as dg

from libs.requests.inbox.inbox import Inbox
from libs.requests.lifecycle.accepted import CONTENT_ATTRIBUTE, AcceptedRequests
from libs.requests.lifecycle.archive import REVIEW_ASSET
from libs.requests.lifecycle.states import CLIP_ASSET, stored_partitions
from libs.sandbox.media import write_puppet_clip, write_puppet_picture
from libs.settings import REPOSITORY_ROOT, get_settings, load_settings
from libs.storage.artifacts import ArtifactStore
from libs.storage.backends.client import create_s3_client
from libs.storage.backends.factory import store_from_settings
from orchestration.fleet.preflight import DATABASE_VARIABLE

sys.path.insert(0, str(REPOSITORY_ROOT / "tests/integration/fleet"))
sys.path.insert(0, str(REPOSITORY_ROOT))

# Of the tests.
from real_fleet import RealFleet, running_fleet

from tests.postgres_server import PostgresServer, postgres_server
from tests.s3_server import S3Server, s3_server

_BUCKET = "night"
_DRIVERS = 4
_BAD_EVERY = 10
_OUTAGE_SECONDS = 15.0
_IDLE_SECONDS = 600.0
"""Without a new clip or review for so long, the night counts as stuck."""

OUTAGE_AT, WEIGHTS_AT, DUMP_AT, KILL_AT, STOP_AT, RESTORE_AT = 0.15, 0.25, 0.35, 0.45, 0.55, 0.7
"""Shares of the good requests whose clip is stored when something happens."""


@dataclass(frozen=True)
class Bad:
    """A bad request: what is wrong, its document, and words of the reason that somebody must be told."""

    kind: str
    document: bytes
    reason: str
    fails_in_run: bool = False


@dataclass
class Night:
    """What was asked for, and what happened when, in seconds since the start."""

    good: list[str] = field(default_factory=list)
    bad: dict[str, Bad] = field(default_factory=dict)
    events: list[tuple[float, str]] = field(default_factory=list)
    began: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        """Note an event, and print it."""
        self.events.append((time.monotonic() - self.began, text))
        print(f"{self.events[-1][0]:7.0f} s  {text}", flush=True)


def main() -> None:
    """Run the night, print its table, and exit with 1 where a request did not get what it should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--folder", type=Path, help="for all files, kept afterwards; a temporary one when left out")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # in good order: no server is left
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    with _folder(options.folder) as folder, s3_server(folder / "s3") as s3, postgres_server() as postgres:
        environment = _environment(folder, s3, postgres)
        os.environ.update(environment)
        get_settings.cache_clear()
        create_s3_client(load_settings()).create_bucket(Bucket=_BUCKET)
        night = Night()
        databases = _first_half(folder, environment, night, options.requests, postgres)
        environment[DATABASE_VARIABLE] = os.environ[DATABASE_VARIABLE] = databases[-1]
        failures = _second_half(folder, environment, night, databases)
    sys.exit(1 if failures else 0)


@contextmanager
def _folder(asked: Path | None) -> Iterator[Path]:
    if asked is not None:
        asked.mkdir(parents=True, exist_ok=True)
        yield asked.resolve()
        return
    with tempfile.TemporaryDirectory(prefix="night-") as folder:
        yield Path(folder)


def _environment(folder: Path, s3: S3Server, postgres: PostgresServer) -> dict[str, str]:
    return {
        **s3.environment(_BUCKET),
        "S3_PREFIX": "",
        "S3_PUBLIC_ENDPOINT": "",
        "DATA_DIR": str(folder / "data"),
        "MODELS_DIR": str(folder / "models"),
        "NIGHTLY_CRON": "*/2 * * * *",
        DATABASE_VARIABLE: postgres.url(),
    }


@contextmanager
def _fleet(folder: Path, environment: Mapping[str, str]) -> Iterator[RealFleet]:
    settings = {name: value for name, value in environment.items() if name not in {"DATA_DIR", "MODELS_DIR"}}
    with running_fleet(folder, settings, storage=None, gpu_workers=2) as fleet:
        yield fleet


# --- the first half: requests, an outage, a killed worker, a planned stop ---


def _first_half(
    folder: Path, environment: Mapping[str, str], night: Night, count: int, postgres: PostgresServer
) -> list[str]:
    """Until the fleet ends for the restoration; returns the addresses of the database that was, and of the next."""
    store = store_from_settings(load_settings())
    with _fleet(folder, environment) as fleet:
        models = fleet.launch_job("prepare_models", "sandbox")
        assert fleet.finish(models, 300) == dg.DagsterRunStatus.SUCCESS, fleet.messages(models)
        _submit(folder / "desk", store, night, count)
        _wait_for_clips(store, night, OUTAGE_AT)
        night.say(f"the database goes away for {_OUTAGE_SECONDS:.0f} s")
        postgres.stop()
        time.sleep(_OUTAGE_SECONDS)
        postgres.start()
        _wait_for_clips(store, night, WEIGHTS_AT)
        _take_the_weights_away(fleet, folder / "models", night)
        _wait_for_clips(store, night, DUMP_AT)
        night.say("the database is dumped")
        postgres.dump("dagster", folder / "night.dump")
        _wait_for_clips(store, night, KILL_AT)
        night.say("the process of worker gpu-0 is killed")
        os.kill(fleet.process_of("gpu-0"), signal.SIGKILL)
        _wait_for_clips(store, night, STOP_AT)
        night.say("worker gpu-1 is told to stop, and is started again")
        os.kill(fleet.fleet.processes["gpu-1"].pid, signal.SIGTERM)
        _wait_for_clips(store, night, RESTORE_AT)
        night.say("the fleet ends")
    postgres.create_database("restored")
    postgres.restore(folder / "night.dump", "restored")
    return [postgres.url(), postgres.url("restored")]


def _take_the_weights_away(fleet: RealFleet, models: Path, night: Night) -> None:
    """Until every GPU worker says that its host cannot make the runs; then they are put back."""
    away = models.with_name("models-away")
    models.rename(away)
    night.say("the weights are taken away")
    try:
        both = len(fleet.fleet.gpu_worker_names)
        listed = fleet.wait_until("workers pause", lambda: _paused(fleet, both), 300, pause=2)
        night.say("`worker_list`: " + "; ".join(line[:160] for line in listed))
    finally:
        away.rename(models)
    fleet.wait_until("workers go on", lambda: not _worker_list(fleet).returncode, 300, pause=2)
    night.say("the weights are back, and `worker_list` says that all workers take runs")


def _paused(fleet: RealFleet, count: int) -> list[str] | None:
    lines = [line for line in _worker_list(fleet).stdout.splitlines() if "its host cannot make them" in line]
    return lines if len(lines) >= count else None


def _worker_list(fleet: RealFleet) -> subprocess.CompletedProcess[str]:
    return _run("orchestration.fleet.worker_list", environment=fleet.fleet.environment)


def _submit(desk: Path, store: ArtifactStore, night: Night, count: int) -> None:
    """Good requests by ``one-to-all submit``; bad ones as a program of somebody else would put them into the bucket."""
    desk.mkdir(parents=True, exist_ok=True)
    write_puppet_picture(desk / "puppet.png")
    for number in range(_DRIVERS):
        write_puppet_clip(desk / f"dance-{number}.mp4", seed=number, frame_count=5, audio=False)
    documents = []
    for number in range(count):
        if number % _BAD_EVERY == _BAD_EVERY - 1:
            bad = _BAD[number // _BAD_EVERY % len(_BAD)]
            night.bad[f"bad-{number:03}"] = bad
            continue
        request_id = f"good-{number:03}"
        content = {
            **_content(f"dance-{number % _DRIVERS}.mp4"),
            "id": request_id,
            "seed": number,
            "when": "nightly" if number % 2 else "now",
            "priority": number % 7,
        }
        night.good.append(request_id)
        documents.append(desk / f"{request_id}.json")
        documents[-1].write_text(json.dumps(content))
    store.objects.put_bytes("inbox/letter.mp4", b"Dear all, this is a letter and not a video.\n")
    for request_id, bad in night.bad.items():
        store.objects.put_bytes(f"inbox/{request_id}.json", bad.document.replace(b"ID", request_id.encode()))
    submitted = _one_to_all("submit", *map(str, documents))
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    night.say(f"{len(night.good)} good requests submitted, {len(night.bad)} bad ones put into the inbox")


def _content(driver: str) -> dict[str, Any]:
    return {
        "reference": "puppet.png",
        "driver": driver,
        "model": "sandbox",
        "steps": 1,
        "keep_audio": False,
        "size": {"height": 64, "width": 48},
    }


def _bad(kind: str, reason: str, *, fails_in_run: bool = False, **changes: Any) -> Bad:
    content = {"id": "ID", **_content("dance-0.mp4"), **changes}
    document = {name: value for name, value in content.items() if value is not None}
    return Bad(kind, json.dumps(document).encode(), reason, fails_in_run)


_BAD: Sequence[Bad] = (
    _bad("a field that is misspelt", "promt", promt="a puppet"),
    _bad("no driver", "driver", driver=None),
    _bad("a number that is text", "steps", steps="many"),
    Bad("no JSON", b'{"id": "ID", "reference": ', ".json"),
    _bad("an unknown model", "model", model="largest"),
    _bad("a letter as driver", "letter.mp4", fails_in_run=True, driver="letter.mp4"),
    _bad("the id of another's request", "good-000", id="good-000", seed=99),
)


# --- the second half: restore, and the rest of the clips ---


def _second_half(folder: Path, environment: Mapping[str, str], night: Night, databases: Sequence[str]) -> list[str]:
    """Bring database and bucket together, finish the night, and print the table; returns what is wrong."""
    store = store_from_settings(load_settings())
    home = {"DAGSTER_HOME": str(folder / "fleet" / "dagster_home")}
    began = time.monotonic()
    restored = _one_to_all("restore", "--apply", environment=home)
    assert restored.returncode == 0, restored.stdout + restored.stderr
    night.say(f"restored in {time.monotonic() - began:.0f} s:\n{restored.stdout.rstrip()}")
    with _fleet(folder, environment) as fleet:
        _wait_for_the_end(store, night)
        made, adopted = _runs_that_made_clips(fleet, databases)
        statuses = Counter(run.status.value for run in fleet.instance.get_runs())
        failures = _judge(store, fleet.instance, night, made)
    night.say("over; runs in the restored database: " + ", ".join(f"{n} {status}" for status, n in statuses.items()))
    _print_table(store, night, made, adopted, failures)
    return failures


def _one_to_all(*arguments: str, environment: Mapping[str, str] = {}) -> subprocess.CompletedProcess[str]:
    return _run("orchestration.command_line", *arguments, environment=environment)


def _run(module: str, *arguments: str, environment: Mapping[str, str] = {}) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *arguments]
    environment = {**os.environ, **environment}
    return subprocess.run(command, env=environment, cwd=REPOSITORY_ROOT, capture_output=True, text=True, check=False)


def _wait_for_clips(store: ArtifactStore, night: Night, share: float) -> None:
    wanted = round(share * len(night.good))
    _wait(night, lambda: _progress(store)[0], wanted, f"{wanted} clips")


def _wait_for_the_end(store: ArtifactStore, night: Night) -> None:
    _wait(night, lambda: sum(_progress(store)), 2 * len(night.good), "all clips and reviews")


def _wait(night: Night, progress: Callable[[], int], wanted: int, what: str) -> None:
    """Until there are so many; gives up when nothing comes any more, so that the table shows what is missing."""
    seen, since = -1, time.monotonic()
    while (now := progress()) < wanted:
        if now != seen:
            seen, since = now, time.monotonic()
        if time.monotonic() - since > _IDLE_SECONDS:
            night.say(f"STUCK at {now} of {what}")
            return
        time.sleep(2)
    night.say(f"{what}: there")


def _progress(store: ArtifactStore) -> tuple[int, int]:
    """Stored clips, stored reviews."""
    return len(stored_partitions(store.objects, CLIP_ASSET)), len(stored_partitions(store.objects, REVIEW_ASSET))


def _runs_that_made_clips(fleet: RealFleet, databases: Sequence[str]) -> tuple[dict[str, set[str]], int]:
    """Request -> the runs that stored its clip, by both databases; and how many events were written again."""
    made: dict[str, set[str]] = {}
    adopted = 0
    for address in databases:
        os.environ[DATABASE_VARIABLE] = address
        with fleet.fleet.instance() as instance:
            key, cursor = dg.AssetKey(CLIP_ASSET), None
            while True:
                page = instance.fetch_materializations(key, limit=200, cursor=cursor)
                for record in page.records:
                    event = record.asset_materialization
                    if event and "adopted" in event.metadata:
                        adopted += 1
                    elif event:
                        made.setdefault(str(record.partition_key), set()).add(record.run_id)
                if not page.has_more:
                    break
                cursor = page.cursor
    return made, adopted


def _judge(store: ArtifactStore, instance: dg.DagsterInstance, night: Night, made: Mapping[str, set[str]]) -> list[str]:
    """What did not come out as it should: one line each."""
    failures = []
    clips, reviews = (stored_partitions(store.objects, asset) for asset in (CLIP_ASSET, REVIEW_ASSET))
    catalogued = instance.get_materialized_partitions(dg.AssetKey(CLIP_ASSET))
    for request_id in night.good:
        if request_id not in clips:
            failures.append(f"{request_id}: no clip")
            continue
        if request_id not in reviews:
            failures.append(f"{request_id}: no review")
        if request_id not in catalogued:
            failures.append(f"{request_id}: Dagster's catalogue does not know its clip")
        accepted = AcceptedRequests(store.objects).find(request_id)
        manifest = store.manifest(CLIP_ASSET, request_id)
        shown = manifest.attributes.get(CONTENT_ATTRIBUTE) if manifest else None
        if accepted is None or shown not in {None, accepted.content}:
            failures.append(f"{request_id}: the clip is not that of the accepted request")
        if len(made.get(request_id, set())) > 1:
            failures.append(f"{request_id}: its clip was made {len(made[request_id])} times")
    rejected = {rejection.name: rejection.reason for rejection in Inbox(store.objects).rejections()}
    for request_id, bad in night.bad.items():
        if request_id in clips:
            failures.append(f"{request_id} ({bad.kind}): has a clip")
        told = _reason_of_run(instance, request_id) if bad.fails_in_run else rejected.get(f"{request_id}.json", "")
        if bad.reason not in told:
            failures.append(f"{request_id} ({bad.kind}): the reason is {told!r}")
    return failures


def _reason_of_run(instance: dg.DagsterInstance, request_id: str) -> str:
    runs = instance.get_runs(dg.RunsFilter(tags={"dagster/partition": request_id}))
    return "\n".join(record.message for run in runs for record in instance.all_logs(run.run_id))


def _print_table(
    store: ArtifactStore, night: Night, made: Mapping[str, set[str]], adopted: int, failures: Sequence[str]
) -> None:
    clips, reviews = _progress(store)
    kinds = Counter(bad.kind for bad in night.bad.values())
    doubles = sum(len(runs) > 1 for request_id, runs in made.items() if request_id in set(night.good))
    rows = [
        ("good requests", len(night.good)),
        ("clips", clips),
        ("reviews", reviews),
        ("clips made more than once", doubles),
        ("events of stored clips that were lost, and written again", adopted),
        ("bad requests", len(night.bad)),
        *((f"- {kind}", number) for kind, number in kinds.items()),
        ("wrong", len(failures)),
    ]
    print("\n| | number |\n|---|---|")
    for title, number in rows:
        print(f"| {title} | {number} |")
    print("\n| second | what happened |\n|---|---|")
    for seconds, text in night.events:
        print(f"| {seconds:.0f} | {text.splitlines()[0]} |")
    for failure in failures:
        print(f"WRONG: {failure}")


if __name__ == "__main__":
    main()
