"""Whether tensors hold NaN or infinity: such weights and latents give a clip that is black, or nearly right."""

import torch

_FIRST_NOT_FINITE = {torch.float8_e4m3fn: 0x7F, torch.float8_e5m2: 0x7C}
"""The smallest bit pattern, without the sign, that is not a finite number; e4m3fn has no infinity, and one NaN."""
_SIGN = 0x80


def may_not_be_finite(tensor: torch.Tensor) -> torch.Tensor:
    """False (a bool [], on the device of ``tensor``) only if all values are finite; one fast pass without a copy.

    A sum is NaN or infinite if any of its terms is. It may be infinite for finite terms, too: after True, ask
    :func:`is_finite`. For FP8, which has no sum, the answer is exact: by the largest bit pattern of
    each sign. Summing 2-byte floats is four times as fast as looking for their bounds.
    """
    if not tensor.numel():
        return torch.zeros((), dtype=torch.bool, device=tensor.device)
    limit = _FIRST_NOT_FINITE.get(tensor.dtype)
    if limit is None:
        return ~torch.isfinite(tensor.sum())
    bits = tensor.view(torch.uint8)
    return (bits.view(torch.int8).max() >= limit) | (bits.max() >= _SIGN + limit)


def is_finite(tensor: torch.Tensor) -> bool:
    """Whether all values of ``tensor`` are finite."""
    if not may_not_be_finite(tensor):
        return True
    # The smallest and the largest value are NaN if any value is.
    return tensor.dtype not in _FIRST_NOT_FINITE and all(torch.isfinite(bound) for bound in torch.aminmax(tensor))
