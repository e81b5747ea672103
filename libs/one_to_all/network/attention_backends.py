"""Which of diffusers' exact attention back-ends works on a device: found by running each of them once.

An installed package says little: wheels are built for other cards, cuDNN refuses shapes, and diffusers checks neither
device nor dtype by default. So each candidate computes a small attention of this network's kind (head dim 128, token
counts that divide by nothing), and is taken only if the result is right. Back-ends that change results (sage) or
download code are no candidates.
"""

import math
from dataclasses import dataclass
from functools import cache

import torch
from diffusers.models.attention_dispatch import attention_backend, dispatch_attention_fn

from libs.errors import DeviceError, is_out_of_memory
from libs.one_to_all.speed_options import ATTENTION_BACKENDS, ATTENTION_SETTING

_NAMES = {
    "flash_3": "_flash_3",
    "cudnn": "_native_cudnn",
    "flash": "flash",
    "native_flash": "_native_flash",
    "native": "native",
}
"""Our names -> diffusers'."""
_HOPPER = (9, 0)
_HEADS, _HEAD_DIM, _QUERIES, _KEYS = 2, 128, 77, 333
_ROUNDINGS, _SUMS = 4, 1e-5
"""The largest error allowed, relative to the largest value: roundings of the dtype, and float32 sums on the way."""


@dataclass(frozen=True)
class AttentionProbe:
    """Result of trying one back-end: its largest error relative to the largest value, or why it does not work."""

    name: str
    error: float | None
    problem: str | None = None

    @property
    def usable(self) -> bool:
        """Whether it ran, and its result was right."""
        return self.problem is None

    @property
    def backend(self) -> str:
        """Its name in diffusers."""
        return _NAMES[self.name]

    def describe(self) -> str:
        """One line for a log or a report."""
        return f"{self.name}: error {self.error:.1e}" if self.usable else f"{self.name}: {self.problem}"


def candidates(device: torch.device) -> tuple[str, ...]:
    """Back-ends in order of preference on ``device``, by its compute capability.

    FlashAttention 3 and cuDNN use what Hopper and later cards have; before, FlashAttention 2 is the fastest. On a CPU
    torch has one implementation.
    """
    if device.type != "cuda":
        return ("native",)
    if torch.cuda.get_device_capability(device) >= _HOPPER:
        return ATTENTION_BACKENDS
    return ("flash", "native_flash", "cudnn", "native")


@cache
def probe_attention(name: str, device: torch.device, dtype: torch.dtype) -> AttentionProbe:
    """Run back-end ``name`` (of ``ATTENTION_BACKENDS``) once and compare it with float64.

    Raises:
        an error that ``is_out_of_memory`` knows: the device is full, which is not the back-end's fault and is not
        remembered.
    """
    generator = torch.Generator().manual_seed(0)
    query, key, value = (
        torch.randn(1, count, _HEADS, _HEAD_DIM, generator=generator).to(device, dtype)
        for count in (_QUERIES, _KEYS, _KEYS)
    )
    try:
        with torch.no_grad(), attention_backend(_NAMES[name]):
            found = dispatch_attention_fn(query, key, value)
        if found.shape != query.shape:
            raise RuntimeError(f"gave shape {list(found.shape)}")
    except Exception as error:  # each library has errors of its own
        if is_out_of_memory(error):
            raise
        return AttentionProbe(name, None, " ".join(str(error).split())[:200] or type(error).__name__)
    q, k, v = (one.double().transpose(1, 2) for one in (query, key, value))
    expected = ((q @ k.transpose(2, 3) / math.sqrt(_HEAD_DIM)).softmax(dim=-1) @ v).transpose(1, 2)
    difference = ((found.double() - expected).abs().max() / expected.abs().max()).item()
    if not difference <= _ROUNDINGS * torch.finfo(dtype).eps + _SUMS:
        return AttentionProbe(name, difference, f"its result is off by {difference:.1e} of the largest value")
    return AttentionProbe(name, difference)


def choose_attention(wanted: str, device: torch.device, dtype: torch.dtype) -> tuple[str, list[AttentionProbe]]:
    """The back-end to use, by diffusers' name, and the probes that led to it.

    Args:
        wanted: ``auto``, or one of ``ATTENTION_BACKENDS``.
        device: where the network computes.
        dtype: in which it computes.

    Raises:
        DeviceError: the wanted back-end does not work there.
    """
    probes = []
    for name in candidates(device) if wanted == "auto" else (wanted,):
        probes.append(probe_attention(name, device, dtype))
        if probes[-1].usable:
            return probes[-1].backend, probes
    found = "; ".join(probe.describe() for probe in probes)
    raise DeviceError(f"{ATTENTION_SETTING}={wanted} does not work on {device} in {dtype} ({found}); set it to auto")
