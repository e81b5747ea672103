"""A LoRA added to the weights of a loaded network: afterwards the network is as large and as fast as without.

Formula: W' = W + strength * alpha / rank * up @ down (LoRA, arXiv 2106.09685, section 4.1), in float32, rounded once to
the dtype of W. Adding a LoRA through adapters and merging these, as the libraries do, rounds the product to the dtype
of W first, and knows neither differences of norms nor of biases, which step-distilled LoRAs have. Taking it out again
would not restore every bit: a network without it is loaded anew (``warm``). What does not belong here: what is in a
file (``lora_changes``), weights in FP8 (``lora_branches``).
"""

import torch
from torch import nn

from libs.errors import ModelFilesError
from libs.one_to_all.weights.fp8 import is_fp8
from libs.one_to_all.weights.lora_changes import read_changes, weight_and_bias
from libs.one_to_all.weights.lora_file import LoraFile


@torch.no_grad()
def fuse_lora(network: nn.Module, lora: LoraFile) -> None:
    """Add ``lora`` to the weights of ``network``, in place; the network is untouched if an error is raised.

    Raises:
        ModelFilesError: see ``read_changes``; or the weights it is for are held in FP8.
    """
    parameters = dict(network.named_parameters())
    changes = read_changes(lora.path, parameters)
    for owner in changes:
        weight, _ = weight_and_bias(owner, parameters)
        if weight is not None and is_fp8(weight):
            raise ModelFilesError(f"{lora.path}: a LoRA cannot be fused into weights held in FP8 ({owner})")
    for owner, change in changes.items():
        weight, bias = weight_and_bias(owner, parameters)
        if weight is not None:
            add_difference(weight, change.of_weight(weight.shape, weight.device), lora.strength)
        if bias is not None:
            add_difference(bias, change.of_bias(bias.device), lora.strength)


def add_difference(parameter: torch.Tensor, difference: torch.Tensor | None, strength: float) -> None:
    """Add ``strength`` * ``difference`` (float32, is used up) to ``parameter``, in float32 and rounded once."""
    if difference is not None:
        parameter.copy_(difference.mul_(strength).add_(parameter.float()))
