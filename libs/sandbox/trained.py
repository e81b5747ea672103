"""The sandbox's trained networks, read from the kept weights in ``libs/sandbox/weights``.

``lock.json`` there says of each network: its file, digest, the command that trained it, steps and figures. See
``libs.sandbox.training`` for how they are trained.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan
from safetensors.torch import load_file

from libs.errors import ModelFilesError
from libs.sandbox.sizes import new_autoencoder

WEIGHTS = Path(__file__).with_name("weights")
LOCK_NAME = "lock.json"


def kept_networks(folder: Path = WEIGHTS) -> dict[str, Any]:
    """The lock of kept weights, by network; empty where there are none."""
    path = folder / LOCK_NAME
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def kept_file(folder: Path, name: str) -> Path:
    """The file of a kept network.

    Raises:
        ModelFilesError: it is missing, or not the one that the lock names.
    """
    lock = kept_networks(folder)
    if name not in lock:
        raise ModelFilesError(
            f"{folder}: holds no weights of the sandbox's {name}; train it and keep it "
            f"(`python -m libs.sandbox.training {name}`, then `keep {name}`)"
        )
    path = folder / lock[name]["file"]
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != lock[name]["sha256"]:
        raise ModelFilesError(f"{path}: differs from what {folder / LOCK_NAME} names; take both from the same commit")
    return path


def kept_weights(folder: Path, name: str) -> dict[str, torch.Tensor]:
    """The weights of a kept network in float32, by the names of its class.

    Raises:
        ModelFilesError: see :func:`kept_file`.
    """
    path = kept_file(folder, name)
    if path.suffix == ".onnx":
        return _onnx_weights(path)
    return {key: value.float() for key, value in load_file(path).items()}


def trained_transformer_state(folder: Path = WEIGHTS) -> dict[str, torch.Tensor]:
    """The transformer's weights as they are stored, in bfloat16."""
    return dict(load_file(kept_file(folder, "transformer")))


def trained_autoencoder(folder: Path = WEIGHTS) -> AutoencoderKLWan:
    """The autoencoder in float32, with the mean and spread of latents that the transformer knows."""
    name = "decoder" if "decoder" in kept_networks(folder) else "autoencoder"
    kept_file(folder, "transformer")
    latents = kept_networks(folder)["transformer"]["latents"]
    autoencoder = new_autoencoder(latents["mean"], latents["std"])
    autoencoder.load_state_dict(kept_weights(folder, name))
    return autoencoder.eval().requires_grad_(False)


def weights_digest(folder: Path = WEIGHTS) -> str:
    """Stands for all kept weights: the digest of their lock."""
    path = folder / LOCK_NAME
    return hashlib.sha256(path.read_bytes() if path.exists() else b"").hexdigest()


def _onnx_weights(path: Path) -> dict[str, torch.Tensor]:
    import onnx  # noqa: PLC0415 - only to go on with training
    from onnx import numpy_helper  # noqa: PLC0415

    return {
        tensor.name.removesuffix("_half"): torch.from_numpy(numpy_helper.to_array(tensor).astype(np.float32))
        for tensor in onnx.load(path).graph.initializer
    }
