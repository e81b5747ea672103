"""Products of FP8 weights formed in FP8: activations are quantized row by row as they come, results are bfloat16.

weight = stored * channel scale and row = quantized * row scale, so row · weight = (quantized · stored) * both scales;
torch's ``_scaled_mm`` forms that in one kernel on cards that have FP8 matrix units. What does not belong here: layers
(``fp8``), which of them compute so (``fp8.compute_in_fp8``).
"""

import torch

E4M3_MAX = 448.0
_LEAST_CAPABILITY = (8, 9)
_MULTIPLE = 16
"""Of both sides of a weight; the kernels load 16 bytes at a time."""
_PROBE = 64
_LARGEST_ERROR = 0.1
"""Of a product, relative (root mean square); three bits of mantissa on both sides give 0.04."""


def quantize_rows(states: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """[M, K] -> float8_e4m3fn [M, K] and the float32 scale of each row, [M, 1]: row = quantized * scale.

    The scale takes the largest value of a row to the largest of the format: nothing is clamped.
    """
    largest = torch.linalg.vector_norm(states, float("inf"), dim=1, keepdim=True).float()
    scale = (largest / E4M3_MAX).clamp_min(torch.finfo(torch.float32).tiny)
    return (states * scale.reciprocal()).to(torch.float8_e4m3fn), scale


def scaled_linear(
    states: torch.Tensor, weight: torch.Tensor, scale: torch.Tensor, bias: torch.Tensor | None
) -> torch.Tensor:
    """A linear layer with its product formed in FP8.

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
    """True for weights [N, K] the kernels take: e4m3 with sides that are multiples of 16."""
    return weight.dtype == torch.float8_e4m3fn and not any(side % _MULTIPLE for side in weight.shape)


def why_not_in_fp8(device: torch.device) -> str | None:
    """Why products cannot be formed in FP8 on ``device``; None if a small one just came out right."""
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
