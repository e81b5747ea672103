"""How fast weights come from the disk, against the disk's own speed and against the plain way, in turn in one run.

    python benchmarks/loading.py                       1 GB, 3 rounds, about a minute
    python benchmarks/loading.py --gigabytes 8 --device cuda --folder /mnt/models

Before each reading the files' pages are dropped from the cache. Of the disk two speeds are measured: read into one
buffer again and again, as into a card's page-locked buffers, and read into fresh memory, which is the most that a load
into this machine's own memory can reach. What does not belong here: start-up as a whole (``start_up.py``).
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch
from measuring.page_cache import forget_pages
from plain.loading import read_mapped
from safetensors.torch import save_file

from libs.model_repo.files.safetensors_header import read_stored_tensors
from libs.one_to_all.weights.reading import PIECE_BYTES, READERS, WeightSource, read_weights

_SHARDS = 4
_TENSOR_SHAPE = (5120, 5120)
"""A projection of the 14B: 52 MB in bfloat16."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    ways = measure(arguments.gigabytes, arguments.rounds, device, arguments.folder)
    print(f"{arguments.gigabytes:.2f} GB in {_SHARDS} shards, {os.cpu_count()} processors, to {device}")
    for name, way in ways.items():
        shares = [f"{way.share_of(ways[base]):.2f} of {base}" for base in list(ways)[:3] if base != name]
        print(
            f"{name:24} {way.speed / 1e6:6.0f} MB/s, {median(way.processor):5.2f} s of a processor; {', '.join(shares)}"
        )


@dataclass(frozen=True)
class Way:
    """One way of reading ``size`` bytes: wall and processor seconds of each round."""

    size: int
    seconds: list[float]
    processor: list[float]

    @property
    def speed(self) -> float:
        """Bytes per second of a middling round."""
        return self.size / median(self.seconds)

    def share_of(self, base: "Way") -> float:
        """Of the speed of ``base``, round by round."""
        return median(b / own for b, own in zip(base.seconds, self.seconds, strict=True))


def measure(gigabytes: float, rounds: int, device: torch.device, folder: Path | None) -> dict[str, Way]:
    """All ways of reading, in turn; the files lie in ``folder`` meanwhile."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="loading-benchmark-") as place:
        shards = _write_shards(Path(place), gigabytes)
        size = sum(path.stat().st_size for path in shards)
        sources = [
            WeightSource(name, path, tensor, torch.bfloat16)
            for path in shards
            for name, tensor in read_stored_tensors(path).items()
        ]
        calls: dict[str, Callable[[], object]] = {
            "disk, into one buffer": lambda: _read(shards, fresh=False),
            "disk, into fresh memory": lambda: _read(shards, fresh=True),
            "plain": lambda: read_mapped(shards, device, torch.bfloat16),
            "ours": lambda: read_weights(sources, device),
        }
        ways = {name: Way(size, [], []) for name in calls}
        for _ in range(rounds):
            for name, read in calls.items():
                forget_pages(shards)
                wall, busy = time.perf_counter(), time.process_time()
                kept = read()
                if device.type == "cuda":
                    torch.cuda.synchronize(device)
                ways[name].seconds.append(time.perf_counter() - wall)
                ways[name].processor.append(time.process_time() - busy)
                del kept
    return ways


def _write_shards(folder: Path, gigabytes: float) -> list[Path]:
    count = max(_SHARDS, round(gigabytes * 1e9 / (2 * _TENSOR_SHAPE[0] * _TENSOR_SHAPE[1])))
    torch.manual_seed(0)
    weights = (torch.randn(_TENSOR_SHAPE) * 0.02).to(torch.bfloat16)
    paths = []
    for number in range(_SHARDS):
        path = folder / f"model-{number + 1:05d}-of-{_SHARDS:05d}.safetensors"
        save_file({f"blocks.{index}.weight": weights + index for index in range(number, count, _SHARDS)}, path)
        paths.append(path)
    return paths


def _read(paths: list[Path], *, fresh: bool) -> list[list[torch.Tensor]]:
    """Read the files, as many at a time as the engine has readers; the memory read into is kept if it is ``fresh``."""

    def read(path: Path) -> list[torch.Tensor]:
        buffers = [torch.empty(PIECE_BYTES, dtype=torch.uint8)]
        with path.open("rb", buffering=0) as file:
            while file.readinto(buffers[-1].numpy().data):
                if fresh:
                    buffers.append(torch.empty(PIECE_BYTES, dtype=torch.uint8))
        return buffers

    with ThreadPoolExecutor(READERS) as threads:
        return list(threads.map(read, paths))


if __name__ == "__main__":
    main()
