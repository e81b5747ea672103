"""What a LoRA file means for one network: its tensors read and checked, by module, and the differences they make.

What does not belong here: what fits, by names and shapes (``lora_contents``), adding the changes to weights (``lora``)
or beside them (``lora_branches``).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from libs.errors import ModelFilesError
from libs.model_repo.parameters import Shape
from libs.one_to_all.finite import is_finite
from libs.one_to_all.lora_contents import (
    HADAMARD_PARTS,
    StoredChange,
    hadamard_rank,
    read_contents,
    weight_and_bias_of,
)
from libs.one_to_all.lora_names import Part


@dataclass
class Change:
    """All that a file has for one module; ``scale`` is alpha / rank."""

    tensors: dict[Part, torch.Tensor] = field(default_factory=dict)
    scale: float = 1.0

    @property
    def is_hadamard(self) -> bool:
        """True for a LoHa."""
        return "hada_w1_a" in self.tensors

    def of_weight(self, shape: torch.Size, device: torch.device) -> torch.Tensor | None:
        """The difference to the weight in float32, None if there is none."""
        total = self._get("weight difference", device)
        if total is not None:
            total = total.reshape(shape)
        if (product := self._product(device)) is not None:
            product = product.mul_(self.scale).view(shape)
            total = product if total is None else total + product
        return total

    def of_bias(self, device: torch.device) -> torch.Tensor | None:
        """The same of the bias; that of an up projection is scaled like it."""
        total, up_bias = self._get("bias difference", device), self._get("up bias", device)
        if up_bias is not None:
            scaled = up_bias * self.scale
            total = scaled if total is None else total + scaled
        return total

    def low_rank(
        self, strength: float, device: torch.device, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Down [rank, in] and up [out, rank] of a linear layer, whose product is the difference at this strength.

        Of a LoHa only where that is smaller than the whole difference: its rank is the product of those of its factors.
        """
        if self._is_hadamard_of_low_rank:
            down, up = self._hadamard_factors(device)
        else:
            found = self._get("down", device), self._get("up", device)
            if found[0] is None or found[1] is None:
                return None
            down, up = found[0].flatten(1), found[1].flatten(1)
        return down.to(dtype), (up * (self.scale * strength)).to(dtype)

    def kronecker(
        self, shape: torch.Size, strength: float, device: torch.device, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """What ``low_rank`` does not hold: w1 and w2 whose Kronecker product is the difference at this strength.

        Of a LoKr these are its own small factors. A whole difference [out, in] has no smaller factors, and is w2 beside
        a w1 of one 1; so is a LoHa of large rank.
        """
        left, right = self._side("w1", device), self._side("w2", device)
        difference = self._get("weight difference", device)
        if left is not None and right is not None and difference is None:
            return left.to(dtype), (right * (self.scale * strength)).to(dtype)
        total = None if difference is None else difference.reshape(shape)
        is_product = (left is not None and right is not None) or (
            self.is_hadamard and not self._is_hadamard_of_low_rank
        )
        if is_product and (product := self._product(device)) is not None:
            product = product.mul_(self.scale)
            total = product if total is None else total + product
        if total is None:
            return None
        return torch.ones(1, 1, device=device, dtype=dtype), (total * strength).to(dtype)

    @property
    def _is_hadamard_of_low_rank(self) -> bool:
        if not self.is_hadamard:
            return False
        rows, columns = self.tensors["hada_w1_a"].shape[0], self.tensors["hada_w1_b"].shape[1]
        shapes: dict[Part, Shape] = {part: tuple(tensor.shape) for part, tensor in self.tensors.items()}
        return hadamard_rank(shapes, rows, columns) is not None

    def _hadamard_factors(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Down and up of a LoHa, without the scale: the products of each pair of rows, and of columns, of its factors.

        sum_i a[n, i] b[i, m] * sum_j c[n, j] d[j, m] = sum_ij (a[n, i] c[n, j]) (b[i, m] d[j, m]).
        """
        a, b, c, d = (self.tensors[part].to(device, torch.float32) for part in HADAMARD_PARTS)
        down = (b[:, None, :] * d[None, :, :]).flatten(0, 1)
        up = (a[:, :, None] * c[:, None, :]).flatten(1)
        return down, up

    def _product(self, device: torch.device) -> torch.Tensor | None:
        """Of up and down, of a LoKr, or of a LoHa, without the scale: float32, as a matrix."""
        # flattened: a convolution's down has the weight's shape, its up is 1 x 1
        down, up = self._get("down", device), self._get("up", device)
        if down is not None and up is not None:
            return up.flatten(1) @ down.flatten(1)
        left, right = self._side("w1", device), self._side("w2", device)
        if left is not None and right is not None:
            return torch.kron(left, right)
        factors = [factor for part in HADAMARD_PARTS if (factor := self._get(part, device)) is not None]
        return (factors[0] @ factors[1]).mul_(factors[2] @ factors[3]) if factors else None

    def _side(self, side: str, device: torch.device) -> torch.Tensor | None:
        """One side of a Kronecker product, multiplied out: float32, as a matrix."""
        parts: dict[str, tuple[Part, Part, Part]] = {
            "w1": ("lokr_w1", "lokr_w1_a", "lokr_w1_b"),
            "w2": ("lokr_w2", "lokr_w2_a", "lokr_w2_b"),
        }
        whole, a, b = (self._get(part, device) for part in parts[side])
        if whole is not None:
            return whole.flatten(1)
        return None if a is None or b is None else a @ b.flatten(1)

    def _get(self, part: Part, device: torch.device) -> torch.Tensor | None:
        tensor = self.tensors.get(part)
        return None if tensor is None else tensor.to(device, torch.float32)


def read_changes(path: Path, parameters: Mapping[str, nn.Parameter]) -> dict[str, Change]:
    """By module (see ``owners_of``) what the file at ``path`` has for a network with these ``parameters``.

    Raises:
        ModelFilesError: see ``read_contents``; or the file holds values that are not finite.
    """
    contents = read_contents(path, {name: tuple(parameter.shape) for name, parameter in parameters.items()})
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {owner: _read_change(file, path, stored) for owner, stored in contents.items()}
    except (SafetensorError, OSError) as error:
        raise ModelFilesError(f"{path}: cannot be read as safetensors ({error}); fetch the LoRA again") from error


def weight_and_bias(owner: str, parameters: Mapping[str, nn.Parameter]) -> tuple[nn.Parameter | None, ...]:
    """The parameters of a module; those that belong to none are weights."""
    return weight_and_bias_of(owner, parameters)


def _read_change(file: safe_open, path: Path, stored: StoredChange) -> Change:
    change = Change(scale=stored.scale)
    for part, name in stored.names.items():
        if part == "alpha":
            continue  # is in the scale
        tensor = file.get_tensor(name)
        if not is_finite(tensor):
            raise ModelFilesError(f"{path}: {name} holds values that are not finite numbers; fetch the LoRA again")
        change.tensors[part] = tensor
    return change
