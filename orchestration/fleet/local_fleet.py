"""``make fleet``: Redis, code server, webserver, daemon, a CPU worker and N GPU-queue workers on this machine.

It shares the database of ``make ui`` (either runs, not both) and ``make demo``, starts again what dies, and stops
everything on Ctrl-C or SIGTERM.
"""

import argparse
import os
import secrets
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.request import urlopen

import dagster as dg
import grpc
import yaml
from celery import Celery
from filelock import FileLock, Timeout
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from redis import Redis
from redis.exceptions import RedisError

from libs.errors import OneToAllError, SettingsError
from libs.settings import REPOSITORY_ROOT, load_settings
from orchestration.fleet.instance_preparation import DatabaseNotReadyError, prepare_instance
from orchestration.fleet.launching.active_runs import BROKER_ERRORS
from orchestration.fleet.launching.celery_app import ask_workers, make_celery_app
from orchestration.fleet.local.fleet_plan import HOST, LOCATION_NAME, FleetPlan, free_port, plan_for_this_machine
from orchestration.fleet.local.processes import Process
from orchestration.fleet.run_coordinator import CPU_QUEUE
from orchestration.fleet.working.draining import DRAINED_STATUS
from orchestration.laptop.instance import claim_daemon
from orchestration.policies import GPU_QUEUE

TEMPLATE = REPOSITORY_ROOT / "infra" / "dagster.prod.yaml"
START_SECONDS = 300.0


class FleetError(OneToAllError):
    """A process of the local fleet did not start."""


