"""Measures model repositories: verification, download, quantizing and loading, each against the plain way of doing it.

    python benchmarks/model_repo.py            about 25 GB of disk and a few minutes
    python benchmarks/model_repo.py --only verify --scale 0.1

Ratios are of two ways taken in turn in one run on one machine; memory is that of a process of its own. What does not
belong here: pass or fail (tests decide that), and running networks (``benchmarks/engine.py``).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from libs.model_repo.files.parameters import expected_parameters
from libs.model_repo.layout import RepositoryLayout, layout_of
from libs.model_repo.verification.digests import CACHE_NAME
from libs.model_repo.verification.lock import lock_repository
from libs.progress import show_bytes
from libs.settings import Settings

_VARIANT = "1.3b_1"
"""Its checkpoint has 4.4 GB in bfloat16."""
_SHARDS = 3
_ROUNDS = 3


def main() -> None:
    """Run the parts that were asked for, in a temporary folder that is removed afterwards."""
    parts: dict[str, Callable[[Path, float], None]] = {
        "verify": measure_verification,
        "download": measure_download,
        "quantize": measure_quantizing,
        "load": measure_loading,
    }
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=parts, action="append", help="one or more of the parts")
    parser.add_argument(
        "--scale", type=float, default=1.0, help="size of files to verify and download (1 = 10 GB, 1 GB)"
    )
    parser.add_argument("--folder", type=Path, help="where to put the files; a disk with 25 GB free")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        _CHILDREN[arguments.child[0]](Path(arguments.child[1]))
        return
    for name in arguments.only or parts:
        with tempfile.TemporaryDirectory(dir=arguments.folder, prefix="model-repo-benchmark-") as folder:
            print(f"\n{name}", flush=True)
            parts[name](Path(folder), arguments.scale)


def _layout(folder: Path, variant: str = _VARIANT) -> RepositoryLayout:
    return layout_of(variant, Settings(models_dir=folder / "models", data_dir=folder / "data", _env_file=None))  # type: ignore[call-arg]


def _timed(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def measure_verification(folder: Path, scale: float) -> None:
    """Full verification against ``sha256sum`` on the same files (cached for both), then with known digests."""
    from libs.model_repo.verification.verify import verify_repository  # noqa: PLC0415

    layout = _layout(folder)
    layout.root.mkdir(parents=True)
    files = [layout.root / f"model-{number:05d}-of-00005.safetensors" for number in range(1, 6)]
    block = os.urandom(32 * 1024 * 1024)
    for path in files:
        with path.open("wb") as file:
            for _ in range(max(1, round(scale * 2e9 / len(block)))):
                file.write(block)
    size = sum(path.stat().st_size for path in files)
    cache = layout.root.parent / CACHE_NAME
    lock_repository(layout)

    def cold() -> None:
        cache.unlink(missing_ok=True)
        verify_repository(layout, "full")

    ours, theirs = [], []
    for _ in range(_ROUNDS):
        theirs.append(_timed(lambda: subprocess.run(["sha256sum", *files], stdout=subprocess.DEVNULL, check=True)))
        ours.append(_timed(cold))
    warm = min(_timed(lambda: verify_repository(layout, "full")) for _ in range(_ROUNDS))
    print(f"  {show_bytes(size)} in {len(files)} files, {os.cpu_count()} processors")
    print(f"  sha256sum                         {median(theirs):7.2f} s  {show_bytes(size / median(theirs))}/s")
    print(f"  full verification, cold cache     {median(ours):7.2f} s  {show_bytes(size / median(ours))}/s")
    print(f"  ratio (goal: at least 1.5)        {median(theirs) / median(ours):7.2f}")
    print(f"  full verification, warm cache     {warm:7.2f} s  (goal: below 1 s)")


def measure_download(folder: Path, scale: float) -> None:
    """Our download (staging, SHA-256, lock) against the bare client's snapshot download, from a hub on this machine."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests/integration/model_repo"))
    from local_hub import LocalHub  # noqa: PLC0415 - of the tests

    from libs.model_repo.hubs.download import download_part  # noqa: PLC0415
    from libs.model_repo.hubs.hub import open_hub  # noqa: PLC0415

    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = os.environ["TQDM_DISABLE"] = "1"
    import huggingface_hub  # noqa: PLC0415
    import modelscope_hub  # noqa: PLC0415

    files = {f"model-{number:05d}-of-00004.safetensors": os.urandom(round(scale * 250e6)) for number in range(1, 5)}
    variant = _layout(folder).variant
    assert variant.checkpoint is not None
    repo_id = variant.checkpoint.repo_id
    with LocalHub() as server:
        server.add(repo_id, files)

        def bare(name: str, target: Path) -> None:
            if name == "huggingface":
                huggingface_hub.snapshot_download(repo_id, local_dir=target, endpoint=server.url, max_workers=4)
            else:
                api = modelscope_hub.HubApi(endpoint=server.url)
                api.download_repo(repo_id, "model", local_dir=str(target), max_workers=4)

        for name in ("modelscope", "huggingface"):
            ours, theirs = [], []
            for number in range(_ROUNDS):
                theirs.append(_timed(lambda: bare(name, folder / f"{name}-bare-{number}")))  # noqa: B023
                layout = _layout(folder / f"{name}-ours-{number}")
                settings = Settings(model_hub=name, model_hub_endpoint=server.url, _env_file=None)  # type: ignore[call-arg, arg-type]
                hub = open_hub(settings)
                ours.append(_timed(lambda: download_part(layout, "checkpoint", hub)))  # noqa: B023
            size = sum(map(len, files.values()))
            print(f"  {name}: {show_bytes(size)} in {len(files)} files")
            print(f"    bare client   {median(theirs):6.2f} s  {show_bytes(size / median(theirs))}/s")
            print(f"    ours          {median(ours):6.2f} s  {show_bytes(size / median(ours))}/s")
            print(f"    ratio         {median(ours) / median(theirs):6.2f}")


