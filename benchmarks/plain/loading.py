"""Weights as this project read them first: mapped into memory, one tensor after the other, bounds for the check.

What does not belong here: how the engine reads them (``libs.one_to_all.weights.reading``).
"""

from collections.abc import Iterable
from pathlib import Path

import torch
from safetensors import safe_open


def read_mapped(shards: Iterable[Path], device: torch.device, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """Name -> tensor on ``device``, copied out of the mapped files and checked for NaN and infinity."""
    results = {}
    for path in shards:
        with safe_open(path, framework="pt", device="cpu") as shard:
            for name in shard.keys():  # noqa: SIM118 - no dictionary
                tensor = shard.get_tensor(name).to(device, dtype, copy=True)
                if not all(torch.isfinite(bound) for bound in torch.aminmax(tensor)):
                    raise ValueError(f"{path}: {name} is not finite")
                results[name] = tensor
    return results
