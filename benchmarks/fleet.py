"""Measures the fleet: overhead of a warm run, cold against warm, one worker against two, ticks with 10,000 requests.

    python benchmarks/fleet.py                            a few minutes; needs redis-server
    python benchmarks/fleet.py --only workers --requests 200
    python benchmarks/fleet.py --write                    also puts the tables into docs/benchmarks.md

Sandbox models on the CPU: the numbers are of the fleet, not of a network. What does not belong here: pass or fail
(``tests/integration/fleet`` decides that), and the engine's speed.
"""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import dagster as dg
import psutil

from libs.settings import REPOSITORY_ROOT

sys.path.insert(0, str(REPOSITORY_ROOT / "tests/integration/fleet"))

# Of the tests.
from observed_fleet import ObservedFleet, running, toy_plan
from real_fleet import REQUESTS, RealFleet, running_fleet

_RESULTS = REPOSITORY_ROOT / "docs" / "benchmarks.md"
_TITLE = "## Fleet"
_RUN_SECONDS = 600.0
_WAITING_RUNS = 40
_WAITING_SECONDS = 3.0
_TURNS = 8

Rows = list[tuple[str, str]]


def main() -> None:
    """Run the parts that were asked for, in a temporary folder that is removed afterwards."""
    parts: dict[str, Callable[[Path, argparse.Namespace], Rows]] = {
        "warm": measure_warm_path,
        "workers": measure_workers,
        "ticks": measure_ticks,
        "backfill": measure_backfill,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=parts, action="append", help="one or more of the parts")
    parser.add_argument("--runs", type=int, default=5, help="warm runs, and cold ones (default: %(default)s)")
    parser.add_argument(
        "--requests", type=int, default=24, help="half for one worker, half for two (default: %(default)s)"
    )
    parser.add_argument("--documents", type=int, default=10_000, help="in the inbox, registered (default: %(default)s)")
    parser.add_argument("--backfill", type=int, default=200, help="keys of the backfill (default: %(default)s)")
    parser.add_argument("--write", action="store_true", help="replace the same parts in docs/benchmarks.md")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps(_child_ticks(options.child, options.documents)))
        return
    for name in options.only or parts:
        machine = _machine()
        print(f"{name}: {machine}", flush=True)
        with tempfile.TemporaryDirectory(prefix="fleet-benchmark-") as folder:
            rows = parts[name](Path(folder), options)
            for label, value in rows:  # before the folder is removed: tens of thousands of files take their time
                print(f"  {label:<70} {value}", flush=True)
        if options.write:
            _write(name, machine, rows)


# --- with a whole fleet ---


@contextmanager
def _prepared_fleet(folder: Path, workers: int) -> Iterator[RealFleet]:
    """A fleet with sandbox models and media; each process computes with one thread, so that workers do not compete."""
    os.environ["OMP_NUM_THREADS"] = "1"
    with running_fleet(folder, gpu_workers=workers) as fleet:
        models = fleet.launch_job("prepare_models", "sandbox")
        assert fleet.finish(models, _RUN_SECONDS) == dg.DagsterRunStatus.SUCCESS, fleet.messages(models)
        fleet.write_media()
        yield fleet


def _animate(fleet: RealFleet, request_id: str, assets: list[str] | None = None) -> str:
    """Launch the clip of a request by hand, wait until it is stored; returns the run."""
    fleet.instance.add_dynamic_partitions(REQUESTS, [request_id])
    run_id = fleet.launch_job("animate", request_id, assets)
    assert fleet.finish(run_id, _RUN_SECONDS) == dg.DagsterRunStatus.SUCCESS, fleet.messages(run_id)
    return run_id


def measure_warm_path(folder: Path, options: argparse.Namespace) -> Rows:
    """From the launch of a run of the asset ``animation`` alone to its first sampling step, cold and warm."""
    cold, warm, cold_load, warm_load = [], [], [], []
    with _prepared_fleet(folder, workers=1) as fleet:
        fleet.submit("clip", when="nightly")
        _animate(fleet, "clip")
        for number in range(options.runs):
            fleet.renew_process("gpu-0")
            for seconds, loads, start in ((cold, cold_load, "cold"), (warm, warm_load, "warm")):
                run_id = _animate(fleet, "clip", ["animation"])
                metadata = fleet.metadata(run_id)
                assert metadata["start"] == start, (number, metadata["start"])
                seconds.append(fleet.first_sampling_step(run_id) - fleet.instance.get_run_stats(run_id).launch_time)
                loads.append(metadata["load seconds"])
    return [
        (f"launch to first sampling step, cold, median of {len(cold)}", f"{median(cold):.2f} s"),
        ("of it loading the (tiny) model", f"{median(cold_load):.2f} s"),
        (f"launch to first sampling step, warm, median of {len(warm)}", f"{median(warm):.2f} s"),
        ("of it finding the model", f"{median(warm_load):.4f} s"),
        ("ratio cold / warm", f"{median(cold) / median(warm):.1f}"),
    ]


