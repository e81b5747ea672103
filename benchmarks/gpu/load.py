"""Weights from the disk to the card, against the disk's own speed and the plain way.

What does not belong here: a whole start (``start``).
"""

from collections.abc import Iterator

from loading import measure
from measuring.part_run import PartRun
from measuring.record import Figure

_GIGABYTES, _GOAL_SHARE = 8.0, 0.8


def _figures(run: PartRun) -> Iterator[Figure]:
    gigabytes = 0.2 if run.small else _GIGABYTES
    ways = measure(gigabytes, run.clock.rounds, run.device, None)
    for name, way in ways.items():
        yield Figure(f"{gigabytes:g} GB, {name}", way.speed / 1e6, "MB/s")
    ours = ways["ours"]
    disk = ours.share_of(ways["disk, into one buffer"])
    yield Figure("ours, of the disk's own speed", disk, "share", run.goal(_GOAL_SHARE))
    yield Figure("ours over plain", ours.share_of(ways["plain"]), "times")


def take_figures(run: PartRun) -> None:
    """Measure and record."""
    run.record.take("load", lambda: _figures(run))
