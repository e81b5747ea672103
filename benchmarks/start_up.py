"""How long a worker takes from the start of its process to the first denoising step, cold and warm.

    python benchmarks/start_up.py                  a random checkpoint of 0.7 GB in the real layout, about a minute
    python benchmarks/start_up.py --layers 160     ten times as large

The checkpoint is read from the disk (its pages are dropped from the cache before), then from the cache; loading is
compared with the disk's own speed, measured on the same files in the same run. The warm start is the second clip of the
same process. What does not belong here: pass or fail (tests decide that), the speed of steps (``engine.py``).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import median

from measuring.page_cache import forget_pages

from libs.model_repo.layout import RepositoryLayout, layout_of
from libs.model_repo.parameters import expected_parameters
from libs.model_repo.variants import ModelVariant, get_variant
from libs.settings import Settings

_SHARDS = 4
_BLOCK = 16 * 2**20
_GOAL_SHARE, _GOAL_WARM = 0.8, 1.0


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--folder", type=Path, help="on the disk to measure")
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        _start(_layout(arguments.child, arguments.layers), arguments.device)
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="start-up-benchmark-") as folder:
        shards = _write_repository(_layout(Path(folder), arguments.layers))
        size = sum(path.stat().st_size for path in shards)
        print(f"{size / 1e9:.2f} GB in {len(shards)} shards, {os.cpu_count()} processors, {arguments.device}")
        for label, before in (
            ("from the disk", lambda: forget_pages(shards)),
            ("from the cache", lambda: _read(shards)),
        ):
            speeds, starts = [], []
            for _ in range(arguments.rounds):
                before()
                speeds.append(size / _seconds(lambda: _read(shards)))
                before()
                starts.append(_start_process(Path(folder), arguments.layers, arguments.device))
            _print_start(label, median(speeds), size, starts)


def measure_cold(layers: int, device: str, folder: Path | None) -> tuple[int, float, dict[str, float]]:
    """Bytes of a checkpoint, the disk's bytes per second, and the times of one start from the disk."""
    with tempfile.TemporaryDirectory(dir=folder, prefix="start-up-benchmark-") as place:
        shards = _write_repository(_layout(Path(place), layers))
        size = sum(path.stat().st_size for path in shards)
        forget_pages(shards)
        speed = size / _seconds(lambda: _read(shards))
        forget_pages(shards)
        return size, speed, _start_process(Path(place), layers, device)


def _start_process(folder: Path, layers: int, device: str) -> dict[str, float]:
    begun = time.time()
    options = ["--layers", str(layers), "--device", device, "--child", str(folder)]
    done = subprocess.run([sys.executable, __file__, *options], stdout=subprocess.PIPE, text=True, check=True)
    times = json.loads(done.stdout.splitlines()[-1])
    return {"imports": times.pop("imported") - begun, **times}


def _print_start(label: str, speed: float, size: int, starts: list[dict[str, float]]) -> None:
    middle = {name: median(one[name] for one in starts) for name in starts[0]}
    shares = [size / one["transformer"] / speed for one in starts]
    total = median(one["imports"] + one["load"] + one["step"] for one in starts)
    print(f"{label}: reading alone {speed / 1e6:.0f} MB/s")
    print(f"  imports              {middle['imports']:7.2f} s")
    print(f"  load                 {middle['load']:7.2f} s, of it the transformer {middle['transformer']:.2f} s")
    print(
        f"  transformer          {size / middle['transformer'] / 1e6:7.0f} MB/s, {median(shares):.0%} of reading alone "
        f"(goal: {_GOAL_SHARE:.0%}; the check for NaN included)"
    )
    print(f"  prompt and one step  {middle['step']:7.2f} s")
    print(f"  process to first step{total:7.2f} s")
    print(f"  warm: engine again   {middle['warm']:7.4f} s, to its first step {middle['warm_step']:.2f} s", end="")
    print(f" (goal for the engine: {_GOAL_WARM:.0f} s)", flush=True)


def _layout(folder: Path, layers: int) -> RepositoryLayout:
    settings = Settings(models_dir=folder / "models", data_dir=folder / "data", _env_file=None)  # type: ignore[call-arg]
    return layout_of(_variant(layers), settings)


def _variant(layers: int) -> ModelVariant:
    """The sandbox's repository with a larger network."""
    row = get_variant("sandbox")
    network = replace(
        row.network,
        num_attention_heads=8,
        num_layers=layers,
        ffn_dim=4096,
        num_control_layers=1,
        num_reference_layers=4,
    )
    return replace(row, network=network)


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
    weight_map, shards = {}, []
    for number in range(_SHARDS):
        names = shapes[number::_SHARDS]
        path = layout.root / f"model-{number + 1:05d}-of-{_SHARDS:05d}.safetensors"
        save_file({name: (torch.randn(shape) * 0.02).to(torch.bfloat16) for name, shape in names}, path)
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


def _start(layout: RepositoryLayout, device: str) -> None:
    """What a worker does; prints its times as JSON."""
    import numpy as np  # noqa: PLC0415
    import torch  # noqa: PLC0415

    from libs.one_to_all import loading  # noqa: PLC0415
    from libs.one_to_all.engine import AnimationEngine, AnimationInputs, StepFinished  # noqa: PLC0415
    from libs.one_to_all.options import SamplingOptions  # noqa: PLC0415
    from libs.one_to_all.warm import warm_engine  # noqa: PLC0415

    times = {"imported": time.time()}
    load_transformer = loading.load_transformer

    def timed(*arguments):
        started = time.perf_counter()
        transformer = load_transformer(*arguments)
        times["transformer"] = time.perf_counter() - started
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

    engine, load = warm_engine(layout, device, torch.bfloat16)
    times["load"] = load.seconds
    times["step"] = _seconds(lambda: first_step(engine))
    engine, load = warm_engine(layout, device, torch.bfloat16)
    assert not load.cold
    times["warm"] = load.seconds
    times["warm_step"] = _seconds(lambda: first_step(engine))
    print(json.dumps(times))


if __name__ == "__main__":
    main()
