"""What a worker's main process can be told and asked by way of Redis, beside Celery's own commands.

It answers from its event loop, also while a run is being executed. What does not belong here: showing the answers
(``worker_list``).
"""

from typing import Any

from celery.worker import state as worker_state
from celery.worker.control import Panel, cancel_consumer

from orchestration.fleet.draining import Draining
from orchestration.fleet.gpu_watch import GpuWatch

GPU_LOST = "gpu_lost"
"""Told by a process of the worker, with the ``reason``: take no runs until the GPU answers."""

GPU_WORKS = "gpu_works"
"""Likewise: a clip was made."""

DRAIN = "fleet_drain"
"""Told by a person (``drain``): take no more runs, finish what is in progress, then end, or with ``stay`` wait."""

STATE = "fleet_state"
"""Asked by anybody: ``queue``, ``runs``, ``draining``, ``stays``; ``trouble`` and ``since`` where it takes no runs."""


def runs_in_progress() -> list[str]:
    """The ids of the runs that this worker executes or is about to."""
    return sorted({request.id for request in {*worker_state.reserved_requests, *worker_state.active_requests}})


def open_panel(queue: str, watch: GpuWatch | None, draining: Draining) -> None:
    """Let this process answer; ``watch`` is None for a worker that needs no GPU."""

    def gpu_lost(state: Any, reason: str) -> dict[str, Any]:
        if watch is None:
            return {"error": "this worker needs no GPU"}
        watch.report_loss(reason)
        return dict(cancel_consumer(state, queue))

    def gpu_works(_state: Any) -> dict[str, Any]:
        if watch is not None:
            watch.report_success()
        return {"ok": "noted"}

    def drain(state: Any, stay: bool = False) -> dict[str, Any]:
        draining.begin(stay=stay)
        return dict(cancel_consumer(state, queue))

    def fleet_state(_state: Any) -> dict[str, Any]:
        trouble = watch.trouble if watch is not None else None
        return {
            "queue": queue,
            "runs": runs_in_progress(),
            "draining": draining.begun,
            "stays": draining.stays,
            "trouble": trouble.reason if trouble else None,
            "since": trouble.since if trouble else None,
        }

    Panel.register(name=GPU_LOST, type="control")(gpu_lost)
    Panel.register(name=GPU_WORKS, type="control")(gpu_works)
    Panel.register(name=DRAIN, type="control")(drain)
    Panel.register(name=STATE, type="inspect")(fleet_state)
