"""A LoRA on a loaded network: its delta per module, fused into the weights or unfused beside them.

**Fused:** W' = W + strength * alpha / rank * up @ down (LoRA, arXiv 2106.09685, section 4.1), in float32, rounded once
to the dtype of W; afterwards the network is as large and as fast as without it. Adding a LoRA through adapters and
merging these, as the libraries do, rounds the product to the dtype of W first, and knows neither deltas of norms nor of
biases, which step-distilled LoRAs have. Subtracting it again would not restore every bit: the engine cache loads the
network again.

**Unfused**, for weights held in FP8: y = W x + up (down x), with both factors in the dtype the network computes in.
Likewise a LoKr by its own small factors, a LoHa by the two matrices whose product it is (or as a whole, where that is
smaller), and the whole delta of a weight. Fusing would lose it: an FP8 weight has three bits of mantissa, and most
deltas of a LoRA are smaller than half a step of them. Beside the weight it is as exact as in a network in bfloat16,
whether the weight is de-quantized or multiplied in FP8, and it is removed without a trace: one loaded network serves
every LoRA, and none. Deltas of parameters that are not in FP8 (norms, biases, tables, embeddings) are added to these;
their original values are kept on the host meanwhile.

See ``lora_file`` for what a file holds and whether it fits, and ``fp8`` for the layer that computes with an adapter.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from libs.errors import ModelFilesError
from libs.model_repo.files.parameters import Shape
from libs.model_repo.layout import RepositoryLayout
from libs.one_to_all.finite import is_finite
from libs.one_to_all.weights.fp8 import ADAPTER_PARAMETERS, Fp8Linear, is_fp8
from libs.one_to_all.weights.lora_file import (
    HADAMARD_PARTS,
    LoraFile,
    LoraIdentity,
    StoredDelta,
    describe_skipped,
    hadamard_rank,
    read_contents,
    weight_and_bias_of,
)
from libs.one_to_all.weights.lora_names import LoraPart

_logger = logging.getLogger(__name__)


@dataclass
class LoraDelta:
    """The difference that a LoRA makes to one module: its tensors in the file, and ``scale`` = alpha / rank."""

    tensors: dict[LoraPart, torch.Tensor] = field(default_factory=dict)
    scale: float = 1.0

    @property
    def is_hadamard(self) -> bool:
        """Whether it is a LoHa."""
        return "hada_w1_a" in self.tensors

    def weight_delta(self, shape: torch.Size, device: torch.device) -> torch.Tensor | None:
        """The delta of the weight in float32, without the strength; None if there is none."""
        total = self._get("weight difference", device)
        if total is not None:
            total = total.reshape(shape)
        if (product := self._product(device)) is not None:
            product = product.mul_(self.scale).view(shape)
            total = product if total is None else total + product
        return total

    def bias_delta(self, device: torch.device) -> torch.Tensor | None:
        """The delta of the bias, likewise; the bias of an up projection is scaled as that is."""
        total, up_bias = self._get("bias difference", device), self._get("up bias", device)
        if up_bias is not None:
            scaled = up_bias * self.scale
            total = scaled if total is None else total + scaled
        return total

    def low_rank_factors(
        self, strength: float, device: torch.device, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Down [rank, in] and up [out, rank] of a linear layer, whose product is the delta at this strength.

        Of a LoHa only where that is smaller than the whole delta: its rank is the product of the ranks of its factors.
        """
        if self._is_hadamard_of_low_rank:
            down, up = self._hadamard_factors(device)
        else:
            found = self._get("down", device), self._get("up", device)
            if found[0] is None or found[1] is None:
                return None
            down, up = found[0].flatten(1), found[1].flatten(1)
        return down.to(dtype), (up * (self.scale * strength)).to(dtype)

    def kronecker_factors(
        self, shape: torch.Size, strength: float, device: torch.device, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor] | None:
        """W1 and w2 whose Kronecker product is the rest of the delta, beside ``low_rank_factors``, at this strength.

        Of a LoKr these are its own small factors. A whole delta [out, in] has no smaller factors, and is w2 beside a w1
        that is the number 1; so is a LoHa of large rank.
        """
        left, right = self._side("w1", device), self._side("w2", device)
        whole = self._get("weight difference", device)
        if left is not None and right is not None and whole is None:
            return left.to(dtype), (right * (self.scale * strength)).to(dtype)
        total = None if whole is None else whole.reshape(shape)
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
        shapes: dict[LoraPart, Shape] = {part: tuple(tensor.shape) for part, tensor in self.tensors.items()}
        return hadamard_rank(shapes, rows, columns) is not None

    def _hadamard_factors(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Down and up of a LoHa, without the scale: products of each pair of rows, and of each pair of columns.

        sum_i a[n, i] b[i, m] * sum_j c[n, j] d[j, m] = sum_ij (a[n, i] c[n, j]) (b[i, m] d[j, m]).
        """
        a, b, c, d = (self.tensors[part].to(device, torch.float32) for part in HADAMARD_PARTS)
        down = (b[:, None, :] * d[None, :, :]).flatten(0, 1)
        up = (a[:, :, None] * c[:, None, :]).flatten(1)
        return down, up

    def _product(self, device: torch.device) -> torch.Tensor | None:
        """The product of up and down, of a LoKr, or of a LoHa, without the scale: float32, as a matrix."""
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
        parts: dict[str, tuple[LoraPart, LoraPart, LoraPart]] = {
            "w1": ("lokr_w1", "lokr_w1_a", "lokr_w1_b"),
            "w2": ("lokr_w2", "lokr_w2_a", "lokr_w2_b"),
        }
        whole, a, b = (self._get(part, device) for part in parts[side])
        if whole is not None:
            return whole.flatten(1)
        return None if a is None or b is None else a @ b.flatten(1)

    def _get(self, part: LoraPart, device: torch.device) -> torch.Tensor | None:
        tensor = self.tensors.get(part)
        return None if tensor is None else tensor.to(device, torch.float32)


def read_deltas(lora: LoraFile, parameters: Mapping[str, nn.Parameter]) -> dict[str, LoraDelta]:
    """Read the deltas of one file for a network with these ``parameters``, by target (``targets_of``).

    Raises:
        ModelFilesError: see ``read_contents``; or the file holds values that are not finite.
    """
    path = lora.path
    shapes: dict[str, Shape] = {name: tuple(parameter.shape) for name, parameter in parameters.items()}
    contents = read_contents(path, shapes, strict=lora.strict)
    if contents.skipped:
        _logger.warning("LoRA %s: %s", lora.name, describe_skipped(contents.skipped))
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            return {target: _read_delta(file, path, stored) for target, stored in contents.deltas.items()}
    except (SafetensorError, OSError) as error:
        raise ModelFilesError(f"{path}: cannot be read as safetensors ({error}); fetch the LoRA again") from error


def _read_delta(file: safe_open, path: Path, stored: StoredDelta) -> LoraDelta:
    delta = LoraDelta(scale=stored.scale)
    for part, name in stored.names.items():
        if part == "alpha":
            continue  # it is part of the scale
        tensor = file.get_tensor(name)
        if not is_finite(tensor):
            raise ModelFilesError(f"{path}: {name} holds values that are not finite numbers; fetch the LoRA again")
        delta.tensors[part] = tensor
    return delta


@torch.no_grad()
def fuse_lora(network: nn.Module, lora: LoraFile) -> None:
    """Add ``lora`` and its others to the weights of ``network``, in place; it is untouched if an error is raised.

    The changes of several files are summed in float32 and rounded with the weight, once.

    Raises:
        ModelFilesError: see ``read_deltas``; or the weights it is for are held in FP8.
    """
    parameters = dict(network.named_parameters())
    changes = _changes_of(lora, parameters)
    for target in changes:
        weight, _ = weight_and_bias_of(target, parameters)
        if weight is not None and is_fp8(weight):
            raise ModelFilesError(f"{lora.path}: a LoRA cannot be fused into weights held in FP8 ({target})")
    for target, deltas in changes.items():
        weight, bias = weight_and_bias_of(target, parameters)
        if weight is not None:
            add_deltas(weight, ((one.weight_delta(weight.shape, weight.device), strength) for one, strength in deltas))
        if bias is not None:
            add_deltas(bias, ((one.bias_delta(bias.device), strength) for one, strength in deltas))


def _changes_of(lora: LoraFile, parameters: Mapping[str, nn.Parameter]) -> dict[str, list[tuple[LoraDelta, float]]]:
    """By target, what each file changes there, and its strength."""
    changes: dict[str, list[tuple[LoraDelta, float]]] = {}
    for one in lora.all:
        for target, delta in read_deltas(one, parameters).items():
            changes.setdefault(target, []).append((delta, one.strength))
    return changes


def add_deltas(parameter: torch.Tensor, deltas: Iterable[tuple[torch.Tensor | None, float]]) -> bool:
    """Add each delta times its strength to ``parameter``, in float32 and rounded once; deltas are overwritten.

    Returns:
        Whether there was any.
    """
    total: torch.Tensor | None = None
    for delta, strength in deltas:
        if delta is not None:
            delta.mul_(strength)
            total = delta if total is None else total.add_(delta)
    if total is not None:
        parameter.copy_(total.add_(parameter.float()))
    return total is not None


def keeps_lora_unfused(layout: RepositoryLayout) -> bool:
    """Whether a LoRA stays unfused: true for FP8 variants; into all others it is fused when they are loaded."""
    return layout.variant.weight_format == "fp8_scaled"


class UnfusedLora:
    """The LoRA of a network with FP8 weights; none at first.

    Args:
        network: its weights may be on any device; an adapter is put on the device of its weight.
        dtype: in which the network computes.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        self._network = network
        self._dtype = dtype
        self._layers: list[Fp8Linear] = []
        self._original_values: list[tuple[nn.Parameter, torch.Tensor]] = []
        """Parameters that were changed, and their values before."""
        self._current: LoraIdentity | None = None

    @torch.no_grad()
    def set(self, lora: LoraFile | None) -> bool:
        """Replace the present LoRA by ``lora``, or by none; the same file again changes nothing.

        Returns:
            True if anything was changed: parameters may have been added to layers, or removed from them.

        Raises:
            ModelFilesError: see ``read_deltas``. The network is untouched then.
        """
        wanted = None if lora is None else lora.identity()
        if wanted == self._current:
            return False
        parameters = {
            name: parameter
            for name, parameter in self._network.named_parameters()
            if name.rpartition(".")[2] not in ADAPTER_PARAMETERS
        }
        changes = {} if lora is None else _changes_of(lora, parameters)
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()  # blocks on the host may still be on their way to the device
        self._remove()
        if lora is not None:
            try:
                for target, deltas in changes.items():
                    self._attach(target, deltas, parameters)
            except BaseException:  # memory, most of all
                self._remove()
                raise
            self._current = wanted
            names = ", ".join(one.name for one in lora.all)
            _logger.info("LoRA %s beside the FP8 weights of %d layers", names, len(self._layers))
        return True

    def _attach(
        self, target: str, deltas: Sequence[tuple[LoraDelta, float]], parameters: dict[str, nn.Parameter]
    ) -> None:
        weight, bias = weight_and_bias_of(target, parameters)
        if weight is not None and is_fp8(weight):
            layer = self._network.get_submodule(target)
            assert isinstance(layer, Fp8Linear)
            self._layers.append(layer)
            device, dtype = weight.device, self._dtype
            factors = [one.low_rank_factors(strength, device, dtype) for one, strength in deltas]
            if found := [pair for pair in factors if pair is not None]:  # the product of stacked factors is their sum
                layer.set_low_rank_adapter(
                    torch.cat([down for down, _ in found]), torch.cat([up for _, up in found], dim=1)
                )
            sides = [one.kronecker_factors(weight.shape, strength, device, dtype) for one, strength in deltas]
            if products := [pair for pair in sides if pair is not None]:
                layer.set_kronecker_adapter(*_sum_of_products(products))
        elif weight is not None:
            self._add_to(weight, [(one.weight_delta(weight.shape, weight.device), by) for one, by in deltas])
        if bias is not None:
            self._add_to(bias, [(one.bias_delta(bias.device), by) for one, by in deltas])

    def _add_to(self, parameter: nn.Parameter, deltas: Sequence[tuple[torch.Tensor | None, float]]) -> None:
        if any(delta is not None for delta, _ in deltas):
            self._original_values.append((parameter, parameter.to("cpu", copy=True)))
            add_deltas(parameter, deltas)

    def _remove(self) -> None:
        for layer in self._layers:
            layer.remove_adapter()
        for parameter, value in self._original_values:
            parameter.copy_(value)
        self._layers, self._original_values, self._current = [], [], None


def _sum_of_products(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Two factors whose Kronecker product is the sum of those of ``pairs``; of several it is multiplied out."""
    if len(pairs) == 1:
        return pairs[0]
    total = sum(torch.kron(w1.float(), w2.float()) for w1, w2 in pairs)
    assert isinstance(total, torch.Tensor)
    w1, w2 = pairs[0]
    return torch.ones(1, 1, device=w1.device, dtype=w1.dtype), total.to(w2.dtype)