def measure_quantizing(folder: Path, _: float) -> None:
    """Peak memory and time of quantizing a random checkpoint of 4.4 GB, then what loading its result takes."""
    _write_random_checkpoint(_layout(folder))
    result = _in_child("quantize", folder)
    print(f"  checkpoint {show_bytes(result['before'])} -> {show_bytes(result['after'])} in {result['seconds']:.1f} s")
    print(f"  peak memory (goal: below 1.5 GB)  {show_bytes(result['peak'])}, {show_bytes(result['baseline'])} before")
    plain, fp8 = _in_child("load", folder), _in_child("load-fp8", folder)
    print(f"  weights in memory: bfloat16 {show_bytes(plain['weights'])}, FP8 {show_bytes(fp8['weights'])}")
    print(f"  ratio             {fp8['weights'] / plain['weights']:.3f}")
    error = _in_child("fp8-error", folder)
    print(f"  velocity against bfloat16 weights: relative L2 error {error['relative']:.4f}")


def measure_loading(folder: Path, _: float) -> None:
    """Our loader against reading all shards into a dictionary first."""
    _write_random_checkpoint(_layout(folder))
    _in_child("load", folder)  # brings the files into the page cache for both
    ours, theirs = _in_child("load", folder), _in_child("load-dictionary", folder)
    for label, result in (("all shards first", theirs), ("ours", ours)):
        peak = show_bytes(result["peak"] - result["baseline"])
        print(
            f"  {label:<18} {result['seconds']:6.1f} s, peak {peak} above the start, "
            f"weights {show_bytes(result['weights'])}"
        )
    print(f"  ratio of peaks     {(ours['peak'] - ours['baseline']) / (theirs['peak'] - theirs['baseline']):6.2f}")
    print(f"  ratio of times     {ours['seconds'] / theirs['seconds']:6.2f}")


def _write_random_checkpoint(layout: RepositoryLayout) -> None:
    """Shards of random bfloat16 weights of the full network, written one tensor at a time in a child."""
    _in_child("write", layout.root.parents[1])


