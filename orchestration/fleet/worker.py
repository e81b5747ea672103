"""A fleet worker: ``python -m orchestration.fleet.worker --queue gpu --gpu 0``, one per GPU, or one for CPU work.

The main process talks to Redis and never imports the engine; its one child per slot executes runs and keeps the model
loaded. While its GPU does not answer it takes no runs (``gpu_watch``). SIGTERM stops it: no new run is taken, a run in
progress has ``--grace`` seconds, then it is interrupted, and made again by another worker without spending a retry.
``drain`` lets it finish its run first. See ``local_fleet`` for starting several.
"""

import argparse
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg
import psutil
from celery import Celery
from celery.exceptions import Ignore
from celery.signals import worker_shutting_down

from libs.settings import load_settings
from orchestration.fleet.gpus.gpu_check import GpuCheck, UsedGpus
from orchestration.fleet.gpus.gpu_environment import prepare_gpu_environment
from orchestration.fleet.gpus.gpu_requirement import DEVICE_VARIABLE, required_gpus
from orchestration.fleet.gpus.gpu_watch import GpuWatch
from orchestration.fleet.launching.active_runs import BROKER_ERRORS
from orchestration.fleet.launching.celery_app import RUN_TASK_NAME, ask_workers, make_celery_app, require_redis_url
from orchestration.fleet.run_coordinator import CPU_QUEUE
from orchestration.fleet.working.draining import DRAINED_STATUS, Draining
from orchestration.fleet.working.host_check import HostCheck
from orchestration.fleet.working.old_compute_logs import keep_removing
from orchestration.fleet.working.planned_stop import note_planned_stop
from orchestration.fleet.working.run_gate import RunGate
from orchestration.fleet.working.run_task import execute_run
from orchestration.fleet.working.worker_identity import announce_worker
from orchestration.fleet.working.worker_panel import open_panel, runs_in_progress
from orchestration.policies import GPU_QUEUE

GRACE_SECONDS = 5.0
BROKER_PAUSE_SECONDS = 5.0
NOTE_SECONDS = 3.0

logger = logging.getLogger(__name__)


def make_worker_app(redis_url: str, gate: RunGate | None = None) -> Celery:
    """The app of a worker: the one task it knows executes a run in the process that receives it.

    With a ``gate`` a run that it does not admit is back in the queue, and Celery notes no result.
    """
    app = make_celery_app(redis_url)
    # A run that begins or ends while Redis restarts waits for it, rather than being lost.
    app.conf.result_backend_always_retry = True

    @app.task(name=RUN_TASK_NAME, track_started=True)
    def execute(run_id: str) -> str:
        if gate is None:
            return execute_run(run_id)
        if not gate.admits(run_id):
            raise Ignore()
        status = execute_run(run_id, gate.report_loss)
        gate.note_end(status)
        return status

    app.set_current()
    return app


@dataclass(frozen=True)
class Guards:
    """The parts of main process and of its children that keep runs from a worker that cannot make them."""

    gpu_watch: GpuWatch | None
    """None for a worker that needs no GPU."""
    host_watch: GpuWatch
    gate: RunGate
    lacking: set[str]


def guard(gpus: UsedGpus | None, redis_url: str, node: str, queue: str, draining: Draining) -> Guards:
    """Runs wait while the GPUs of this worker do not answer, or its host lacks something."""
    outbox = make_celery_app(redis_url, with_results=False)

    def read_on() -> None:
        answers = None
        while (
            not answers and not draining.begun
        ):  # after an outage of Redis this process takes a while to listen there again
            try:
                answers = ask_workers(
                    outbox, "add_consumer", seconds=BROKER_PAUSE_SECONDS, arguments={"queue": queue}, worker=node
                )
            except BROKER_ERRORS:
                logger.warning("Redis is away: this worker takes runs once it is back")
                time.sleep(BROKER_PAUSE_SECONDS)

    host = HostCheck(redis_url)
    host_watch = GpuWatch(host.why_still_unfit, read_on, subject="host")
    watch = GpuWatch(GpuCheck(gpus).probe, read_on) if gpus else None
    gate = RunGate(
        GpuCheck(gpus) if gpus else None,
        outbox,
        node,
        queue,
        had_troubles=lambda: watch is not None and watch.troubles > 0,
        host=HostCheck(redis_url, host.code),
    )
    return Guards(watch, host_watch, gate, host.lacking)


