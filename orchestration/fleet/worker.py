"""A fleet worker: ``python -m orchestration.fleet.worker --queue gpu --gpu 0``, one per GPU, or one for CPU work.

The main process talks to Redis and never imports the engine; its one child per slot executes runs and keeps the model
loaded. SIGTERM stops it: no new run is taken, a run in progress has ``--grace`` seconds, then it is interrupted,
reported as failed, and retried by Dagster on another worker. What does not belong here: starting several workers.
"""

import argparse
import os
import signal
import socket
import threading
from collections.abc import Sequence

import psutil
from celery import Celery
from celery.signals import worker_shutting_down

from libs.settings import load_settings
from orchestration.fleet.celery_app import RUN_TASK_NAME, make_celery_app, require_redis_url
from orchestration.fleet.run_coordinator import CPU_QUEUE
from orchestration.fleet.run_task import execute_run
from orchestration.fleet.worker_identity import announce_worker
from orchestration.policies import GPU_QUEUE

GRACE_SECONDS = 5.0


def make_worker_app(redis_url: str) -> Celery:
    """The app of a worker: the one task it knows executes a run in the process that receives it."""
    app = make_celery_app(redis_url)
    # A run that begins or ends while Redis restarts waits for it, rather than being lost.
    app.conf.result_backend_always_retry = True

    @app.task(name=RUN_TASK_NAME, track_started=True)
    def execute(run_id: str) -> str:
        return execute_run(run_id)

    app.set_current()
    return app


def visible_devices(queue: str, gpu: str | None) -> str | None:
    """``CUDA_VISIBLE_DEVICES`` of a worker: its GPU or GPUs (``0,1,2``), none for CPU work, or unchanged (None)."""
    if gpu is not None:
        return gpu
    return "" if queue == CPU_QUEUE else None


def interrupt_runs_after(grace_seconds: float) -> None:
    """Once this worker is told to stop, give its runs ``grace_seconds``, then send SIGTERM to their processes."""

    def interrupt() -> None:
        for child in psutil.Process().children():
            child.send_signal(signal.SIGTERM)

    def on_shutdown(**_: object) -> None:
        timer = threading.Timer(grace_seconds, interrupt)
        timer.daemon = True
        timer.start()

    worker_shutting_down.connect(on_shutdown, weak=False)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a worker until SIGTERM.

    Raises:
        SettingsError: ``REDIS_URL`` is not set.
    """
    options = _parser().parse_args(arguments)
    devices = visible_devices(options.queue, options.gpu)
    if devices is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = devices
    app = make_worker_app(require_redis_url(load_settings()))
    interrupt_runs_after(options.grace)
    name = options.name or f"{options.queue}-{(options.gpu or str(os.getpid())).replace(',', '-')}"
    announce_worker(name, options.queue)
    app.worker_main([
        "worker",
        f"--hostname={name}@{socket.gethostname()}",
        f"--queues={options.queue}",
        "--pool=prefork",
        f"--concurrency={options.concurrency}",
        "--without-gossip",
        "--without-mingle",
        "--without-heartbeat",
        "--loglevel=INFO",
    ])  # fmt: skip


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m orchestration.fleet.worker", description=__doc__)
    parser.add_argument("--queue", default=GPU_QUEUE, help="the queue to listen to (default: %(default)s)")
    parser.add_argument("--gpu", help="CUDA_VISIBLE_DEVICES of this worker; CPU work sees none")
    parser.add_argument("--name", help="its name in logs and health checks; default: queue and GPU")
    parser.add_argument("--concurrency", type=int, default=1, help="runs at once; 1 for a GPU (default: %(default)s)")
    parser.add_argument("--grace", type=float, default=GRACE_SECONDS, help="seconds a run has left after SIGTERM")
    return parser


if __name__ == "__main__":
    main()