class LocalFleet:
    """Context manager: all processes are up and answer on entry, and none is left on exit."""

    def __init__(self, plan: FleetPlan, say: Callable[[str], None] = lambda _: None) -> None:
        self.plan = plan
        self.home = plan.folder / "dagster_home"
        self._say = say
        self._lock = FileLock(plan.folder / "fleet.lock")
        self._daemon_claim: int | None = None
        password = secrets.token_hex(16)
        self._redis_port = free_port()
        self._redis_config = (
            f"port {self._redis_port}\nbind {HOST}\nrequirepass {password}\ndir {plan.folder / 'redis'}\n"
            # Every launch is on disk before it is confirmed: a restart of Redis loses no request.
            'appendonly yes\nappendfsync always\nsave ""\n'
        )
        self.redis_url = plan.redis_url or f"redis://:{password}@{HOST}:{self._redis_port}/0"
        self._code_port = free_port()
        self.environment = {
            **plan.environment,
            "DAGSTER_HOME": str(self.home),
            "REDIS_URL": self.redis_url,
            "PYTHONUNBUFFERED": "1",
        }
        self.processes: dict[str, Process] = {}

    @property
    def url(self) -> str:
        """The UI's address."""
        return f"http://{HOST}:{self.plan.port}"

    @property
    def gpu_worker_names(self) -> list[str]:
        """The names of the GPU-queue workers, also in ``processes``."""
        return [f"gpu-{index}" for index in range(self.plan.gpu_workers)]

    def __enter__(self) -> Self:
        self.plan.folder.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise FleetError(f"Another fleet runs in {self.plan.folder}: stop it first") from None
        try:
            if self.plan.storage is not None:
                self._daemon_claim = claim_daemon(self.plan.storage)
            self._start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, error_type: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def instance(self) -> dg.DagsterInstance:
        """The fleet's Dagster instance; the caller disposes of it."""
        return dg.DagsterInstance.from_config(str(self.home))

    def app(self) -> Celery:
        """A Celery app that talks to the fleet's workers."""
        return make_celery_app(self.redis_url)

    def keep_running(self, stop: threading.Event) -> None:
        """Start again what ends by itself, but for drained workers, and keep logs short, until ``stop`` is set."""
        while not stop.wait(0.5):
            for process in self.processes.values():
                process.rotate_log()
                if process.restart_if_ended():
                    self._say(f"{process.name} had ended and was started again; its log: {process.log}")

    def stop(self) -> None:
        """All at once but Redis, which the workers still need to report an interrupted run."""
        for names in (self.processes.keys() - {"redis"}, {"redis"}):
            group = [process for name, process in self.processes.items() if name in names]
            for process in group:
                process.ask_to_stop()
            for process in group:
                process.stop()
        if self._daemon_claim is not None:
            os.close(self._daemon_claim)
            self._daemon_claim = None
        self._lock.release()

    # --- start ---

    def _start(self) -> None:
        self._write_home()
        if self.plan.redis_url is None:
            self._start_redis()
        self._wait_for("redis", self._redis_answers)
        with self.instance() as instance:
            prepare_instance(instance, self.plan.gpu_workers)
        began = time.time()
        self._start_workers()
        self._start_code_server()
        self._wait_for("code_server", self._code_server_answers)
        self._start_dagster()
        self._wait_for("webserver", self._webserver_answers)
        self._wait_for("daemon", lambda: self._daemon_beats(began))
        self._wait_for(self.gpu_worker_names[-1], self._workers_answer)

    def _write_home(self) -> None:
        """``dagster.yaml`` from the template, and a workspace with the code server's port."""
        config = yaml.safe_load(TEMPLATE.read_text())
        if self.plan.storage is not None:
            config.update(_storage_of_this_machine(self.plan.storage))
            del config["compute_logs"]  # Dagster's default: beside the database
        for limit in config["concurrency"]["runs"]["tag_concurrency_limits"]:
            if limit.get("value") == CPU_QUEUE:
                limit["limit"] = self.plan.cpu_concurrency
        self.home.mkdir(parents=True, exist_ok=True)
        (self.home / "dagster.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
        server = {"host": HOST, "port": self._code_port, "location_name": LOCATION_NAME}
        (self.home / "workspace.yaml").write_text(yaml.safe_dump({"load_from": [{"grpc_server": server}]}))

    def _start_redis(self) -> None:
        executable = shutil.which("redis-server")
        if executable is None:
            raise FleetError("redis-server is not installed: `apt-get install redis-server`, or set REDIS_URL")
        (self.plan.folder / "redis").mkdir(exist_ok=True)
        # The configuration comes through standard input: no password on a command line or in a file.
        self._launch("redis", [executable, "-"], stdin=self._redis_config)

    def _start_code_server(self) -> None:
        server = [sys.executable, "-m", "dagster", "code-server", "start", "--location-name", LOCATION_NAME]
        self._launch("code_server", [*server, "--host", HOST, "--port", str(self._code_port), *self.plan.code_location])

    def _start_dagster(self) -> None:
        workspace = ["--workspace", str(self.home / "workspace.yaml")]
        webserver = [sys.executable, "-m", "dagster_webserver", "--host", HOST, "--port", str(self.plan.port)]
        # Seconds after which an idle connection is replaced: none outlives a restart of PostgreSQL, and fails then.
        self._launch("webserver", [*webserver, *workspace, "--db-pool-recycle", "2"])
        self._launch("daemon", [sys.executable, "-m", "dagster._daemon", "run", *workspace])

    def _start_workers(self) -> None:
        worker = [sys.executable, "-m", "orchestration.fleet.worker", "--grace", "2"]
        slots = str(self.plan.cpu_concurrency)
        self._launch(CPU_QUEUE, [*worker, "--queue", CPU_QUEUE, "--name", CPU_QUEUE, "--concurrency", slots])
        for index, name in enumerate(self.gpu_worker_names):
            gpu = ["--gpu", self.plan.gpus[index]] if index < len(self.plan.gpus) else []
            self._launch(name, [*worker, "--queue", GPU_QUEUE, "--name", name, *gpu])

    def _launch(self, name: str, command: Sequence[str | Path], stdin: str = "") -> None:
        log = self.plan.logs / f"{name}.log"
        self.processes[name] = Process(name, command, self.environment, log, stdin, last_status=DRAINED_STATUS)
        self.processes[name].start()

    # --- health ---

    def _wait_for(self, name: str, answers: Callable[[], bool]) -> None:
        """Wait until ``answers``; fails at once if the process ends meanwhile.

        Raises:
            FleetError: with the end of the process's log.
        """
        process = self.processes.get(name)
        deadline = time.monotonic() + START_SECONDS
        while not answers():
            if process is not None and not process.is_running():
                raise FleetError(f"{name} ended while it started:\n{process.last_lines()}")
            if time.monotonic() > deadline:
                lines = f":\n{process.last_lines()}" if process else ""
                raise FleetError(f"{name} did not answer within {START_SECONDS:.0f} s{lines}")
            time.sleep(0.3)
        self._say(f"{name} is up")

    def _redis_answers(self) -> bool:
        try:
            with Redis.from_url(self.redis_url, socket_timeout=2) as redis:
                return bool(redis.ping())
        except RedisError:
            return False

    def _code_server_answers(self) -> bool:
        with grpc.insecure_channel(f"{HOST}:{self._code_port}") as channel:
            try:
                answer = HealthStub(channel).Check(HealthCheckRequest(service="DagsterApi"), timeout=2)
            except grpc.RpcError:  # not listening yet
                return False
            return bool(answer.status == HealthCheckResponse.SERVING)

    def _webserver_answers(self) -> bool:
        try:
            with urlopen(f"{self.url}/server_info", timeout=2) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def _daemon_beats(self, since: float) -> bool:
        with self.instance() as instance:
            beats = instance.get_daemon_heartbeats()
            required = {kind for kind in instance.get_required_daemon_types() if kind != "BACKFILL"}
            return required <= {kind for kind, beat in beats.items() if beat.timestamp >= since}

    def _workers_answer(self) -> bool:
        try:
            answers = ask_workers(self.app(), "ping", seconds=1.0)
        except BROKER_ERRORS:
            return False
        return len(answers) >= self.plan.gpu_workers + 1


def _storage_of_this_machine(folder: Path) -> dict[str, Any]:
    """The parts of ``dagster.yaml`` that keep database and logs in a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "storage": {"sqlite": {"base_dir": str(folder)}},
        "local_artifact_storage": {
            "module": "dagster._core.storage.root",
            "class": "LocalArtifactStorage",
            "config": {"base_dir": str(folder)},
        },
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a fleet until Ctrl-C or SIGTERM; returns the exit status."""
    parser = argparse.ArgumentParser(prog="make fleet", description="Run a whole fleet on this machine.")
    parser.add_argument("--workers", type=int, help="number of GPU workers (default: one per GPU, at least one)")
    parser.add_argument("--port", type=int, default=3000, help="port of the UI (default: %(default)s)")
    options = parser.parse_args(arguments)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt_once)
    try:
        plan = plan_for_this_machine(load_settings(), options.workers, options.port)
        with LocalFleet(plan, say=lambda line: print(line, flush=True)) as fleet:
            print(f"Dagster UI: {fleet.url}  logs: {plan.logs}  (Ctrl-C stops everything)", flush=True)
            fleet.keep_running(threading.Event())
    except (FleetError, DatabaseNotReadyError, SettingsError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("Everything is stopped", flush=True)
    return 0


def _interrupt_once(*_: object) -> None:
    """Interrupt the main thread wherever it is, also while it starts; what follows must not disturb the stop."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
