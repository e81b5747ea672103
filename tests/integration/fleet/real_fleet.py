"""A fleet with the real code location and the sandbox models: submit requests, launch jobs, read runs and metadata.

Used by the test of the real code location and by ``benchmarks/fleet.py``.
"""

import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import dagster as dg
import psutil
import requests
from dagster._core.execution.backfill import BulkActionStatus
from observed_fleet import LAUNCH, REPOSITORY, ObservedFleet, running

from libs.sandbox.media import write_puppet_clip, write_puppet_picture
from libs.storage.artifacts import ArtifactStore
from libs.storage.backends.folder import FolderObjectStore
from orchestration.fleet.local.fleet_plan import CODE_LOCATION, FleetPlan, free_port
from tests.waiting import HANG_SECONDS

ANIMATE_ASSETS = [
    "animation_request",
    "request_media",
    "pose_options",
    "pose_tracks",
    "pose_conditioning",
    "animation",
]
REQUESTS = "animation_requests"
UNFINISHED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
_SMALL = {"reference": "puppet.png", "driver": "dance.mp4", "model": "sandbox", "steps": 1, "keep_audio": False}

BACKFILL = """mutation($params: LaunchBackfillParams!) { launchPartitionBackfill(backfillParams: $params) {
  __typename ... on LaunchBackfillSuccess { backfillId } ... on PythonError { message } } }"""
CANCEL_BACKFILL = """mutation($id: String!) { cancelPartitionBackfill(backfillId: $id) {
  __typename ... on PythonError { message } } }"""
SCHEDULE = """query($selector: ScheduleSelector!) { scheduleOrError(scheduleSelector: $selector) {
  ... on Schedule { scheduleState { id } } } }"""
STOP_SCHEDULE = """mutation($id: String!) { stopRunningSchedule(id: $id) {
  __typename ... on ScheduleStateResult { scheduleState { status } } ... on PythonError { message } } }"""
RUNS_PAGE = """query { runsOrError(limit: 30) { __typename ... on Runs {
  results { runId status jobName startTime endTime tags { key value } } } } }"""


def real_plan(folder: Path, settings: Mapping[str, str] = {}, **changes: Any) -> FleetPlan:
    """A fleet of this project's code location with all of its state in ``folder``, without GPUs."""
    environment = {
        "MODELS_DIR": str(folder / "models"),
        "DATA_DIR": str(folder / "data"),
        "ONE_TO_ALL_DEVICE": "cpu",
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
        # Empty means not set: whatever the developer's environment and .env say.
        "S3_ENDPOINT": "",
        "ONE_TO_ALL_MODEL_DIR": "",
        "ONE_TO_ALL_RUNTIME_DIR": "",
        **settings,
    }
    return FleetPlan(
        **{
            "folder": folder / "fleet",
            "storage": folder / "dagster",
            "gpu_workers": 1,
            "cpu_concurrency": 1,
            "port": free_port(),
            "code_location": CODE_LOCATION,
            "environment": environment,
            **changes,
        }
    )


@dataclass(frozen=True)
class CanceledBackfill:
    """What a backfill did to the rest until it was canceled: seconds, and bytes of the daemon's memory.

    ``cancels``: how often it had to be asked for. ``seconds_to_end``: until no run was left; the daemon, which looks at
    backfills every 30 s, says CANCELED after ``seconds_to_canceled``.
    """

    runs: int
    queues: frozenset[str]
    cancels: int
    seconds_to_end: float
    seconds_to_canceled: float
    median_answer: float
    worst_answer: float
    daemon_before: int
    daemon_peak: int

    def __str__(self) -> str:
        return (
            f"{self.runs} runs were queued, and all had ended {self.seconds_to_end:.1f} s after the cancel, which was "
            f"asked for {self.cancels} times; CANCELED after {self.seconds_to_canceled:.1f} s; the runs page"
            f" answered within {self.median_answer:.2f} s (slowest: {self.worst_answer:.2f} s); "
            f"daemon: {self.daemon_before / 1e6:.0f} MB before, at most {self.daemon_peak / 1e6:.0f} MB"
        )