def measure_workers(folder: Path, options: argparse.Namespace) -> Rows:
    """Requests through the inbox, half of them for one worker and half for two, in turns; all are warm.

    In turns, since what else the machine does changes within the time that many requests take. Two sandbox clips at a
    time need two processors and share them with daemon and Redis. So the same is done with runs that only wait, as a
    run on a GPU does for most of its time: what that lacks of a ratio of 2 is the fleet's own.
    """
    turns = min(_TURNS, options.requests // 2)
    each = options.requests // 2 // turns
    ones, twos = [], []
    with _prepared_fleet(folder / "sandbox", workers=2) as fleet:
        for worker in fleet.fleet.gpu_worker_names:
            with fleet.only_worker(worker):
                fleet.submit(f"warm-{worker}", when="nightly")
                _animate(fleet, f"warm-{worker}")
        for turn in range(turns):
            with fleet.gpu_slots(1), fleet.only_worker("gpu-0"):
                ones.append(_through_the_inbox(fleet, f"one-{turn}", each))
            twos.append(_through_the_inbox(fleet, f"two-{turn}", each))
            print(f"  turn {turn + 1} of {turns}: {ones[-1].seconds:.0f} s, {twos[-1].seconds:.0f} s", flush=True)
    waiting_one, waiting_two = _runs_that_only_wait(folder / "waiting", _WAITING_RUNS)
    count, one, two = each * turns, sum(work.seconds for work in ones), sum(work.seconds for work in twos)
    ratios = [first.seconds / second.seconds for first, second in zip(ones, twos, strict=True)]
    run_one, run_two = (median(work.run for work in works) for works in (ones, twos))
    return [
        (f"{count} requests, 1 worker", f"{one:.0f} s, {3600 * count / one:.0f} clips an hour"),
        (f"{count} requests, 2 workers", f"{two:.0f} s, {3600 * count / two:.0f} clips an hour"),
        ("ratio of throughputs", f"{one / two:.2f} ({min(ratios):.2f} to {max(ratios):.2f} in {turns} turns)"),
        ("one run, from start to end, median: 1 worker, 2 workers", f"{run_one:.2f} s, {run_two:.2f} s"),
        ("the worker's pause between two runs, median, 1 worker", f"{median(work.pause for work in ones):.2f} s"),
        (
            f"{_WAITING_RUNS} runs that wait {_WAITING_SECONDS:.0f} s each: 1 worker, 2 workers",
            f"{waiting_one.seconds:.0f} s, {waiting_two.seconds:.0f} s",
        ),
        ("ratio of throughputs", f"{waiting_one.seconds / waiting_two.seconds:.2f}"),
        ("the worker's pause between two runs, median, 1 worker", f"{waiting_one.pause:.2f} s"),
    ]


@dataclass(frozen=True)
class _Work:
    """A number of runs in seconds: from the first start to the last end; medians of a run and of the pause after it."""

    seconds: float
    run: float
    pause: float

    @classmethod
    def of(cls, fleet: ObservedFleet, run_ids: list[str]) -> "_Work":
        for run_id in run_ids:
            assert fleet.finish(run_id, _RUN_SECONDS) == dg.DagsterRunStatus.SUCCESS, fleet.messages(run_id)
        runs = sorted(map(fleet.instance.get_run_stats, run_ids), key=lambda run: run.start_time)
        return cls(
            seconds=max(run.end_time for run in runs) - runs[0].start_time,
            run=median(run.end_time - run.start_time for run in runs),
            pause=median(after.start_time - before.end_time for before, after in pairwise(runs)),
        )


def _through_the_inbox(fleet: RealFleet, name: str, count: int) -> _Work:
    ids = [f"{name}-{number:03d}" for number in range(count)]
    for number, request_id in enumerate(ids):
        fleet.submit(request_id, seed=number)
    return _Work.of(fleet, [fleet.launched(request_id, _RUN_SECONDS).run_id for request_id in ids])


def _runs_that_only_wait(folder: Path, count: int) -> tuple[_Work, _Work]:
    """With one slot of the pool and with two, on two workers of the tests' toy code location."""
    works = []
    with running(toy_plan(folder, gpu_workers=2)) as fleet, fleet.instance() as instance:
        seen = ObservedFleet(fleet, folder / "notes", instance)
        for slots in (1, 2):
            with seen.gpu_slots(0):
                ids = [seen.launch(f"{slots}-{number}", seconds=_WAITING_SECONDS) for number in range(count)]
            with seen.gpu_slots(slots):
                works.append(_Work.of(seen, ids))
    return works[0], works[1]


def measure_backfill(folder: Path, options: argparse.Namespace) -> Rows:
    """A large backfill, canceled once a quarter is queued: how usable the UI stays, and what the daemon takes."""
    with running_fleet(folder) as fleet:
        seen = fleet.cancel_a_backfill(options.backfill, options.backfill // 4, _RUN_SECONDS)
    return [
        (f"backfill of {options.backfill:,} requests, canceled at a quarter: runs queued", str(seen.runs)),
        ("cancels asked for; until all runs had ended", f"{seen.cancels}; {seen.seconds_to_end:.0f} s"),
        ("until the backfill was CANCELED (Dagster looks every 30 s)", f"{seen.seconds_to_canceled:.0f} s"),
        ("runs page meanwhile, median and slowest answer", f"{seen.median_answer:.2f} s, {seen.worst_answer:.2f} s"),
        ("daemon, before and at most", f"{seen.daemon_before / 1e6:.0f} MB, {seen.daemon_peak / 1e6:.0f} MB"),
    ]


# --- evaluation functions in a process of their own ---


def measure_ticks(folder: Path, options: argparse.Namespace) -> Rows:
    """One evaluation of the inbox sensor and of the schedule, with many requests, in a process of their own."""
    command = [sys.executable, __file__, "--child", str(folder), "--documents", str(options.documents)]
    environment = {**os.environ, "DATA_DIR": str(folder), "S3_ENDPOINT": "", "ONE_TO_ALL_MODEL_DIR": ""}
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    return [(label, value) for label, value in json.loads(done.stdout.splitlines()[-1])]


def _resources() -> tuple[Any, Any]:
    from orchestration.storage.resources import SettingsResource, StorageResource  # noqa: PLC0415

    settings = SettingsResource()
    return settings, StorageResource(settings=settings)


def _write_requests(folder: Path, count: int) -> None:
    """``count`` documents, each naming the same two small media files."""
    inbox = folder / "artifacts" / "inbox"
    inbox.mkdir(parents=True)
    (inbox / "puppet.png").write_bytes(b"picture")
    (inbox / "dance.mp4").write_bytes(b"video")
    for number in range(count):
        content = {"id": f"request-{number:05d}", "reference": "puppet.png", "driver": "dance.mp4", "model": "sandbox"}
        (inbox / f"request-{number:05d}.json").write_text(json.dumps({**content, "seed": number}))


class _Clock:
    """Wall time and processor time in seconds: on a busy machine only the latter says what a tick costs."""

    def __init__(self) -> None:
        self._wall, self._processor = time.perf_counter(), time.process_time()

    def read(self) -> tuple[float, float]:
        return time.perf_counter() - self._wall, time.process_time() - self._processor


def _show(seconds: tuple[float, float]) -> str:
    return f"{seconds[0]:.2f} s ({seconds[1]:.2f} s of a processor)"


def _take_all(folder: Path, instance: dg.DagsterInstance, count: int) -> tuple[list[tuple[float, float]], int, int]:
    """Evaluate the sensor as the daemon does until the inbox is empty.

    Returns:
        Wall and processor seconds of each tick, how many runs were asked for, characters of the largest cursor.
    """
    from orchestration.inbox.sensor import inbox_sensor  # noqa: PLC0415

    settings, storage = _resources()
    ticks, runs, cursors = [], 0, [""]
    while any((folder / "artifacts" / "inbox").glob("*.json")):
        resources = {"settings": settings, "storage": storage}
        with dg.build_sensor_context(instance, cursors[-1] or None, resources=resources) as context:
            clock = _Clock()
            result = inbox_sensor(context)
            ticks.append(clock.read())
        for request in result.dynamic_partitions_requests:
            instance.add_dynamic_partitions(request.partitions_def_name, list(request.partition_keys))
        runs += len(result.run_requests or [])
        cursors.append(result.cursor)
        assert len(ticks) <= count + 2, "the inbox does not get empty"
    return ticks, runs, max(map(len, cursors))


def _child_ticks(folder: Path, count: int) -> Rows:
    from libs.requests.lifecycle.accepted import AcceptedRequests  # noqa: PLC0415
    from orchestration.definitions import build_defs  # noqa: PLC0415

    settings, storage = _resources()
    objects = storage.objects()
    (folder / "dagster").mkdir()
    overrides = {"telemetry": {"enabled": False}}
    with dg.DagsterInstance.local_temp(str(folder / "dagster"), overrides=overrides) as instance:
        _write_requests(folder, 1)
        _take_all(folder, instance, 1)  # imports and caches are paid for
        (folder / "artifacts").rename(folder / "warm-up")
        _write_requests(folder, count)
        before = psutil.Process().memory_info().rss
        ticks, runs, cursor = _take_all(folder, instance, count)
        inbox_memory = _peak() - before
        assert len(instance.get_dynamic_partitions(REQUESTS)) == count
        schedule = build_defs().resolve_schedule_def("nightly_batch")

        def tick() -> tuple[tuple[float, float], int]:
            with dg.build_schedule_context(instance, resources={"settings": settings, "storage": storage}) as context:
                clock = _Clock()
                asked = schedule(context)
                return clock.read(), len(asked) if isinstance(asked, list) else 0

        all_owed, asked = tick()
        requests = AcceptedRequests(objects)
        for request_id in list(requests.ids())[: count * 99 // 100]:
            accepted = requests.find(request_id)
            assert accepted is not None
            objects.put_bytes(f"animation/{request_id}/manifest.json", b"{}", "application/json")
            requests.clear_pending(request_id, accepted.content)
        few_owed, few = tick()
    return [
        (f"sensor, {count:,} documents in the inbox: one tick, median", _show(sorted(ticks)[len(ticks) // 2])),
        ("slowest tick (Dagster's limit: 60 s)", _show(max(ticks))),
        ("ticks until the inbox was empty, runs asked for", f"{len(ticks)}, {runs:,}"),
        (
            "memory above that before the first tick; largest cursor",
            f"{inbox_memory / 1e6:.0f} MB; {cursor:,} characters",
        ),
        (f"schedule, {count:,} registered requests without a clip: one tick", f"{_show(all_owed)}, {asked:,} runs"),
        ("the same when 99 of 100 have their clip", f"{_show(few_owed)}, {few:,} runs"),
        ("memory of all of it above that before the first tick", f"{(_peak() - before) / 1e6:.0f} MB"),
    ]


def _peak() -> int:
    """The largest memory of this process so far, in bytes (Linux)."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


# --- docs ---


def _machine() -> str:
    memory = psutil.virtual_memory().total / 1e9
    load = os.getloadavg()[0]
    return f"{os.cpu_count()} processors, {memory:.0f} GB, Python {platform.python_version()}, load {load:.1f} at start"


def _write(name: str, machine: str, rows: Rows) -> None:
    """Put the table of one part below the title, in the place of its older one."""
    text = _RESULTS.read_text() if _RESULTS.exists() else "# Benchmarks\n"
    if _TITLE not in text:
        text = f"{text.rstrip()}\n\n{_TITLE}\n`python benchmarks/fleet.py --write`; sandbox models on the CPU.\n"
    lines = "".join(f"| {label} | {value} |\n" for label, value in rows)
    table = f"\n### Fleet: {name}\n{machine}\n\n| what | measured |\n|---|---|\n{lines}"
    # From its heading to the end of its table; what people wrote below that stays.
    older = re.compile(rf"\n### Fleet: {name}\n(?:(?!\n##).)*?\n\|---\|---\|\n(?:\|[^\n]*\n)*", re.DOTALL)
    if older.search(text):
        text = older.sub(lambda _: table, text)
    else:
        begin = text.index(_TITLE) + len(_TITLE)
        after = re.search(r"\n## ", text[begin:])
        end = begin + after.start() if after else len(text)
        text = f"{text[:end].rstrip()}\n{table}{text[end:]}"
    _RESULTS.write_text(text.rstrip("\n") + "\n")


if __name__ == "__main__":
    main()
