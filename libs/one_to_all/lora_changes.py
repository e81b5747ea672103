"""What a LoRA file means for one network: its tensors read, understood, checked and sorted by module.

What does not belong here: the names in a file (``lora_names``), adding the changes to weights (``lora``) or beside them
(``lora_branches``).
"""

import json
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from libs.errors import ModelFilesError
from libs.one_to_all.finite import is_finite
from libs.one_to_all.lora_file import lora_is_missing
from libs.one_to_all.lora_names import Part, owners_of, understand_names

_ADAPTER_METADATA = "lora_adapter_metadata"
"""Where diffusers keeps peft's configuration in a file; other programs write a tensor ``alpha`` per module."""
_SHOWN_NAMES = 3


@dataclass
class Change:
    """All that a file has for one module; ``scale`` is alpha / rank."""

    tensors: dict[Part, torch.Tensor] = field(default_factory=dict)
    scale: float = 1.0

    def of_weight(self, shape: torch.Size, device: torch.device) -> torch.Tensor | None:
        """The difference to the weight in float32, None if there is none."""
        down, up = self.tensors.get("down"), self.tensors.get("up")
        difference = self.tensors.get("weight difference")
        total = None if difference is None else difference.to(device, torch.float32)
        if down is not None and up is not None:
            # flattened: a convolution's down has the weight's shape, its up is 1 x 1
            factors = up.to(device, torch.float32).flatten(1), down.to(device, torch.float32).flatten(1)
            product = (factors[0] @ factors[1]).mul_(self.scale).view(shape)
            total = product if total is None else total + product
        return total

    def of_bias(self, device: torch.device) -> torch.Tensor | None:
        """The same of the bias; that of an up projection is scaled like it."""
        difference, up_bias = self.tensors.get("bias difference"), self.tensors.get("up bias")
        total = None if difference is None else difference.to(device, torch.float32)
        if up_bias is not None:
            scaled = up_bias.to(device, torch.float32) * self.scale
            total = scaled if total is None else total + scaled
        return total

    def factors(
        self, strength: float, device: torch.device, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Down [rank, in] and up [out, rank] of a linear layer, whose product is the difference at this strength."""
        down, up = self.tensors.get("down"), self.tensors.get("up")
        if down is None or up is None:
            return None
        scaled = up.to(device, torch.float32).flatten(1) * (self.scale * strength)
        return down.to(device, dtype).flatten(1), scaled.to(dtype)


def read_changes(path: Path, parameters: Mapping[str, nn.Parameter]) -> dict[str, Change]:
    """By module (see ``owners_of``) what the file at ``path`` has for a network with these ``parameters``.

    Raises:
        ModelFilesError: the file is missing or unreadable, holds names or shapes that this network does not have, or
            values that are not finite.
    """
    changes = _read(path, parameters)
    for owner, change in changes.items():
        _check(path, owner, change, parameters)
    return changes


def weight_and_bias(owner: str, parameters: Mapping[str, nn.Parameter]) -> tuple[nn.Parameter | None, ...]:
    """The parameters of a module; those that belong to none are weights."""
    return parameters.get(f"{owner}.weight", parameters.get(owner)), parameters.get(f"{owner}.bias")


def _read(path: Path, parameters: Mapping[str, nn.Parameter]) -> dict[str, Change]:
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            known, unknown = understand_names(file.keys(), owners_of(parameters))
            if unknown or not known:
                raise ModelFilesError(_not_for_this_network(path, unknown))
            changes: dict[str, Change] = defaultdict(Change)
            for name, (owner, part) in known.items():
                if part in changes[owner].tensors:
                    raise ModelFilesError(f"{path}: holds the {part} of {owner} twice, the second time as {name}")
                changes[owner].tensors[part] = _checked(file.get_tensor(name), part, name, path)
            metadata = file.metadata() or {}
    except FileNotFoundError:
        raise lora_is_missing(path) from None
    except (SafetensorError, OSError) as error:
        raise ModelFilesError(f"{path}: cannot be read as safetensors ({error}); fetch the LoRA again") from error
    configuration = _adapter_configuration(metadata, path)
    for owner, change in changes.items():
        try:
            change.scale = _scale(owner, change, configuration)
        except (TypeError, ValueError, AttributeError) as error:
            raise ModelFilesError(
                f"{path}: its {_ADAPTER_METADATA} says something else than numbers of alpha ({error}); fetch the LoRA "
                "again"
            ) from None
    return dict(changes)


def _checked(tensor: torch.Tensor, part: Part, name: str, path: Path) -> torch.Tensor:
    if part == "alpha":
        if tensor.numel() != 1:
            raise ModelFilesError(f"{path}: {name} is not one number; fetch the LoRA again")
        tensor = tensor.to(torch.float32)  # some programs write an integer
    if not tensor.is_floating_point() or not is_finite(tensor):
        raise ModelFilesError(f"{path}: {name} holds values that are not finite numbers; fetch the LoRA again")
    if part in {"down", "up"} and (tensor.dim() < 2 or not tensor.numel()):
        raise ModelFilesError(
            f"{path}: {name} has shape {list(tensor.shape)}, which is no matrix; fetch the LoRA again"
        )
    return tensor


def _not_for_this_network(path: Path, unknown: list[str]) -> str:
    if not unknown:
        return f"{path}: holds no tensors"
    shown = ", ".join(unknown[:_SHOWN_NAMES]) + (" and more" if len(unknown) > _SHOWN_NAMES else "")
    return (
        f"{path}: {len(unknown)} names say nothing to this network: {shown}; a LoRA for Wan2.1 text-to-video of the "
        "same size, or for this network, is expected"
    )


def _adapter_configuration(metadata: dict[str, str], path: Path) -> dict[str, Any]:
    """peft's configuration as diffusers writes it, without the prefixes of the names."""
    try:
        configuration = json.loads(metadata.get(_ADAPTER_METADATA, "{}"))
        return {name.removeprefix("transformer."): value for name, value in configuration.items()}
    except (ValueError, AttributeError):
        raise ModelFilesError(f"{path}: its {_ADAPTER_METADATA} is no mapping; fetch the LoRA again") from None


def _scale(owner: str, change: Change, configuration: dict[str, Any]) -> float:
    """alpha / rank; a file that says nothing of alpha means alpha = rank."""
    down = change.tensors.get("down")
    if down is None:
        return 1.0
    rank = down.shape[0]
    if "alpha" in change.tensors:
        return change.tensors["alpha"].item() / rank
    patterns = configuration.get("alpha_pattern") or {}
    alpha = next((value for name, value in patterns.items() if owner == name or owner.endswith(f".{name}")), None)
    alpha = configuration.get("lora_alpha", rank) if alpha is None else alpha
    return float(alpha) / (math.sqrt(rank) if configuration.get("use_rslora") else rank)


def _check(path: Path, owner: str, change: Change, parameters: Mapping[str, nn.Parameter]) -> None:
    """Do the parts belong together, and fit the parameters they are for?"""
    parts = change.tensors
    weight, bias = weight_and_bias(owner, parameters)
    if ("down" in parts) != ("up" in parts):
        there, lacking = ("down", "up") if "down" in parts else ("up", "down")
        raise ModelFilesError(f"{path}: has the {there} part of {owner}, but not the {lacking} part")
    expected: dict[Part, torch.Size | None] = {
        "weight difference": None if weight is None else weight.shape,
        "bias difference": None if bias is None else bias.shape,
        "up bias": None if bias is None else bias.shape,
    }
    for part, shape in expected.items():
        if part in parts and parts[part].shape != shape:
            raise _wrong_shape(path, owner, part, parts[part].shape, shape)
    if "down" in parts:
        down, up = parts["down"], parts["up"]
        fits = weight is not None and weight.dim() > 1
        if fits:
            assert weight is not None
            fits = up.shape[:2] == (weight.shape[0], down.shape[0]) and down.shape[1:] == weight.shape[1:]
            fits = fits and up.numel() == up.shape[0] * up.shape[1]
        if not fits:
            raise _wrong_shape(path, owner, "down and up", (*down.shape, *up.shape), expected["weight difference"])


def _wrong_shape(path: Path, owner: str, part: str, found: Any, expected: Any) -> ModelFilesError:
    shape = "nothing" if expected is None else list(expected)
    return ModelFilesError(
        f"{path}: the {part} of {owner} has shape {list(found)}, which does not fit {shape}; a LoRA for a network of "
        "this size is expected"
    )