@contextmanager
def running_fleet(folder: Path, settings: Mapping[str, str] = {}, **changes: Any) -> Iterator["RealFleet"]:
    """A fleet of :func:`real_plan` that is up and is kept up."""
    with running(real_plan(folder, settings, **changes)) as fleet, fleet.instance() as instance:
        yield RealFleet(fleet, folder, instance)


class RealFleet(ObservedFleet):
    """A running fleet of :func:`real_plan`."""

    @property
    def inbox(self) -> Path:
        return Path(self.fleet.plan.environment["DATA_DIR"]) / "artifacts" / "inbox"

    @property
    def artifacts(self) -> ArtifactStore:
        data = Path(self.fleet.plan.environment["DATA_DIR"])
        return ArtifactStore(FolderObjectStore(data / "artifacts"), data / "artifact_cache")

    def launched(self, request_id: str, seconds: float = HANG_SECONDS) -> dg.DagsterRun:
        """The run that sensor or schedule launched for a request, once it has."""
        return self.wait_until(f"{request_id} is launched", lambda: self.runs_of(request_id), seconds)[0]

    # --- do ---

    def write_media(self, frame_count: int = 5, driver: str = "dance.mp4") -> None:
        """The puppet's picture and a short dance, for :meth:`submit`."""
        self.inbox.mkdir(parents=True, exist_ok=True)
        write_puppet_picture(self.inbox / "puppet.png")
        write_puppet_clip(self.inbox / driver, frame_count=frame_count, audio=False)

    def submit(self, request_id: str, **fields: Any) -> None:
        """Put a request for a clip of 48 x 64 pixels into the inbox."""
        content = {"id": request_id, **_SMALL, "size": {"height": 64, "width": 48}, **fields}
        target = self.inbox / f"{request_id}.json"
        target.with_suffix(".writing").write_text(json.dumps(content))
        target.with_suffix(".writing").rename(target)

    def launch_job(self, job: str, partition: str, assets: list[str] | None = None) -> str:
        """Launch ``job``, or only some of its assets, for one partition as the UI does; returns the run id."""
        selector = {**REPOSITORY, "pipelineName": job}
        if assets:
            selector["assetSelection"] = [{"path": [asset]} for asset in assets]
        metadata = {"tags": [{"key": "dagster/partition", "value": partition}]}
        answer = self.ask_ui(LAUNCH, {"params": {"selector": selector, "executionMetadata": metadata}})
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return str(answer["run"]["runId"])

    def animate_by_hand(self, request_id: str) -> str:
        """Launch the clip of a request, without its review, as the UI does; returns the run id."""
        self.instance.add_dynamic_partitions(REQUESTS, [request_id])
        return self.launch_job("animate", request_id, ANIMATE_ASSETS)

    def stop_schedule(self, name: str) -> None:
        """Switch a schedule off as the UI does."""
        selector = {**REPOSITORY, "scheduleName": name}
        schedule = self.ask_ui(SCHEDULE, {"selector": selector})
        answer = self.ask_ui(STOP_SCHEDULE, {"id": schedule["scheduleState"]["id"]})
        assert answer["scheduleState"]["status"] == "STOPPED", answer

    def backfill_requests(self, request_ids: list[str]) -> str:
        """Register requests and backfill their clips; returns the backfill's id."""
        self.instance.add_dynamic_partitions(REQUESTS, request_ids)
        selection = [{"path": [asset]} for asset in ANIMATE_ASSETS]
        answer = self.ask_ui(BACKFILL, {"params": {"assetSelection": selection, "partitionNames": request_ids}})
        assert answer["__typename"] == "LaunchBackfillSuccess", answer
        return str(answer["backfillId"])

    def cancel_backfill(self, backfill_id: str) -> None:
        """Cancel as the UI does; the daemon may undo it (:meth:`cancel_a_backfill`)."""
        answer = self.ask_ui(CANCEL_BACKFILL, {"id": backfill_id})
        assert answer["__typename"] == "CancelBackfillSuccess", answer

    def cancel_a_backfill(self, count: int, cancel_at: int, seconds: float, lost: int = 0) -> CanceledBackfill:
        """Backfill ``count`` requests, cancel once ``cancel_at`` runs are queued, and watch until Dagster is done.

        After every 25 runs the daemon reads the backfill and writes it back as it was: a cancel that comes in between
        is confirmed and lost. So it is asked for again while the backfill is REQUESTED, as a person would. ``lost``
        cancels are lost for certain, in that way.
        """
        daemon = psutil.Process(self.fleet.processes["daemon"].pid)
        memory, answers = [daemon.memory_info().rss], []
        backfill_id = self.backfill_requests([f"backfill-{number:04d}" for number in range(count)])
        tags = {"dagster/backfill": backfill_id}

        def measure() -> None:
            memory.append(daemon.memory_info().rss)
            answers.append(self.seconds_of_runs_page())

        def enough_are_queued() -> bool:
            measure()
            return self.instance.get_runs_count(dg.RunsFilter(tags=tags)) >= cancel_at

        self.wait_until("the backfill's runs are queued", enough_are_queued, seconds)
        begun = time.monotonic()
        cancels, ended = 0, begun

        def is_canceled() -> bool:
            nonlocal cancels, ended
            measure()
            backfill = self.instance.get_backfill(backfill_id)
            assert backfill is not None
            if backfill.status == BulkActionStatus.REQUESTED:
                self.cancel_backfill(backfill_id)
                cancels += 1
                if cancels <= lost:
                    self.instance.update_backfill(backfill)  # what was read before the cancel, as the daemon does
            if self.instance.get_runs_count(dg.RunsFilter(tags=tags, statuses=UNFINISHED)):
                ended = time.monotonic()
            return backfill.status == BulkActionStatus.CANCELED

        self.wait_until("the backfill is canceled", is_canceled, seconds)
        runs = self.instance.get_runs(dg.RunsFilter(tags=tags))
        assert all(run.is_finished for run in runs), "CANCELED, and runs are left"
        return CanceledBackfill(
            runs=len(runs),
            queues=frozenset(run.tags["dagster-celery/queue"] for run in runs),
            cancels=cancels,
            seconds_to_end=ended - begun,
            seconds_to_canceled=time.monotonic() - begun,
            median_answer=median(answers),
            worst_answer=max(answers),
            daemon_before=memory[0],
            daemon_peak=max(memory),
        )

    # --- see ---

    def chunks(self, request_id: str) -> dict[int, tuple[int, int]]:
        """The finished chunks of a clip in the making: number -> inode and time of change."""
        folder = Path(self.fleet.plan.environment["DATA_DIR"]) / "artifacts" / "chunks" / request_id
        found = {}
        for path in folder.glob("*/*/*.json"):
            with suppress(FileNotFoundError):  # they go when the clip is stored
                status = path.stat()
                found[int(path.stem)] = (status.st_ino, status.st_mtime_ns)
        return found

    def seconds_of_runs_page(self) -> float:
        """How long the webserver takes for what its page of runs asks for."""
        answer = requests.post(f"{self.fleet.url}/graphql", json={"query": RUNS_PAGE}, timeout=HANG_SECONDS)
        assert answer.json()["data"]["runsOrError"]["__typename"] == "Runs"
        return answer.elapsed.total_seconds()

    def metadata(self, run_id: str, asset: str = "animation") -> dict[str, Any]:
        """Metadata of the asset that a run materialized."""
        for entry in self.instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION):
            event = entry.dagster_event
            if event and event.asset_key == dg.AssetKey(asset):
                entries = event.step_materialization_data.materialization.metadata
                return {name: value.value for name, value in entries.items()}
        raise AssertionError(f"run {run_id} did not materialize {asset}:\n{self.messages(run_id)}")

    def first_sampling_step(self, run_id: str) -> float:
        """When a run began to sample, in seconds since the epoch."""
        return next(
            entry.timestamp for entry in self.instance.all_logs(run_id) if "sampling: 0 of" in entry.user_message
        )
