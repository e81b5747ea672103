"""One step on several cards against one, by plan.

What does not belong here: how the plans are timed (``benchmarks/parallel.py``).
"""

from collections.abc import Iterator

import torch
from measuring.part_run import PartRun
from measuring.record import Figure
from parallel import Task, Timing
from parallel import run as run_plan

from libs.one_to_all.parallel.engine import devices_of_ranks
from libs.one_to_all.parallel.plan import ONE_PROCESS, ParallelPlan

_STEPS = 2


def _figures(run: PartRun) -> Iterator[Figure]:
    count = 2 if run.small else torch.cuda.device_count()
    names = ["guidance:2", "context:2", "guidance:3", "context:4", "context:8"]
    plans = [plan for plan in map(ParallelPlan.parse, names[: 2 if run.small else None]) if plan.ranks <= count]
    seconds = {}
    for plan in (ONE_PROCESS, *plans):
        devices = tuple(devices_of_ranks(run.device, plan))
        task = Task(run.network(), run.grid(run.sizes[0]), devices, plan, _STEPS)
        seconds[plan] = Timing.of([run_plan(task)], _STEPS).seconds
        if plan == ONE_PROCESS:
            yield Figure("step in one process", seconds[plan], "s")
        else:
            yield Figure(f"one process over {plan}", seconds[ONE_PROCESS] / seconds[plan], "times")


def take_figures(run: PartRun) -> None:
    """Measure and record."""
    run.record.take("plans", lambda: _figures(run))
