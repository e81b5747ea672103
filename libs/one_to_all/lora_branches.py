"""A LoRA beside weights held in FP8: y = W x + up (down x), with both factors in the dtype the network computes in.

Likewise a LoKr, by its own small factors, a LoHa, by the two matrices whose product it is (or as a whole, where that is
smaller), and the whole difference of a weight.

Fusing would lose it: an FP8 weight has three bits of mantissa, and most of a LoRA's differences are smaller than half a
step of them. Beside the weight it is as exact as in a network in bfloat16, whether the weight is de-quantized or
multiplied in FP8, and it is taken away without a trace: one loaded network serves every LoRA, and none. What a file has
for parameters that are not in FP8 (norms, biases, tables, embeddings) is added to these, whose values are kept on the
host meanwhile. What does not belong here: what is in a file (``lora_changes``), networks without FP8 weights
(``lora``), the product (``fp8``).
"""

import logging

import torch
from torch import nn

from libs.model_repo.layout import RepositoryLayout
from libs.one_to_all.fp8 import BRANCH_PARAMETERS, Fp8Linear, is_fp8
from libs.one_to_all.lora import add_difference
from libs.one_to_all.lora_changes import Change, read_changes, weight_and_bias
from libs.one_to_all.lora_file import LoraFile, LoraIdentity

_logger = logging.getLogger(__name__)


def takes_loras_beside_weights(layout: RepositoryLayout) -> bool:
    """True for variants whose weights are FP8; into all others a LoRA is fused as they are loaded."""
    return layout.variant.weight_format == "fp8_scaled"


class LoraBranches:
    """The LoRA of a network with FP8 weights, none at first.

    Args:
        network: its weights may be anywhere; what is added lies where they do.
        dtype: in which it computes.
    """

    def __init__(self, network: nn.Module, dtype: torch.dtype) -> None:
        self._network = network
        self._dtype = dtype
        self._layers: list[Fp8Linear] = []
        self._values: list[tuple[nn.Parameter, torch.Tensor]] = []
        """Parameters that were changed, and their values before."""
        self._used: LoraIdentity | None = None

    @torch.no_grad()
    def use(self, lora: LoraFile | None) -> bool:
        """Take away the LoRA that is there, and add ``lora``; the same file again changes nothing.

        Returns:
            True if anything was changed: parameters may have been added to layers, or taken from them.

        Raises:
            ModelFilesError: see ``read_changes``. The network is untouched then.
        """
        wanted = None if lora is None else lora.identity()
        if wanted == self._used:
            return False
        parameters = {
            name: parameter
            for name, parameter in self._network.named_parameters()
            if name.rpartition(".")[2] not in BRANCH_PARAMETERS
        }
        changes = {} if lora is None else read_changes(lora.path, parameters)
        if torch.cuda.is_initialized():
            torch.cuda.synchronize()  # blocks on the host may still be on their way to the device
        self._take_away()
        if lora is not None:
            try:
                for owner, change in changes.items():
                    self._add(owner, change, lora.strength, parameters)
            except BaseException:  # memory, most of all
                self._take_away()
                raise
            self._used = wanted
            _logger.info("LoRA %s beside the FP8 weights of %d layers", lora.name, len(self._layers))
        return True

    def _add(self, owner: str, change: Change, strength: float, parameters: dict[str, nn.Parameter]) -> None:
        weight, bias = weight_and_bias(owner, parameters)
        if weight is not None and is_fp8(weight):
            layer = self._network.get_submodule(owner)
            assert isinstance(layer, Fp8Linear)
            self._layers.append(layer)
            if (factors := change.low_rank(strength, weight.device, self._dtype)) is not None:
                layer.set_branch(*factors)
            if (sides := change.kronecker(weight.shape, strength, weight.device, self._dtype)) is not None:
                layer.set_kronecker_branch(*sides)
        elif weight is not None:
            self._change(weight, change.of_weight(weight.shape, weight.device), strength)
        if bias is not None:
            self._change(bias, change.of_bias(bias.device), strength)

    def _change(self, parameter: nn.Parameter, difference: torch.Tensor | None, strength: float) -> None:
        if difference is not None:
            self._values.append((parameter, parameter.to("cpu", copy=True)))
            add_difference(parameter, difference, strength)

    def _take_away(self) -> None:
        for layer in self._layers:
            layer.drop_branch()
        for parameter, value in self._values:
            parameter.copy_(value)
        self._layers, self._values, self._used = [], [], None
