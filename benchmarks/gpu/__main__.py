"""One part: ``python -m gpu NAME --device cuda --record NAME.json``; ``on_gpu.py`` runs all of them, each like this.

A part is a module of this package with ``take_figures``, which takes them into the record of the run it is given, and
``ROUNDS`` where two are not right for its calls. What does not belong here: what is measured.
"""

import importlib
import sys

import torch
from measuring.part_run import PartRun


def main() -> None:
    """Measure and record."""
    name, *arguments = sys.argv[1:]
    part = importlib.import_module(f"gpu.{name}")
    run = PartRun.from_arguments(arguments, part.__doc__ or "", rounds=getattr(part, "ROUNDS", 2))
    with torch.no_grad():
        part.take_figures(run)
    run.record.finish()


if __name__ == "__main__":
    main()