def _in_child(name: str, folder: Path) -> dict[str, float]:
    command = [sys.executable, __file__, "--child", name, str(folder)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _peak() -> int:
    """The largest anonymous and file memory of this process so far, in bytes (Linux)."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def _child_write(folder: Path) -> None:
    import torch  # noqa: PLC0415
    from safetensors.torch import save_file  # noqa: PLC0415

    layout = _layout(folder)
    layout.root.mkdir(parents=True)
    torch.manual_seed(0)
    shapes = sorted(expected_parameters(layout.variant.network).items())
    weight_map = {}
    for number in range(_SHARDS):
        shard = f"model-{number + 1:05d}-of-{_SHARDS:05d}.safetensors"
        names = shapes[number::_SHARDS]
        save_file({name: _random(name, shape) for name, shape in names}, layout.root / shard)
        weight_map |= {name: shard for name, _ in names}
    layout.index.write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    lock_repository(layout)
    print(json.dumps({}))


def _random(name: str, shape: tuple[int, ...]):
    """Weights of the size a trained network has: norms near one, the rest so that layers keep the variance."""
    import torch  # noqa: PLC0415

    if "norm" in name and name.endswith(".weight"):
        return torch.ones(shape, dtype=torch.bfloat16)
    fan_in = max(1, torch.Size(shape[1:]).numel())
    return torch.randn(shape).mul_(fan_in**-0.5).to(torch.bfloat16)


def _child_quantize(folder: Path) -> None:
    import safetensors.torch  # noqa: F401, PLC0415 - libraries are loaded before the first measurement

    from libs.model_repo.operations.quantize import quantize_checkpoint  # noqa: PLC0415

    baseline, started = _peak(), time.perf_counter()
    report = quantize_checkpoint(_layout(folder), _layout(folder, f"{_VARIANT}-fp8"))
    seconds = time.perf_counter() - started
    content = {"before": report.size_before, "after": report.size_after, "seconds": seconds}
    print(json.dumps(content | {"peak": _peak(), "baseline": baseline}))


def _load(layout: RepositoryLayout):
    import torch  # noqa: PLC0415

    from libs.one_to_all.weights.loading import load_transformer  # noqa: PLC0415

    return load_transformer(layout, torch.device("cpu"), torch.bfloat16)


def _measure_load(load: Callable[[], object]) -> None:
    import libs.one_to_all.weights.loading  # noqa: F401, PLC0415

    baseline, started = _peak(), time.perf_counter()
    model = load()
    seconds = time.perf_counter() - started
    weights = sum(tensor.numel() * tensor.element_size() for tensor in model.state_dict().values())  # type: ignore[attr-defined]
    print(json.dumps({"peak": _peak(), "baseline": baseline, "seconds": seconds, "weights": weights}))


def _child_load_dictionary(folder: Path) -> None:
    from dataclasses import asdict  # noqa: PLC0415

    import torch  # noqa: PLC0415
    from safetensors.torch import load_file  # noqa: PLC0415

    from libs.one_to_all.network import OneToAllTransformer3DModel  # noqa: PLC0415

    layout = _layout(folder)

    def load() -> torch.nn.Module:
        model = OneToAllTransformer3DModel(**asdict(layout.variant.network)).to(torch.bfloat16)
        state: dict[str, torch.Tensor] = {}
        for shard in sorted(layout.root.glob("*.safetensors")):
            state |= load_file(shard)
        model.load_state_dict(state)
        return model.eval()

    _measure_load(load)


def _child_fp8_error(folder: Path) -> None:
    import torch  # noqa: PLC0415

    velocities = []
    for variant in (_VARIANT, f"{_VARIANT}-fp8"):
        model = _load(_layout(folder, variant))
        generator = torch.Generator().manual_seed(0)

        def draw(*shape: int) -> torch.Tensor:
            return torch.randn(*shape, generator=generator).to(torch.bfloat16)  # noqa: B023

        with torch.inference_mode():
            velocity = model(
                hidden_states=draw(1, 16, 2, 8, 8),
                timestep=torch.tensor([700.0]),
                encoder_hidden_states=draw(1, 16, 4096),
                controlnet_cond=draw(1, 3, 5, 64, 64),
                image_latents=draw(1, 32, 1, 8, 8),
                image_pose=draw(1, 3, 1, 64, 64),
                return_dict=False,
            )[0]
        velocities.append(velocity.float())
        del model
    before, after = velocities
    print(json.dumps({"relative": ((after - before).norm() / before.norm()).item()}))


_CHILDREN: dict[str, Callable[[Path], None]] = {
    "write": _child_write,
    "quantize": _child_quantize,
    "load": lambda folder: _measure_load(lambda: _load(_layout(folder))),
    "load-fp8": lambda folder: _measure_load(lambda: _load(_layout(folder, f"{_VARIANT}-fp8"))),
    "load-dictionary": _child_load_dictionary,
    "fp8-error": _child_fp8_error,
}


if __name__ == "__main__":
    main()
