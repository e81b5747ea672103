"""What the tests of the fleet do and see: launch and cancel as the UI does, hold workers back, read runs and notes."""

import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import psutil
import requests

from orchestration.fleet.local.fleet_plan import LOCATION_NAME, FleetPlan, free_port
from orchestration.fleet.local_fleet import LocalFleet
from tests.waiting import HANG_SECONDS, wait_until

CODE_LOCATION = Path(__file__).with_name("code_location.py")
FINISHED = {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED}
REPOSITORY = {"repositoryLocationName": LOCATION_NAME, "repositoryName": "__repository__"}

LAUNCH = """mutation($params: ExecutionParams!) { launchPipelineExecution(executionParams: $params) {
  __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message } } }"""
TERMINATE = """mutation($run: String!, $policy: TerminateRunPolicy!) {
  terminateRun(runId: $run, terminatePolicy: $policy) { __typename ... on TerminateRunFailure { message } } }"""

QUICK_RETRY = {"DAGSTER_EVENT_LOG_CONSUMER_DAEMON_INTERVAL_SECONDS": "1"}
"""Environment of a fleet whose daemon looks for crashed runs every second, not every five."""


@contextmanager
def running(plan: FleetPlan) -> Iterator[LocalFleet]:
    """A fleet that is up, and whose processes are started again when they end."""
    stop = threading.Event()
    with LocalFleet(plan) as fleet:
        keeper = threading.Thread(target=fleet.keep_running, args=(stop,))
        keeper.start()
        try:
            yield fleet
        finally:
            stop.set()
            keeper.join()


