"""From the start of a worker's process to its first step, weights straight to the card.

Matrices of the 14B's size, two fifths of its blocks, 15 GB in all. What does not belong here: loading alone (``load``).
"""

from collections.abc import Iterator

from measuring.part_run import PartRun
from measuring.record import Figure
from start_up import measure_cold

_GOAL_SHARE, _GOAL_WARM = 0.8, 1.0


def _figures(run: PartRun) -> Iterator[Figure]:
    size, disk, times = measure_cold(*((2, 8) if run.small else (16, 40)), str(run.device), None)
    name = f"{size / 1e9:.1f} GB from the disk"
    yield Figure("imports", times["imports"], "s")
    yield Figure(f"load, all networks, {name}", times["load"], "s")
    share = size / times["transformer"] / disk
    yield Figure(f"… of the disk's own speed, the transformer, {name}", share, "share", run.goal(_GOAL_SHARE))
    whole = times["imports"] + times["load"] + times["step"]
    yield Figure(f"process to first step, {name}", whole, "s")
    yield Figure("the engine again, warm", times["warm"], "s", run.goal(_GOAL_WARM), at_most=True)


def take_figures(run: PartRun) -> None:
    """Measure and record."""
    run.record.take("start", lambda: _figures(run))
