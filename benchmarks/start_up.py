"""How long a worker takes from the start of its process to the first denoising step, cold and warm.

    python benchmarks/start_up.py                  5 GB in matrices of the 14B's size, about four minutes
    python benchmarks/start_up.py --layers 40      38 GB, as many blocks as the 14B has
    python benchmarks/start_up.py --heads 8        a fifth as wide: 0.2 GB, much of its loading is Python

The weights are random, in the real layout. They are read from the disk (their pages are dropped from the cache before),
then from the cache; loading is compared with the disk's own speed, measured on the same files in the same run. The warm
start is the second clip of the same process.

A CPU's weights stay in this machine's memory, and the first touch of memory can cost more than the disk: most where a
virtual machine's host gives out its pages only then. So the start from the disk is measured twice: with memory as it
is, and with memory that the process has touched and given back before the clock runs, as on a machine that has been up
for a while, or as good as for a card, which has its own. What does not belong here: pass or fail (tests decide that),
the speed of steps (``engine.py``).
"""

import argparse
import json
import mmap
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from math import prod
from pathlib import Path
from statistics import median

from measuring.page_cache import forget_pages

from libs.model_repo.files.parameters import expected_parameters
from libs.model_repo.layout import RepositoryLayout, layout_of
from libs.model_repo.variants import ModelVariant, get_variant
from libs.settings import Settings

_SHARDS = 4
_BLOCK = 16 * 2**20
_PAGE = 4096
_GOAL_SHARE, _GOAL_WARM = 0.8, 1.0
_WHOLE = get_variant("14b").network
_TOUCHED_SHARE = 2.2
"""Of the weights' size: they, the cached pages of their files, and a little more."""


@dataclass(frozen=True)
class Start:
    """What a process shall load, and how."""

    folder: str
    layers: int
    heads: int
    device: str
    memory_touched_before: bool = False

    @property
    def layout(self) -> RepositoryLayout:
        """The sandbox's repository with a larger network."""
        place = Path(self.folder)
        settings = Settings(models_dir=place / "models", data_dir=place / "data", _env_file=None)  # type: ignore[call-arg]
        return layout_of(self._variant(), settings)

    def _variant(self) -> ModelVariant:
        row = get_variant("sandbox")
        network = replace(
            row.network,
            num_attention_heads=self.heads,
            ffn_dim=_WHOLE.ffn_dim * self.heads // _WHOLE.num_attention_heads,
            num_layers=self.layers,
            num_control_layers=1,
            num_reference_layers=max(1, _WHOLE.num_reference_layers * self.layers // _WHOLE.num_layers),
        )
        return replace(row, network=network)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--heads", type=int, default=_WHOLE.num_attention_heads, help="the width, 128 per head")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    parser.add_argument("--start", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.start:
        _run(Start(**arguments.start))
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="start-up-benchmark-") as folder:
        fresh = Start(folder, arguments.layers, arguments.heads, arguments.device)
        touched = replace(fresh, memory_touched_before=True)
        shards = _write_repository(fresh.layout)
        size = sum(path.stat().st_size for path in shards)
        print(
            f"{size / 1e9:.2f} GB in {len(shards)} shards, {os.cpu_count()} processors, {arguments.device}", flush=True
        )
        ways: dict[str, tuple[Start, Callable[[], None]]] = {
            "from the disk": (fresh, lambda: forget_pages(shards)),
            "from the cache": (fresh, lambda: _read(shards)),
        }
        if arguments.device == "cpu":
            ways["from the disk, memory touched before"] = (touched, lambda: forget_pages(shards))
        speeds: dict[str, list[float]] = {label: [] for label in ways}
        starts: dict[str, list[dict[str, float]]] = {label: [] for label in ways}
        for _ in range(arguments.rounds):
            for label, (start, before) in ways.items():
                before()
                speeds[label].append(size / _seconds(lambda: _read(shards)))
                before()
                starts[label].append(_start_process(start))
        for label in ways:
            _print_start(label, speeds[label], size, starts[label])