def visible_devices(queue: str, gpu: str | None) -> str | None:
    """``CUDA_VISIBLE_DEVICES`` of a worker: its GPU or GPUs (``0,1,2``), none for CPU work, or unchanged (None)."""
    if gpu is not None:
        return gpu
    return "" if queue == CPU_QUEUE else None


def interrupt_runs_after(grace_seconds: float) -> None:
    """Once this worker is told to stop, give its runs ``grace_seconds``, then send SIGTERM to their processes.

    Before that their runs are noted as stopped on purpose: a process that does not give way may be killed.
    """

    def interrupt() -> None:
        note_stop_of(runs_in_progress())
        for child in psutil.Process().children():
            child.send_signal(signal.SIGTERM)

    def on_shutdown(**_: object) -> None:
        timer = threading.Timer(grace_seconds, interrupt)
        timer.daemon = True
        timer.start()

    worker_shutting_down.connect(on_shutdown, weak=False)


def note_stop_of(run_ids: Sequence[str]) -> None:
    """Have these runs spend no retry on a planned stop; waits at most ``NOTE_SECONDS`` for a database that is away."""

    def note() -> None:
        try:
            with dg.DagsterInstance.get() as instance:
                for run_id in run_ids:
                    note_planned_stop(instance, run_id)
        except Exception:  # the process that executes the run tries as well
            logger.exception("Cannot note that %s are stopped on purpose", ", ".join(run_ids))

    if run_ids:
        noting = threading.Thread(target=note, name="planned-stop", daemon=True)
        noting.start()
        noting.join(NOTE_SECONDS)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a worker until SIGTERM.

    Raises:
        SettingsError: ``REDIS_URL`` is not set.
    """
    options = argument_parser().parse_args(arguments)
    devices = visible_devices(options.queue, options.gpu)
    if devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices
    settings = load_settings()
    redis_url = require_redis_url(settings)
    name = options.name or f"{options.queue}-{(options.gpu or str(os.getpid())).replace(',', '-')}"
    node = f"{name}@{socket.gethostname()}"
    draining = Draining(runs_in_progress)
    gpus = required_gpus(settings, options.queue, os.environ, named=bool(options.gpu))
    if gpus:
        # What `auto` means is settled: a clip that finds no GPU later fails, rather than going to the CPU.
        os.environ[DEVICE_VARIABLE] = settings.one_to_all_device.replace("auto", "cuda")
    prepare_gpu_environment(os.environ, settings.data_dir)
    guards = guard(gpus, redis_url, node, options.queue, draining)
    open_panel(options.queue, guards.gpu_watch, draining, guards.host_watch, guards.lacking)
    app = make_worker_app(redis_url, guards.gate)
    interrupt_runs_after(options.grace)
    announce_worker(name, options.queue)
    keep_removing()
    try:
        app.worker_main([
            "worker",
            f"--hostname={node}",
            f"--queues={options.queue}",
            "--pool=prefork",
            f"--concurrency={options.concurrency}",
            "--without-gossip",
            "--without-mingle",
            "--without-heartbeat",
            "--loglevel=INFO",
        ])  # fmt: skip
    finally:
        if draining.over:
            sys.exit(DRAINED_STATUS)


def argument_parser() -> argparse.ArgumentParser:
    """The options of ``python -m orchestration.fleet.worker``."""
    parser = argparse.ArgumentParser(
        prog="python -m orchestration.fleet.worker",
        description=(
            "Run a fleet worker: one per GPU, or one for CPU work. On SIGTERM it takes no new run; a run in progress "
            "has --grace seconds, is then interrupted, and runs again on another worker."
        ),
    )
    parser.add_argument("--queue", default=GPU_QUEUE, help="the queue to listen to (default: %(default)s)")
    parser.add_argument("--gpu", help="value of CUDA_VISIBLE_DEVICES for this worker; CPU workers see no GPU")
    parser.add_argument("--name", help="its name in logs and health checks (default: queue and GPU)")
    parser.add_argument("--concurrency", type=int, default=1, help="runs at once; 1 for a GPU (default: %(default)s)")
    parser.add_argument(
        "--grace", type=float, default=GRACE_SECONDS, help="seconds a run has left after SIGTERM (default: %(default)s)"
    )
    return parser


if __name__ == "__main__":
    main()
