"""A bad night on real servers: many requests, some of them bad, and everything that may happen to a fleet meanwhile.

    python benchmarks/night.py                       200 requests; up to an hour on two cores
    python benchmarks/night.py --requests 40         a short one
    python benchmarks/night.py --folder build/night  keeps databases, bucket and logs there

PostgreSQL, Redis and an S3 server of this machine, the production instance, and two GPU-queue workers that make tiny
clips of the sandbox on the CPU. Half of the requests are for now, half for the nightly batch; one in ten is bad. For
one request the database cuts the connection each time the event of its stored clip is to be written, until its runs
are used up; then the sensor ``unrecorded_clips`` must write it. At certain shares of the clips the database goes away
for 15 s, the weights are taken from the hosts for a while, a worker's process is killed while it makes a clip, a worker
is stopped as for an update, and at last the whole fleet ends, its database is replaced by an older dump, and
``one-to-all restore`` brings it together with the bucket. Then every good request must have one clip that can be
played, of its own content, and a review of that clip, nothing may go on or begin again, and every bad request must have
its reason. The exit status is 1 where that is not so. See docs/operations.md, "Restoring".
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import dagster as dg

from libs.media.video.probe import probe_video
from libs.requests.inbox.inbox import Inbox
from libs.requests.lifecycle.accepted import CONTENT_ATTRIBUTE, AcceptedRequests
from libs.requests.lifecycle.archive import REVIEW_ASSET
from libs.requests.lifecycle.states import CLIP_ASSET, stored_partitions
from libs.sandbox.media import write_puppet_clip, write_puppet_picture
from libs.settings import REPOSITORY_ROOT, get_settings, load_settings
from libs.stages.animation_files import CLIP_FILE
from libs.storage.artifacts import ArtifactStore
from libs.storage.backends.client import create_s3_client
from libs.storage.backends.factory import store_from_settings
from libs.storage.claims import CLAIMS_PREFIX
from orchestration.crashes import RUN_RETRIES
from orchestration.fleet.preflight import DATABASE_VARIABLE
from orchestration.recovery.adoption import lacks_review
from orchestration.requests.runs import UNFINISHED

sys.path.insert(0, str(REPOSITORY_ROOT / "tests/integration/fleet"))
sys.path.insert(0, str(REPOSITORY_ROOT))

# Of the tests.
from real_fleet import RealFleet, running_fleet

from tests.postgres_server import PostgresServer, postgres_server
from tests.s3_server import S3Server, s3_server

_BUCKET = "night"
_DRIVERS = 4
_FRAMES = 5
_BAD_EVERY = 10
_OUTAGE_SECONDS = 15.0
_IDLE_SECONDS = 600.0
"""Without a new clip or review for so long, the night counts as stuck."""

_QUIET_SECONDS = 150.0
"""Longer than between two nightly batches, and two looks of each sensor: what would begin again has begun by then."""

_LOST = "good-006"
"""The request whose event the database refuses: one of those with the highest priority, so it is made early."""

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
    failures: list[str] = field(default_factory=list)
    stored: dict[tuple[str, str], set[datetime]] = field(default_factory=lambda: defaultdict(set))
    """Asset and request -> when a manifest of it was stored, as far as it was seen, every two seconds."""
    began: float = field(default_factory=time.monotonic)

    def say(self, text: str) -> None:
        """Note an event, and print it."""
        self.events.append((time.monotonic() - self.began, text))
        print(f"{self.events[-1][0]:7.0f} s  {text}", flush=True)

    def look(self, store: ArtifactStore) -> tuple[int, int]:
        """Stored clips, stored reviews."""
        found = [stored_partitions(store.objects, asset) for asset in (CLIP_ASSET, REVIEW_ASSET)]
        for asset, times in zip((CLIP_ASSET, REVIEW_ASSET), found, strict=True):
            for request_id, moment in times.items():
                self.stored[asset, request_id].add(moment)
        return len(found[0]), len(found[1])


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
        _second_half(folder, environment, night, databases)
    sys.exit(1 if night.failures else 0)


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
        postgres.refuse_materialization(CLIP_ASSET, _LOST)
        _submit(folder / "desk", store, night, count)
        _wait_for_clips(store, night, OUTAGE_AT)
        running = fleet.instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        night.say(f"the database goes away for {_OUTAGE_SECONDS:.0f} s, while {running} runs go on")
        postgres.stop()
        time.sleep(_OUTAGE_SECONDS)
        postgres.start()
        _wait_for_clips(store, night, WEIGHTS_AT)
        _take_the_weights_away(fleet, folder / "models", night)
        _let_the_sensor_record(fleet, store, postgres, night)
        _wait_for_clips(store, night, DUMP_AT)
        night.say("the database is dumped")
        postgres.dump("dagster", folder / "night.dump")
        _wait_for_clips(store, night, KILL_AT)
        killed = _run_of_worker(fleet, "gpu-0")
        os.kill(fleet.process_of("gpu-0"), signal.SIGKILL)
        night.say(f"the process of worker gpu-0 is killed, which makes {_request_of(killed)}")
        _require_ended(fleet, night, killed, "The worker's process died")
        _wait_for_clips(store, night, STOP_AT)
        stopped = _run_of_worker(fleet, "gpu-1")
        os.kill(fleet.fleet.processes["gpu-1"].pid, signal.SIGTERM)
        night.say(f"worker gpu-1, which makes {_request_of(stopped)}, is told to stop, and is started again")
        _require_ended(fleet, night, stopped, "without spending a retry")
        _wait_for_clips(store, night, RESTORE_AT)
        running = fleet.instance.get_runs_count(dg.RunsFilter(statuses=UNFINISHED))
        night.say(f"the fleet ends, while {running} runs wait or go on")
    postgres.create_database("restored")
    postgres.restore(folder / "night.dump", "restored")
    return [postgres.url(), postgres.url("restored")]


def _let_the_sensor_record(fleet: RealFleet, store: ArtifactStore, postgres: PostgresServer, night: Night) -> None:
    """Until the event of ``_LOST`` is there: its runs are used up, and nothing but the sensor writes events by now."""

    def runs_are_used_up() -> list[dg.DagsterRun] | None:
        runs = fleet.runs_of(_LOST)
        is_over = len(runs) > RUN_RETRIES["max_retries"] and all(run.is_finished for run in runs)
        return runs if is_over else None

    runs = fleet.wait_until("the runs of the lost clip have ended", runs_are_used_up, 1200, pause=2)
    statuses = ", ".join(run.status.value for run in runs)
    night.look(store)
    if not night.stored[CLIP_ASSET, _LOST] or _recorded(fleet.instance, _LOST):
        night.failures.append(f"{_LOST}: its clip was not stored without an event; its runs: {statuses}")
    night.say(f"{_LOST} is stored, its event is not, its runs ended ({statuses}); the database takes events again")
    postgres.take_all_events()
    event = fleet.wait_until("the sensor writes the event", lambda: _recorded(fleet.instance, _LOST), 600, pause=2)
    by_check = fleet.instance.get_runs_count(dg.RunsFilter(job_name="check_storage"))
    if "adopted" not in event.metadata or by_check or len(fleet.runs_of(_LOST)) < len(runs):
        night.failures.append(f"{_LOST}: its event was not written by the sensor")
    night.say(f"the sensor unrecorded_clips wrote the event: {event.metadata['adopted'].value}")


def _recorded(instance: dg.DagsterInstance, request_id: str) -> dg.AssetMaterialization | None:
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(CLIP_ASSET), asset_partitions=[request_id])
    records = instance.fetch_materializations(wanted, limit=1).records
    return records[0].asset_materialization if records else None


def _run_of_worker(fleet: RealFleet, worker: str) -> dg.DagsterRun:
    """The run that ``worker`` makes, once it makes one."""

    def look() -> dg.DagsterRun | None:
        for task in fleet.active_tasks().get(fleet.node(worker), ()):
            run = fleet.instance.get_run_by_id(task["id"])
            if run is not None and run.status == dg.DagsterRunStatus.STARTED:
                return run
        return None

    return fleet.wait_until(f"{worker} makes a clip", look, 600)


def _require_ended(fleet: RealFleet, night: Night, run: dg.DagsterRun, message: str) -> None:
    """Note a failure unless ``run`` failed with ``message``, and its request is made by another run."""
    status = fleet.finish(run.run_id, 300)
    request_id = _request_of(run)
    if status == dg.DagsterRunStatus.SUCCESS:
        night.say(f"the run of {request_id} had just ended")
        return
    if message not in fleet.messages(run.run_id):
        night.failures.append(f"{request_id}: the run {run.run_id} does not say {message!r}")
    others = fleet.wait_until("it is made again", lambda: fleet.runs_of(request_id)[1:], 300, pause=1)
    night.say(f"the run of {request_id} says {message!r}; run {len(others) + 1} of it is on its way")


def _request_of(run: dg.DagsterRun) -> str:
    return run.tags["dagster/partition"]


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
        write_puppet_clip(desk / f"dance-{number}.mp4", seed=number, frame_count=_FRAMES, audio=False)
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
    _bad("a field that is misspelt", "promt: unknown field", promt="a puppet"),
    _bad("no driver", "driver: is required", driver=None),
    _bad("a number that is text", "steps: must be a whole number", steps="many"),
    Bad("no JSON", b'{"id": "ID", "reference": ', "neither YAML nor JSON"),
    _bad("an unknown model", "model: must be one of", model="largest"),
    _bad("a letter as driver", "letter.mp4", fails_in_run=True, driver="letter.mp4"),
    _bad("the id of another's request", "good-000", id="good-000", seed=99),
)


# --- the second half: restore, and the rest of the clips ---


def _second_half(folder: Path, environment: Mapping[str, str], night: Night, databases: Sequence[str]) -> None:
    """Bring database and bucket together, finish the night, and print the table."""
    store = store_from_settings(load_settings())
    home = {"DAGSTER_HOME": str(folder / "fleet" / "dagster_home")}
    began = time.monotonic()
    restored = _one_to_all("restore", "--apply", environment=home)
    assert restored.returncode == 0, restored.stdout + restored.stderr
    night.say(f"restored in {time.monotonic() - began:.0f} s:\n{restored.stdout.rstrip()}")
    with _fleet(folder, environment) as fleet:
        _wait_for_the_end(store, night)
        _require_quiet(fleet, store, night)
        past = _past_of_clips(fleet, databases)
        statuses = Counter(run.status.value for run in fleet.instance.get_runs())
        night.failures += _judge(store, fleet.instance, night, past)
    night.say("over; runs in the restored database: " + ", ".join(f"{n} {status}" for status, n in statuses.items()))
    _print_table(store, night, past)


def _require_quiet(fleet: RealFleet, store: ArtifactStore, night: Night) -> None:
    """Note a failure where runs go on, or begin, after every clip has its review."""

    def ended() -> bool:
        return not fleet.instance.get_runs_count(dg.RunsFilter(statuses=UNFINISHED))

    fleet.wait_until("no run is left", ended, _IDLE_SECONDS, pause=2)
    before = fleet.instance.get_runs_count(), night.look(store)
    deadline = time.monotonic() + _QUIET_SECONDS
    while time.monotonic() < deadline:
        night.look(store)
        time.sleep(2)
    after = fleet.instance.get_runs_count(), night.look(store)
    if after != before:
        night.failures.append(f"runs began after the end: {before[0]} runs, then {after[0]}")
    night.say(f"{_QUIET_SECONDS:.0f} s later no other run has begun")


def _one_to_all(*arguments: str, environment: Mapping[str, str] = {}) -> subprocess.CompletedProcess[str]:
    return _run("orchestration.command_line", *arguments, environment=environment)


def _run(module: str, *arguments: str, environment: Mapping[str, str] = {}) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", module, *arguments]
    environment = {**os.environ, **environment}
    return subprocess.run(command, env=environment, cwd=REPOSITORY_ROOT, capture_output=True, text=True, check=False)


def _wait_for_clips(store: ArtifactStore, night: Night, share: float) -> None:
    wanted = round(share * len(night.good))
    _wait(night, lambda: night.look(store)[0], wanted, f"{wanted} clips")


def _wait_for_the_end(store: ArtifactStore, night: Night) -> None:
    _wait(night, lambda: sum(night.look(store)), 2 * len(night.good), "all clips and reviews")


def _wait(night: Night, progress: Callable[[], int], wanted: int, what: str) -> None:
    """Until there are so many; gives up when nothing comes any more, so that the table shows what is missing."""
    seen, since = -1, time.monotonic()
    while (now := progress()) < wanted:
        if now != seen:
            seen, since = now, time.monotonic()
        if time.monotonic() - since > _IDLE_SECONDS:
            night.say(f"STUCK at {now} of {what}")
            night.failures.append(f"stuck at {now} of {what}")
            return
        time.sleep(2)
    night.say(f"{what}: there")


@dataclass
class _Past:
    """What both databases know. ``made``: request -> the runs whose event says that they stored its clip; ``failed``:
    request -> its runs that failed; ``adopted``: events that were written again."""

    made: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    failed: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    adopted: int = 0


def _past_of_clips(fleet: RealFleet, databases: Sequence[str]) -> _Past:
    past = _Past()
    for address in databases:
        os.environ[DATABASE_VARIABLE] = address
        with fleet.fleet.instance() as instance:
            for run in instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])):
                past.failed[run.tags.get("dagster/partition", "")].add(run.run_id)
            key, cursor = dg.AssetKey(CLIP_ASSET), None
            while True:
                page = instance.fetch_materializations(key, limit=200, cursor=cursor)
                for record in page.records:
                    event = record.asset_materialization
                    if event and "adopted" in event.metadata:
                        past.adopted += 1
                    elif event:
                        past.made[str(record.partition_key)].add(record.run_id)
                if not page.has_more:
                    break
                cursor = page.cursor
    return past


def _judge(store: ArtifactStore, instance: dg.DagsterInstance, night: Night, past: _Past) -> list[str]:
    """What did not come out as it should: one line each."""
    failures = []
    requests = AcceptedRequests(store.objects)
    clips, reviews = (stored_partitions(store.objects, asset) for asset in (CLIP_ASSET, REVIEW_ASSET))
    catalogued = {asset: instance.get_materialized_partitions(dg.AssetKey(asset)) for asset in _BOTH}
    pending = {marker.request_id for marker in requests.pending_markers()}
    for request_id in night.good:
        wrong = [f"{asset} is not in Dagster's catalogue" for asset in _BOTH if request_id not in catalogued[asset]]
        if request_id not in clips or request_id not in reviews:
            failures.append(f"{request_id}: no {'review' if request_id in clips else 'clip'}")
            continue
        if lacks_review(store, request_id):
            wrong.append("its review is older than its clip")
        accepted, manifest = requests.find(request_id), store.manifest(CLIP_ASSET, request_id)
        if accepted is None or manifest is None or manifest.attributes.get(CONTENT_ATTRIBUTE) != accepted.content:
            wrong.append("its clip is not that of the accepted request")
        wrong += _problems_of_video(store, request_id)
        if request_id in pending:
            wrong.append("it is pending still")
        if len(past.made[request_id]) > 1:
            wrong.append(f"{len(past.made[request_id])} runs made its clip")
        for asset in _BOTH:  # a run that fails between storing and its event is made again
            if (times := len(night.stored[asset, request_id])) > 1 + len(past.failed[request_id]):
                wrong.append(f"{asset} was stored {times} times, and {len(past.failed[request_id])} runs failed")
        failures += [f"{request_id}: {problem}" for problem in wrong]
    if others := clips.keys() - set(night.good):
        failures.append(f"clips that nobody asked for: {', '.join(sorted(others))}")
    rejected = {rejection.name: rejection.reason for rejection in Inbox(store.objects).rejections()}
    for request_id, bad in night.bad.items():
        told = _reason_of_run(instance, request_id) if bad.fails_in_run else rejected.get(f"{request_id}.json", "")
        if bad.reason not in told:
            failures.append(f"{request_id} ({bad.kind}): the reason is {told!r}")
    left = [document.name for document in Inbox(store.objects).documents()]
    left += [info.key for info in store.objects.list(CLAIMS_PREFIX)]
    if left:
        failures.append(f"left behind: {', '.join(left)}")
    return failures


_BOTH = (CLIP_ASSET, REVIEW_ASSET)


def _problems_of_video(store: ArtifactStore, request_id: str) -> list[str]:
    """Decodes the whole clip."""
    video = probe_video(store.fetch(CLIP_ASSET, request_id).path(CLIP_FILE))
    found = video.width, video.height, video.frame_count
    return [] if found == (48, 64, _FRAMES) else [f"its clip has width, height and frames {found}"]


def _reason_of_run(instance: dg.DagsterInstance, request_id: str) -> str:
    """What the events of the failed runs of a request say went wrong; empty where none failed."""
    failed = dg.RunsFilter(tags={"dagster/partition": request_id}, statuses=[dg.DagsterRunStatus.FAILURE])
    failures = [
        entry.dagster_event.step_failure_data.error
        for run in instance.get_runs(failed)
        for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
        if entry.dagster_event
    ]
    return "\n".join(error.to_string() for error in failures if error)


def _print_table(store: ArtifactStore, night: Night, past: _Past) -> None:
    clips, reviews = night.look(store)
    kinds = Counter(bad.kind for bad in night.bad.values())
    good = set(night.good)
    rows = [
        ("good requests", len(night.good)),
        ("clips", clips),
        ("reviews", reviews),
        ("clips whose events name more than one run", sum(len(past.made[name]) > 1 for name in good)),
        ("clips stored again by the run after one that failed", _stored_again(night, CLIP_ASSET)),
        ("reviews stored again by the run after one that failed", _stored_again(night, REVIEW_ASSET)),
        ("runs of good requests that failed, and were made again", sum(len(past.failed[name]) for name in good)),
        ("events of stored clips that were lost, and written again", past.adopted),
        ("bad requests", len(night.bad)),
        *((f"- {kind}", number) for kind, number in kinds.items()),
        ("wrong", len(night.failures)),
    ]
    print("\n| | number |\n|---|---|")
    for title, number in rows:
        print(f"| {title} | {number} |")
    print("\n| second | what happened |\n|---|---|")
    for seconds, text in night.events:
        print(f"| {seconds:.0f} | {text.splitlines()[0]} |")
    for failure in night.failures:
        print(f"WRONG: {failure}")


def _stored_again(night: Night, asset: str) -> int:
    return sum(len(times) - 1 for (stored, _), times in night.stored.items() if stored == asset)


if __name__ == "__main__":
    main()