def measure_cold(layers: int, heads: int, device: str, folder: Path | None) -> tuple[int, float, dict[str, float]]:
    """Bytes of a checkpoint, the disk's bytes per second, and the times of one start from the disk."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="start-up-benchmark-") as place:
        start = Start(place, layers, heads, device)
        shards = _write_repository(start.layout)
        size = sum(path.stat().st_size for path in shards)
        forget_pages(shards)
        speed = size / _seconds(lambda: _read(shards))
        forget_pages(shards)
        return size, speed, _start_process(start)


def _start_process(start: Start) -> dict[str, float]:
    command = [sys.executable, __file__, "--start", json.dumps(asdict(start))]
    begun = time.time()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    times = json.loads(done.stdout.splitlines()[-1])
    return {"imports": times.pop("imported") - begun, **times}


def _print_start(label: str, speeds: list[float], size: int, starts: list[dict[str, float]]) -> None:
    middle = {name: median(one[name] for one in starts) for name in starts[0]}
    shares = [size / one["transformer"] / speed for one, speed in zip(starts, speeds, strict=True)]
    total = median(one["imports"] + one["load"] + one["step"] for one in starts)
    print(f"{label}: reading alone {median(speeds) / 1e6:.0f} MB/s")
    if "touch" in middle:
        print(f"  memory, first touch  {middle['touch'] / 1e6:7.0f} MB/s by one processor, before the clock runs")
    print(f"  imports              {middle['imports']:7.2f} s")
    print(f"  load                 {middle['load']:7.2f} s, of it the transformer {middle['transformer']:.2f} s")
    print(
        f"  transformer          {size / middle['transformer'] / 1e6:7.0f} MB/s, {median(shares):.0%} of reading alone "
        f"({min(shares):.0%} to {max(shares):.0%}; goal: {_GOAL_SHARE:.0%}; the check for NaN included)"
    )
    print(f"  of a processor       {middle['processor']:7.2f} s for the transformer")
    print(f"  prompt and one step  {middle['step']:7.2f} s")
    print(f"  process to first step{total:7.2f} s")
    print(f"  warm: engine again   {middle['warm']:7.4f} s, to its first step {middle['warm_step']:.2f} s", end="")
    print(f" (goal for the engine: {_GOAL_WARM:.0f} s)", flush=True)


def _write_repository(layout: RepositoryLayout) -> list[Path]:
    """The sandbox's files, its checkpoint replaced by shards of random weights; returns the shards."""
    import torch  # noqa: PLC0415
    from safetensors.torch import save_file  # noqa: PLC0415

    from libs.sandbox.repository import write_sandbox_repository  # noqa: PLC0415

    write_sandbox_repository(replace(layout, variant=get_variant("sandbox")))
    for path in layout.root.glob("*.safetensors"):
        path.unlink()
    torch.manual_seed(0)
    shapes = sorted(expected_parameters(layout.variant.network).items())
    values = (torch.randn(max(prod(shape) for _, shape in shapes)) * 0.02).to(torch.bfloat16)
    weight_map, shards = {}, []
    for number in range(_SHARDS):
        names = shapes[number::_SHARDS]
        path = layout.root / f"model-{number + 1:05d}-of-{_SHARDS:05d}.safetensors"
        save_file({name: values[: prod(shape)].view(shape).clone() for name, shape in names}, path)
        weight_map |= {name: path.name for name, _ in names}
        shards.append(path)
    layout.index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return shards


def _read(paths: list[Path]) -> None:
    block = bytearray(_BLOCK)
    for path in paths:
        with path.open("rb", buffering=0) as file:
            while file.readinto(block):
                pass


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def _run(start: Start) -> None:
    """What a worker does, in this process; prints its times as JSON."""
    import numpy as np  # noqa: PLC0415
    import torch  # noqa: PLC0415

    from libs.one_to_all.engine import AnimationEngine  # noqa: PLC0415
    from libs.one_to_all.engine_cache import ENGINES, EngineSpec  # noqa: PLC0415
    from libs.one_to_all.events import AnimationInputs, StepFinished  # noqa: PLC0415
    from libs.one_to_all.options import SamplingOptions  # noqa: PLC0415
    from libs.one_to_all.weights import loading  # noqa: PLC0415

    times = {"imported": time.time()}
    if start.memory_touched_before:
        size = sum(path.stat().st_size for path in start.layout.root.glob("*.safetensors"))
        times["touch"] = _touch_memory(int(size * _TOUCHED_SHARE))
    load_transformer = loading.load_transformer

    def timed(*arguments):
        processor = time.process_time()
        started = time.perf_counter()
        transformer = load_transformer(*arguments)
        times["transformer"] = time.perf_counter() - started
        times["processor"] = time.process_time() - processor
        return transformer

    loading.load_transformer = timed
    side = 64
    picture = np.zeros((side, side, 3), dtype=np.uint8)
    inputs = AnimationInputs(
        picture, picture[..., 0], picture, 5, lambda start, stop: np.stack([picture] * (stop - start))
    )
    options = SamplingOptions("a dance", "", 2, 2.0, 1.5)

    def first_step(engine: AnimationEngine) -> None:
        events = engine.animate(inputs, options)
        next(event for event in events if isinstance(event, StepFinished))

    spec = EngineSpec(start.layout, start.device, torch.bfloat16)
    engine, load = ENGINES.get_or_load(spec)
    times["load"] = load.seconds
    times["step"] = _seconds(lambda: first_step(engine))
    engine, load = ENGINES.get_or_load(spec)
    assert not load.cold
    times["warm"] = load.seconds
    times["warm_step"] = _seconds(lambda: first_step(engine))
    print(json.dumps(times))


def _touch_memory(size: int) -> float:
    """Write to each page of ``size`` bytes and give them back; returns bytes per second."""
    with mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS) as memory:
        started = time.perf_counter()
        for offset in range(0, size, _PAGE):
            memory[offset] = 1
        return size / (time.perf_counter() - started)


if __name__ == "__main__":
    main()