class ObservedFleet:
    """A running fleet, used through the interface of the UI, and its database and executions to look at."""

    def __init__(self, fleet: LocalFleet, folder: Path, instance: dg.DagsterInstance) -> None:
        self.fleet = fleet
        self.folder = folder
        self.instance = instance
        self.app = fleet.app()

    # --- do ---

    def ask_ui(self, query: str, variables: Mapping[str, Any]) -> dict[str, Any]:
        answer = requests.post(
            f"{self.fleet.url}/graphql", json={"query": query, "variables": variables}, timeout=HANG_SECONDS
        ).json()
        assert "errors" not in answer, answer
        return next(iter(answer["data"].values()))

    def launch(self, clip: str | None, *, asset: str = "clip", seconds: float = 0.1, tags: Mapping = {}) -> str:
        """Materialize one partition (or the unpartitioned ``asset``) as the UI does; returns the run id."""
        if clip is not None:
            self.instance.add_dynamic_partitions("clips", [clip])
            tags = {"dagster/partition": clip, **tags}
        job = "__ASSET_JOB"
        config = {"ops": {"clip": {"config": {"seconds": seconds}}}} if asset == "clip" else {}
        answer = self.ask_ui(
            LAUNCH,
            {
                "params": {
                    "selector": {**REPOSITORY, "pipelineName": job, "assetSelection": [{"path": [asset]}]},
                    "runConfigData": config,
                    "executionMetadata": {"tags": [{"key": key, "value": value} for key, value in tags.items()]},
                }
            },
        )
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return answer["run"]["runId"]

    def cancel(self, run_id: str) -> None:
        """Cancel as the UI does, which offers only a forced end for a run that has not started yet."""
        starting = self.run(run_id).status == dg.DagsterRunStatus.STARTING
        policy = "MARK_AS_CANCELED_IMMEDIATELY" if starting else "SAFE_TERMINATE"
        answer = self.ask_ui(TERMINATE, {"run": run_id, "policy": policy})
        assert answer["__typename"] == "TerminateRunSuccess", answer

    @contextmanager
    def only_worker(self, *names: str) -> Iterator[None]:
        """Let only these GPU workers take runs from the queue."""
        idle = [self.node(name) for name in self.fleet.gpu_worker_names if name not in names]
        self._tell_workers("cancel_consumer", idle)
        try:
            yield
        finally:
            self._tell_workers("add_consumer", idle)

    def _tell_workers(self, command: str, nodes: list[str]) -> None:
        def answers(node: str) -> list[Any]:
            with self.app.connection_for_write() as connection:
                return self.app.control.broadcast(
                    command, {"queue": "gpu"}, [node], reply=True, limit=1, timeout=10, connection=connection
                )

        for node in nodes:
            wait_until(f"{node} answers", lambda node=node: answers(node))

    def renew_process(self, worker: str) -> None:
        """Replace the idle process of a worker by a new, cold one."""
        parent = psutil.Process(self.fleet.processes[worker].pid)
        old = parent.children()
        for process in old:
            process.kill()
        wait_until(f"{worker} has a new process", lambda: [new for new in parent.children() if new not in old])

    @contextmanager
    def gpu_slots(self, count: int) -> Iterator[None]:
        """Set the limit of the pool ``gpu``."""
        self.instance.event_log_storage.set_concurrency_slots("gpu", count)
        try:
            yield
        finally:
            self.instance.event_log_storage.set_concurrency_slots("gpu", self.fleet.plan.gpu_workers)

    # --- see ---

    def node(self, name: str) -> str:
        """The Celery name of a worker."""
        return f"{name}@{socket.gethostname()}"

    def run(self, run_id: str) -> dg.DagsterRun:
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        return run

    def runs_of(self, clip: str) -> list[dg.DagsterRun]:
        """All runs of a clip, oldest first."""
        return self.instance.get_runs(dg.RunsFilter(tags={"dagster/partition": clip}), ascending=True)

    def finish(self, run_id: str, seconds: float = HANG_SECONDS) -> dg.DagsterRunStatus:
        """The final status of a run."""

        def status() -> dg.DagsterRunStatus | None:
            now = self.run(run_id).status
            return now if now in FINISHED else None

        return wait_until(f"run {run_id} ends (is {self.run(run_id).status})", status, seconds)

    def executions(self, clip: str | None = None) -> list[dict[str, Any]]:
        """What the assets have noted so far."""
        notes = self.folder / "executions.jsonl"
        lines = [json.loads(line) for line in notes.read_text().splitlines()] if notes.exists() else []
        return [line for line in lines if clip is None or line["clip"] == clip]

    def started(self, run_id: str) -> dict[str, Any]:
        """The first note of a run, once it is there."""
        return wait_until(
            f"run {run_id} starts",
            lambda: next((line for line in self.executions() if line["run"] == run_id), None),
        )

    def process_of(self, worker: str) -> int:
        """The process that executes the runs of a worker."""
        return int(psutil.Process(self.fleet.processes[worker].pid).children()[0].pid)

    def worker_of(self, pid: int) -> str:
        """The name of the worker whose child process ``pid`` is."""
        parent = psutil.Process(pid).ppid()
        return next(name for name, process in self.fleet.processes.items() if process.pid == parent)

    def done(self, clip: str) -> bool:
        """True once an execution of the clip has come to its end."""
        return any(line["event"] == "done" for line in self.executions(clip))

    wait_until = staticmethod(wait_until)

    def messages(self, run_id: str) -> str:
        return "\n".join(record.message for record in self.instance.all_logs(run_id))

    def active_tasks(self) -> dict[str, list[Any]]:
        """What each worker says it executes, once all of them have answered."""

        def answers() -> dict[str, list[Any]] | None:
            with self.app.connection_for_write() as connection:
                found = self.app.control.inspect(timeout=1, connection=connection).active() or {}
            return found if len(found) == self.fleet.plan.gpu_workers + 1 else None

        return wait_until("all workers say what they execute", answers)

    def wait_for_workers(self) -> None:
        """All workers answer, e.g. after one was started again."""
        count = self.fleet.plan.gpu_workers + 1

        def all_answer() -> bool:
            with self.app.connection_for_write() as connection:
                return len(self.app.control.ping(timeout=1, connection=connection) or []) == count

        wait_until("all workers answer", all_answer)


def toy_plan(folder: Path, **changes: Any) -> FleetPlan:
    """A fleet of the toy code location with all of its state in ``folder``."""
    (folder / "notes").mkdir(parents=True, exist_ok=True)
    return FleetPlan(
        **{
            "folder": folder / "fleet",
            "storage": folder / "storage",
            "gpu_workers": 3,
            "cpu_concurrency": 1,
            "port": free_port(),
            "code_location": ("--python-file", str(CODE_LOCATION)),
            "environment": {"FLEET_TEST_DIR": str(folder / "notes"), "DATA_DIR": str(folder), **QUICK_RETRY},
            **changes,
        }
    )
