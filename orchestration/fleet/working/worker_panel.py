"""What a worker's main process can be told and asked by way of Redis, beside Celery's own commands.

It answers from its event loop, also while a run is being executed. See ``orchestration.fleet.worker_list`` for showing
the answers.
"""

from typing import Any

from celery.worker import state as worker_state
from celery.worker.control import Panel, cancel_consumer

from orchestration.fleet.gpus.gpu_watch import GpuWatch
from orchestration.fleet.working.draining import Draining

GPU_LOST = "gpu_lost"
"""Told by a process of the worker, with the ``reason``: take no runs until the GPU answers."""

GPU_WORKS = "gpu_works"
"""Likewise: a clip was made."""

HOST_UNFIT = "host_unfit"
"""Told by a process of the worker, with the ``reason`` and perhaps a ``variant``: take no runs until that is mended."""

DRAIN = "fleet_drain"
"""Told by a person (``drain``): take no more runs, finish what is in progress, then end, or with ``stay`` wait."""

STATE = "fleet_state"
"""Asked by anybody: ``queue``, ``runs``, ``draining``, ``stays``; ``trouble``, ``of``, ``since`` if it takes none."""


def runs_in_progress() -> list[str]:
    """The ids of the runs that this worker executes or is about to."""
    return sorted({request.id for request in {*worker_state.reserved_requests, *worker_state.active_requests}})


def open_panel(queue: str, watch: GpuWatch | None, draining: Draining, host_watch: GpuWatch, lacking: set[str]) -> None:
    """Let this process answer; ``watch`` is None for a worker that needs no GPU, ``lacking`` takes missing variants."""

    def gpu_lost(state: Any, reason: str) -> dict[str, Any]:
        if watch is None:
            return {"error": "this worker needs no GPU"}
        watch.report_loss(reason)
        return dict(cancel_consumer(state, queue))

    def gpu_works(_state: Any) -> dict[str, Any]:
        if watch is not None:
            watch.report_success()
        return {"ok": "noted"}

    def host_unfit(state: Any, reason: str, variant: str | None = None) -> dict[str, Any]:
        if variant:
            lacking.add(variant)
        host_watch.report_loss(reason)
        return dict(cancel_consumer(state, queue))

    def drain(state: Any, stay: bool = False) -> dict[str, Any]:
        draining.begin(stay=stay)
        return dict(cancel_consumer(state, queue))

    def fleet_state(_state: Any) -> dict[str, Any]:
        watches = [one for one in (watch, host_watch) if one is not None and one.trouble is not None]
        trouble = watches[0].trouble if watches else None
        return {
            "queue": queue,
            "runs": runs_in_progress(),
            "draining": draining.begun,
            "stays": draining.stays,
            "trouble": trouble.reason if trouble else None,
            "since": trouble.since if trouble else None,
            "of": watches[0].subject if watches else None,
        }

    Panel.register(name=GPU_LOST, type="control")(gpu_lost)
    Panel.register(name=GPU_WORKS, type="control")(gpu_works)
    Panel.register(name=HOST_UNFIT, type="control")(host_unfit)
    Panel.register(name=DRAIN, type="control")(drain)
    Panel.register(name=STATE, type="inspect")(fleet_state)
