"""All figures that need a GPU, by one command: parts in processes of their own, the most valuable first.

    python benchmarks/on_gpu.py --out results                       about 20 minutes on an H100
    python benchmarks/on_gpu.py --out results --minutes 9           as far as it gets; again, and it goes on
    python benchmarks/on_gpu.py --out results --only steps memory   these, anew if they are finished
    python benchmarks/on_gpu.py --out results --device cpu --small  through everything, scaled down: no figures

Needs no installation: ``PYTHONPATH`` set to the repository, and the packages that ``--packages`` prints. Every figure
is written at once to the folder (JSON, markdown); at the end stands a table for ``docs/benchmarks.md``. What does not
belong here: measuring (``gpu``), processes and limits (``measuring.parts``).
"""

import argparse
import os
import signal
import sys
from pathlib import Path

from measuring.packages import packages_of
from measuring.parts import Part, run_parts, table

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
_PARTS = (
    ("agreement", "The card against the CPU", 180, 1),
    ("steps", "Steps of the 14B at full size", 360, 1),
    ("variants", "Ways of making a step, 6 main blocks", 480, 1),
    ("memory", "Memory plans at full size", 360, 1),
    ("offload", "Blocks on the host, 12 main blocks", 240, 1),
    ("load", "Loading to the card", 240, 1),
    ("approximate", "Approximate modes, time of a step", 180, 1),
    ("beside", "Prompt, VAE, frames", 180, 1),
    ("pose_networks", "Pose networks of full size", 150, 1),
    ("start", "Start of a worker", 240, 1),
    ("several", "Several cards", 400, 2),
)
"""Name, title, seconds at most, devices. Not measured yet: the limits are calculated from FLOPs at half of an H100's
peak, and doubled; the first part also waits for a disk that has read none of the libraries."""


def parts(device: str, *, small: bool) -> list[Part]:
    """All parts, the most valuable first."""
    options = ("--device", device, *(["--small"] if small else []))
    least = 3600 if small else 0  # on a busy machine, and nothing is measured
    needs = packages([name for name, *_ in _PARTS])
    return [
        Part(
            name, title, (sys.executable, "-m", "gpu", name, *options), max(seconds, least), tuple(needs[name]), devices
        )
        for name, title, seconds, devices in _PARTS
    ]


def packages(names: list[str]) -> dict[str, list[str]]:
    """What each of these parts imports; without it the part is left out, and the others run."""
    return {name: sorted(packages_of(HERE / "gpu" / f"{name}.py", (HERE, ROOT))) for name in names}


def main() -> int:
    """Run what is not measured yet; 0 if every part is finished or left out for what this machine lacks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = [name for name, *_ in _PARTS]
    parser.add_argument("--out", type=Path, default=Path("gpu-figures"), help="folder of the results")
    parser.add_argument(
        "--only", nargs="+", choices=every, default=every, help="these parts, anew if they are finished"
    )
    parser.add_argument("--minutes", type=float, default=25.0, help="for all of them together")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="scaled down: only to see that everything runs")
    parser.add_argument("--packages", action="store_true", help="print the packages that each part imports, and end")
    arguments = parser.parse_args()
    if arguments.packages:
        for name, found in packages(arguments.only).items():
            print(f"{name}: {' '.join(found)}")
        return 0
    chosen = [part for part in parts(arguments.device, small=arguments.small) if part.name in arguments.only]
    for part in chosen if arguments.only is not every else []:
        if part.finished(arguments.out):
            part.record(arguments.out).unlink()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # or the part that runs would go on
    paths = [str(HERE), str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONUNBUFFERED": "1"}
    outcome = run_parts(chosen, arguments.out, 60 * arguments.minutes, _device_count(arguments.device), environment)
    text = table(parts(arguments.device, small=arguments.small), arguments.out, outcome)
    (arguments.out / "table.md").write_text(f"{text}\n")
    print(f"\n{text}")
    return 0 if all(one.startswith(("finished in", "finished before", "left out")) for one in outcome.values()) else 1


def _device_count(device: str) -> int:
    """Of the machine; a CPU counts as one."""
    if device == "cpu":
        return 1
    import torch  # noqa: PLC0415 - takes seconds, and the other commands do without

    return torch.cuda.device_count()


if __name__ == "__main__":
    sys.exit(main())
