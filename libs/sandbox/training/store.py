"""Keeps trained weights: from a run's moving average to small files with a lock that says what they are.

The autoencoder and the transformer are kept as safetensors in bfloat16, the pose networks as ONNX in half precision.
Training goes on from kept weights where a run has no checkpoint; see ``libs.sandbox.trained`` for what uses them.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from libs.files.atomic_write import atomic_write
from libs.sandbox.sizes import new_autoencoder
from libs.sandbox.trained import LOCK_NAME, kept_networks, kept_weights
from libs.sandbox.training.latents import measured_statistics

POSE_NETWORKS = ("detector", "pose")
_CURVE_POINTS = 30
_SAME_NETWORK = {"decoder": "autoencoder", "autoencoder": "decoder"}


def average_of(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """The moving average of a run's weights.

    Raises:
        FileNotFoundError: that run has no checkpoint yet.
    """
    path = folder / f"{name}.pt"
    if not path.exists():
        raise FileNotFoundError(f"{path}: there is no checkpoint; run `python -m libs.sandbox.training {name}` first")
    average: dict[str, torch.Tensor] = torch.load(path, weights_only=True)["average"]
    return average


def trained_weights(folder: Path, name: str, kept: Path | None = None) -> dict[str, torch.Tensor] | None:
    """The average of a run, or else its kept weights; None where it was never trained."""
    if (folder / f"{name}.pt").exists():
        return average_of(folder, name)
    return kept_weights(kept, name) if kept is not None and name in kept_networks(kept) else None


def trained_autoencoder(folder: Path, kept: Path | None = None) -> Any:
    """The autoencoder as far as it is trained: with the decoder's own training, where there was one.

    Args:
        folder: of the runs.
        kept: weights to take where ``folder`` has no run of it.
    """
    autoencoder = new_autoencoder()
    autoencoder.load_state_dict(_autoencoder_state(folder, kept))
    return autoencoder.eval().requires_grad_(False)


def _autoencoder_state(folder: Path, kept: Path | None) -> dict[str, torch.Tensor]:
    for name in ("decoder", "autoencoder"):
        if (folder / f"{name}.pt").exists():
            return average_of(folder, name)
    for name in ("decoder", "autoencoder"):
        if kept is not None and name in kept_networks(kept):
            return kept_weights(kept, name)
    return average_of(folder, "autoencoder")  # says what is missing


def keep_weights(folder: Path, target: Path, name: str, command: str, finished: bool) -> None:
    """Write the average of run ``name`` to ``target`` and note it in the lock there.

    Args:
        folder: of the run.
        target: of the kept files.
        name: of the run.
        command: with which it was trained.
        finished: False marks weights that are still to be trained on.
    """
    target.mkdir(parents=True, exist_ok=True)
    average = average_of(folder, name)
    path = target / f"{name}.{'onnx' if name in POSE_NETWORKS else 'safetensors'}"
    if name in POSE_NETWORKS:
        _export(name, average, path)
    else:
        with atomic_write(path) as temporary:
            save_file({key: value.to(torch.bfloat16).contiguous() for key, value in average.items()}, temporary)
    curve = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    lock = kept_networks(target)
    lock[name] = {
        "file": path.name,
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "command": command,
        "finished": finished,
        "steps": curve[-1]["step"],
        "core_seconds": curve[-1]["seconds"],
        "figures": {key: value for key, value in curve[-1].items() if key not in {"step", "seconds"}},
        "curve": _thinned(curve),
    }
    if name == "transformer":  # means nothing without the space of latents in which it was trained
        mean, std = measured_statistics(folder / "latents")
        lock[name]["latents"] = {"mean": mean.tolist(), "std": std.tolist()}
    superseded = _SAME_NETWORK.get(name)
    if superseded in lock:
        (target / lock.pop(superseded)["file"]).unlink(missing_ok=True)
    with atomic_write(target / LOCK_NAME) as temporary:
        temporary.write_text(_as_json(lock), encoding="utf-8")


def _as_json(lock: dict[str, Any]) -> str:
    """Indented, but each point of a curve on one line."""
    points: list[str] = []

    def shortened(entry: dict[str, Any]) -> dict[str, Any]:
        points.extend(json.dumps(point) for point in entry["curve"])
        first = len(points) - len(entry["curve"])
        return {**entry, "curve": [f"point {number}" for number in range(first, len(points))]}

    text = json.dumps({name: shortened(entry) for name, entry in lock.items()}, indent=2, sort_keys=True) + "\n"
    for number, point in enumerate(points):
        text = text.replace(f'"point {number}"', point)
    return text


def _thinned(curve: list[dict[str, float]]) -> list[dict[str, float]]:
    """At most ``_CURVE_POINTS`` lines of a curve, the last one included."""
    every = -(-len(curve) // _CURVE_POINTS)
    return curve[::-1][::every][::-1]


def _export(name: str, average: dict[str, torch.Tensor], path: Path) -> None:
    from libs.sandbox.training.pose_networks import Detector, PoseNetwork, export  # noqa: PLC0415 - loads onnx

    network = PoseNetwork() if name == "pose" else Detector()
    network.load_state_dict(average)
    export(network, path)
