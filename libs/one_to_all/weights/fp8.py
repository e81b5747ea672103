"""Weights that stay in FP8 in memory: layers that de-quantize them as they compute, or multiply them as they are.

The common scaled format (``<layer>.weight`` in float8_e4m3fn or float8_e5m2, ``<layer>.scale_weight`` with one number
or one per output channel; weight = stored * scale) and plain FP8 weights without a scale can be loaded. See
``libs.model_repo.operations.quantize`` for making such files.

Products can be formed in FP8: activations are quantized row by row as they come, results are bfloat16. weight = stored
* channel scale and row = quantized * row scale, so row · weight = (quantized · stored) * both scales; torch's
``_scaled_mm`` forms that in one kernel on cards that have FP8 matrix units.
"""

from collections.abc import Callable, Iterable, Mapping
from math import prod
from typing import Self

import torch
from torch import nn
from torch.nn import functional

from libs.model_repo.files.parameters import FP8_DTYPES, SCALE_SUFFIX, WEIGHT_SUFFIX, Shape, TensorInfo, scale_name

_TORCH_DTYPES = {"F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2}
_MARKER = "scaled_fp8"
"""An empty tensor with which some programs mark scaled files."""
ADAPTER_PARAMETERS = ("lora_down", "lora_up", "lokr_w1", "lokr_w2")
"""Parameters of an :class:`Fp8Linear` that hold an unfused LoRA; no checkpoint holds them."""

E4M3_MAX = 448.0
_LEAST_CAPABILITY = (8, 9)
_MULTIPLE = 16
"""Of both sides of a weight; the kernels load 16 bytes at a time."""
_PROBE = 64
_LARGEST_ERROR = 0.1
"""Of a product, relative (root mean square); three bits of mantissa on both sides give 0.04."""


class Fp8Linear(nn.Linear):
    """``nn.Linear`` with its weight in FP8.

    ``weight`` [out, in] FP8, ``scale_weight`` [out, 1] (or [out], [1], []) in any floating point dtype or None,
    ``bias`` [out] in the compute dtype or None. The de-quantized weight exists only inside ``forward``, in the dtype of
    the input; the product is formed in float32 and rounded once. Casting the module (``.to(torch.bfloat16)``) leaves
    the weight and its scale as they are.

    With ``computes_in_fp8`` the product is formed in FP8 instead (:func:`scaled_linear`). Either way an unfused LoRA
    may be added (``lora``): a low-rank adapter, ``lora_down`` [rank, in] and ``lora_up`` [out, rank] in the compute
    dtype, and a Kronecker adapter, ``lokr_w1`` [out 1, in 1] and ``lokr_w2`` [out 2, in 2]; all are None without one.
    """

    scale_weight: nn.Parameter | None
    lora_down: nn.Parameter | None
    lora_up: nn.Parameter | None
    lokr_w1: nn.Parameter | None
    lokr_w2: nn.Parameter | None
    computes_in_fp8: bool = False

    @classmethod
    def replacing(cls, layer: nn.Linear, dtype: torch.dtype, scale: Shape | None) -> Self:
        """An Fp8Linear on the meta device with the sizes of ``layer`` (also on the meta device)."""
        made = cls(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        made.weight = nn.Parameter(torch.empty_like(layer.weight, dtype=dtype), requires_grad=False)
        empty = None if scale is None else torch.empty(scale, device="meta")
        made.register_parameter("scale_weight", None if empty is None else nn.Parameter(empty, requires_grad=False))
        made.remove_adapter()
        return made

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """``input`` [..., in] -> [..., out] in the dtype of ``input``."""
        bias = None if self.bias is None else self.bias.to(input.dtype)
        if self.computes_in_fp8:
            output = scaled_linear(input, self.weight, self.channel_scale(), bias)
        else:
            output = functional.linear(input, self.dequantized(input.dtype), bias)
        # added where the output lies: at full size it takes up to a gigabyte
        if self.lora_down is not None and self.lora_up is not None:
            hidden = functional.linear(input, self.lora_down.to(input.dtype))
            flat = output.flatten(0, -2).addmm_(hidden.flatten(0, -2), self.lora_up.to(input.dtype).t())
            output = flat.view(output.shape)
        if self.lokr_w1 is not None and self.lokr_w2 is not None:
            output = output.add_(_kronecker_linear(input, self.lokr_w1, self.lokr_w2))
        return output

    def set_low_rank_adapter(self, down: torch.Tensor, up: torch.Tensor) -> None:
        """Add the product of ``up`` [out, rank] and ``down`` [rank, in] to the weight."""
        self.lora_down = nn.Parameter(down, requires_grad=False)
        self.lora_up = nn.Parameter(up, requires_grad=False)

    def set_kronecker_adapter(self, w1: torch.Tensor, w2: torch.Tensor) -> None:
        """Add the Kronecker product of ``w1`` [out 1, in 1] and ``w2`` [out 2, in 2] to the weight."""
        self.lokr_w1 = nn.Parameter(w1, requires_grad=False)
        self.lokr_w2 = nn.Parameter(w2, requires_grad=False)

    def remove_adapter(self) -> None:
        """Compute without a LoRA again, as the layer was loaded."""
        for name in ADAPTER_PARAMETERS:
            self.register_parameter(name, None)

    def dequantized(self, dtype: torch.dtype) -> torch.Tensor:
        """The weight [out, in] in ``dtype``."""
        return _dequantize(self.weight, self.scale_weight, dtype)

    def channel_scale(self) -> torch.Tensor:
        """The scale of each output channel, float32 [1, out], as a kernel takes it."""
        if self.scale_weight is None:
            return torch.ones(1, self.out_features, device=self.weight.device)
        return self.scale_weight.float().reshape(1, -1).expand(1, self.out_features).contiguous()

    def _apply(self, fn: Callable[[torch.Tensor], torch.Tensor], recurse: bool = True) -> Self:
        """Cast the bias only; weight and scale follow to another device, and keep their dtype."""

        def apply(tensor: torch.Tensor) -> torch.Tensor:
            if tensor is not self.weight and tensor is not self.scale_weight:
                return fn(tensor)
            device = fn(torch.empty(0, dtype=tensor.dtype, device=tensor.device)).device
            return torch.empty_like(tensor, device=device) if tensor.is_meta else tensor.to(device)

        return super()._apply(apply, recurse)

    def extra_repr(self) -> str:
        """The description of ``nn.Linear``, and the stored dtype."""
        return f"{super().extra_repr()}, stored={self.weight.dtype}"


def _kronecker_linear(states: torch.Tensor, w1: torch.Tensor, w2: torch.Tensor) -> torch.Tensor:
    """``states`` [..., in 1 * in 2] times the transposed Kronecker product, which is never formed."""
    w1, w2 = w1.to(states.dtype), w2.to(states.dtype)
    if w1.numel() == 1:  # a whole difference
        return functional.linear(states, w2).mul_(w1[0, 0])
    columns = functional.linear(states.unflatten(-1, (w1.shape[1], w2.shape[1])), w2)
    return torch.matmul(w1, columns).flatten(-2)


def _dequantize(weight: torch.Tensor, scale: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor:
    """Stored * scale in ``dtype``: float8 -> ``dtype`` is exact, and an in-place product of two dtypes rounds once."""
    result = weight.to(dtype)
    if scale is None:
        return result
    per_channel = scale.float().reshape(-1, *(1 for _ in weight.shape[1:]))
    return result.mul_(per_channel)


def hold_weights_in_fp8(model: nn.Module, tensors: Mapping[str, TensorInfo]) -> None:
    """Prepare ``model`` (on the meta device) for the tensors of an FP8 checkpoint.

    Afterwards its state dict has the names and shapes of the checkpoint: each linear layer with an FP8 weight is an
    :class:`Fp8Linear`. Other layers with an FP8 weight (convolutions of files made elsewhere) get their scale as a
    parameter until :func:`dequantize_other_layers`. Names the network does not have are left to ``assign_checkpoint``.

    Args:
        model: a plain network.
        tensors: name -> dtype and shape, from the headers of the checkpoint.
    """
    parameters = model.state_dict().keys()
    for name, info in tensors.items():
        if info.dtype not in FP8_DTYPES or not name.endswith(WEIGHT_SUFFIX) or name not in parameters:
            continue
        path = name.removesuffix(WEIGHT_SUFFIX)
        scale = tensors.get(scale_name(name))
        layer = model.get_submodule(path)
        if isinstance(layer, nn.Linear):
            made = Fp8Linear.replacing(layer, _TORCH_DTYPES[info.dtype], scale.shape if scale else None)
            parent, _, attribute = path.rpartition(".")
            setattr(model.get_submodule(parent), attribute, made)
        elif scale is not None:
            layer.register_parameter(SCALE_SUFFIX[1:], nn.Parameter(torch.empty(scale.shape, device="meta"), False))
    if _MARKER in tensors:
        model.register_buffer(_MARKER, torch.empty(tensors[_MARKER].shape, device="meta"))


def problem_of_scales(tensors: Mapping[str, TensorInfo]) -> str | None:
    """Say what is wrong with the scales of an FP8 checkpoint; None if all its FP8 weights have one that fits, or none.

    Without its scale, a weight is hundreds of times too large.
    """
    if not any(name.endswith(SCALE_SUFFIX) for name in tensors):
        return None
    for name, weight in tensors.items():
        if weight.dtype not in FP8_DTYPES or not name.endswith(WEIGHT_SUFFIX):
            continue
        scale = tensors.get(scale_name(name))
        if scale is None:
            return f"{name} is in FP8 and has no {scale_name(name)}, as other weights have"
        if prod(scale.shape) not in {1, weight.shape[0]}:
            return (
                f"{scale_name(name)} has shape {list(scale.shape)}; expected one number, or one for each of the "
                f"{weight.shape[0]} output channels"
            )
    return None


def compute_in_fp8(model: nn.Module, blocks: Iterable[str], device: torch.device) -> str:
    """Have the FP8 layers inside ``blocks`` (names of classes) of ``model`` form their products in FP8.

    Layers outside the blocks stay as they are: they cost next to nothing, and their error reaches everything.

    Returns:
        What was done, or why nothing was, for the log. Where nothing is done, weights are de-quantized as before.
    """
    names = frozenset(blocks)
    inside = [block for block in model.modules() if type(block).__name__ in names]
    layers = [layer for block in inside for layer in block.modules() if isinstance(layer, Fp8Linear)]
    if not layers:
        return "FP8 compute is off: this model has no FP8 weights; choose its -FP8 variant"
    problem = why_not_in_fp8(device)
    if problem is not None:
        return f"FP8 compute is off, FP8 weights are de-quantized instead: {problem}"
    fitting = [layer for layer in layers if fits_kernel(layer.weight)]
    for layer in fitting:
        layer.computes_in_fp8 = True
    return f"FP8 compute in {len(fitting)} of {len(layers)} layers with FP8 weights"


def computes_in_fp8(model: nn.Module) -> bool:
    """Whether any layer of ``model`` forms its products in FP8."""
    return any(isinstance(layer, Fp8Linear) and layer.computes_in_fp8 for layer in model.modules())


def dequantize_other_layers(model: nn.Module, dtype: torch.dtype) -> None:
    """Give layers that are not linear their weight in ``dtype``, after loading, and drop what only files need."""
    model._buffers.pop(_MARKER, None)
    for layer in model.modules():
        weight = getattr(layer, "weight", None)
        if isinstance(layer, Fp8Linear) or not isinstance(weight, torch.Tensor) or not is_fp8(weight):
            continue
        scale = layer._parameters.pop(SCALE_SUFFIX[1:], None)
        layer.weight = nn.Parameter(_dequantize(weight, scale, dtype), requires_grad=False)


def is_fp8(tensor: torch.Tensor) -> bool:
    """Whether ``tensor`` is in one of the two FP8 formats."""
    return tensor.dtype in _TORCH_DTYPES.values()


def keeps_its_dtype(name: str, dtype: torch.dtype) -> bool:
    """Whether a tensor of a checkpoint is not cast to the compute dtype: FP8 weights and their scales."""
    return dtype in _TORCH_DTYPES.values() or name.endswith(SCALE_SUFFIX)


def quantize_rows(states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Quantize [M, K] to float8_e4m3fn [M, K] with a float32 scale per row, [M, 1]: row = quantized * scale.

    The scale takes the largest value of a row to the largest of the format: nothing is clamped.
    """
    largest = torch.linalg.vector_norm(states, float("inf"), dim=1, keepdim=True).float()
    scale = (largest / E4M3_MAX).clamp_min(torch.finfo(torch.float32).tiny)
    return (states * scale.reciprocal()).to(torch.float8_e4m3fn), scale


def scaled_linear(
    states: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """Compute a linear layer with its product formed in FP8.

    Args:
        states: [..., K], bfloat16 or float32.
        weight: float8_e4m3fn [N, K], contiguous.
        scale: float32 [1, N], of each output channel.
        bias: [N] in the dtype of ``states``, or None.

    Returns:
        [..., N] in the dtype of ``states``; on CUDA rounded to bfloat16, which is what the kernel gives.
    """
    quantized, row_scale = quantize_rows(states.flatten(0, -2).contiguous())  # the kernels take rows side by side only
    dtype = torch.bfloat16 if states.is_cuda else states.dtype
    product = torch._scaled_mm(
        quantized,
        weight.t(),
        scale_a=row_scale,
        scale_b=scale,
        bias=None if bias is None else bias.to(dtype),
        out_dtype=dtype,
        use_fast_accum=states.is_cuda,
    )
    return product.to(states.dtype).unflatten(0, states.shape[:-1])


def fits_kernel(weight: torch.Tensor) -> bool:
    """Whether the kernels take ``weight`` [N, K]: e4m3 with sides that are multiples of 16."""
    return weight.dtype == torch.float8_e4m3fn and not any(side % _MULTIPLE for side in weight.shape)


def why_not_in_fp8(device: torch.device) -> str | None:
    """Say why products cannot be formed in FP8 on ``device``; None if a small one just came out right."""
    if device.type == "cuda" and torch.cuda.get_device_capability(device) < _LEAST_CAPABILITY:
        major, minor = torch.cuda.get_device_capability(device)
        return f"{torch.cuda.get_device_name(device)} has compute capability {major}.{minor}, FP8 needs 8.9"
    generator = torch.Generator().manual_seed(0)
    states, weight = (torch.randn(_PROBE, _PROBE, generator=generator).to(device) for _ in range(2))
    stored, scale = quantize_rows(weight)
    try:
        found = scaled_linear(states.bfloat16(), stored, scale.t().contiguous(), None).double()
    except (RuntimeError, ValueError, NotImplementedError) as error:
        return " ".join(str(error).split())[:200]
    expected = states.double() @ weight.double().t()
    difference = ((found - expected).norm() / expected.norm()).item()
    return None if difference < _LARGEST_ERROR else f"a product was off by {difference:.0%}"
