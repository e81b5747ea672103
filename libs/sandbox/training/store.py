"""Keeps trained weights: from a run's moving average to small files with a lock that says what they are."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from libs.atomic_write import atomic_write
from libs.sandbox.training.weights import new_autoencoder

LOCK_NAME = "lock.json"


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


def trained_autoencoder(folder: Path) -> Any:
    """The autoencoder as far as it is trained: with the decoder's own training, where there was one."""
    autoencoder = new_autoencoder()
    name = "decoder" if (folder / "decoder.pt").exists() else "autoencoder"
    autoencoder.load_state_dict(average_of(folder, name))
    return autoencoder.eval().requires_grad_(False)


def keep_weights(folder: Path, target: Path, name: str, command: str, finished: bool) -> None:
    """Write the average of run ``name`` in bfloat16 to ``target`` and note it in the lock there.

    Args:
        folder: of the run.
        target: of the kept files.
        name: of the run.
        command: with which it was trained.
        finished: False marks weights that are still to be trained on.
    """
    target.mkdir(parents=True, exist_ok=True)
    path = target / f"{name}.safetensors"
    average = average_of(folder, name)
    with atomic_write(path) as temporary:
        save_file({key: value.to(torch.bfloat16).contiguous() for key, value in average.items()}, temporary)
    curve = [json.loads(line) for line in (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]
    lock = read_lock(target)
    lock[name] = {
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "command": command,
        "finished": finished,
        "steps": curve[-1]["step"],
        "core_seconds": curve[-1]["seconds"],
        "figures": {key: value for key, value in curve[-1].items() if key not in {"step", "seconds"}},
    }
    with atomic_write(target / LOCK_NAME) as temporary:
        temporary.write_text(json.dumps(lock, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def read_lock(target: Path) -> dict[str, Any]:
    """The lock of kept weights; empty where there are none."""
    path = target / LOCK_NAME
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def kept_weights(target: Path, name: str) -> dict[str, torch.Tensor]:
    """Kept weights in float32.

    Raises:
        ValueError: the file is not the one that the lock names.
    """
    path = target / f"{name}.safetensors"
    if hashlib.sha256(path.read_bytes()).hexdigest() != read_lock(target)[name]["sha256"]:
        raise ValueError(f"{path}: differs from what {target / LOCK_NAME} names; take both from the same commit")
    return {key: value.float() for key, value in load_file(path).items()}
