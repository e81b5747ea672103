"""Context parallelism (Ulysses): ranks split the tokens of each pass, by diffusers' means and the network's plan.

The main stream and the control branch hold a part of the tokens on each rank; for self attention the ranks exchange
tokens for heads and back. Text, reference features and time embeddings are whole on every rank, so attention to them
needs no exchange. Added to what diffusers does: numbers of tokens that gloo ranks do not divide, ranks on a CPU, and
choosing an attention back-end that can exchange. See ``_cp_plan`` of ``network.transformer`` for the tensors that are
split.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as dist
from diffusers import ContextParallelConfig
from diffusers.hooks import HookRegistry
from diffusers.hooks.context_parallel import _CONTEXT_PARALLEL_OUTPUT_HOOK_TEMPLATE
from diffusers.hooks.hooks import ModelHook
from diffusers.models.attention_dispatch import AttentionBackendName, _AttentionBackendRegistry
from torch import nn
from torch.distributed.device_mesh import DeviceMesh

from libs.errors import DeviceError, SettingsError
from libs.one_to_all.network import OneToAllTransformer3DModel, candidates, choose_attention
from libs.one_to_all.speed_options import ATTENTION_SETTING

_GATHERED_MODULE = "proj_out"


class ContextParallel:
    """Splits the tokens of a network with the same network on other ranks.

    Args:
        transformer: is changed.
        mesh: has the dimensions ``ring`` (of size 1) and ``ulysses``, and possibly others.

    Every forward needs :meth:`expect_tokens` with its count of tokens before it, on all ranks alike.
    """

    def __init__(self, transformer: OneToAllTransformer3DModel, mesh: DeviceMesh) -> None:
        self._group = mesh.get_group("ulysses")
        self._degree = dist.get_world_size(self._group)
        self._heads: int = transformer.config.num_attention_heads
        self._patch_size: tuple[int, int, int] = transformer.config.patch_size
        self._tokens = 0
        self._config = ContextParallelConfig(ulysses_degree=self._degree, mesh=mesh)
        with _at_least_one_accelerator():
            transformer.enable_parallelism(config=self._config)
        registry = HookRegistry.check_if_exists_or_initialize(transformer.get_submodule(_GATHERED_MODULE))
        name = _CONTEXT_PARALLEL_OUTPUT_HOOK_TEMPLATE.format(_GATHERED_MODULE)
        registry.remove_hook(name, recurse=False)
        registry.register_hook(_GatherTokens(self), name)

    def expect_tokens(self, latents_shape: torch.Size) -> None:
        """Prepare for forwards of latents of this shape, [B, C, F, h, w]; the prefix adds a frame of tokens."""
        _, _, frames, height, width = latents_shape
        _, patch_height, patch_width = self._patch_size
        self._tokens = (frames + 1) * (height // patch_height) * (width // patch_width)
        # Costs an exchange of sizes per attention, so only where it is needed; the flag is read at every use.
        self._config.ulysses_anything = bool(self._tokens % self._degree or self._heads % self._degree)

    def gather(self, part: torch.Tensor) -> torch.Tensor:
        """Join all ranks' parts [B, n, D] of the stream to the whole stream [B, N, D], on every rank.

        Padded to the longest part, since the ranks' parts differ by a token at most, and gloo gathers equal sizes only.
        """
        longest = -(-self._tokens // self._degree)
        padded = nn.functional.pad(part, (0, 0, 0, longest - part.shape[1])).contiguous()
        parts = [torch.empty_like(padded) for _ in range(self._degree)]
        dist.all_gather(parts, padded, group=self._group)
        # The first ranks have the longer parts (``Tensor.tensor_split``).
        lengths = [(self._tokens + self._degree - 1 - rank) // self._degree for rank in range(self._degree)]
        return torch.cat([one[:, :length] for one, length in zip(parts, lengths, strict=True)], dim=1)


class _GatherTokens(ModelHook):
    """Gathers the whole stream after a module, in place of diffusers' hook of the same purpose."""

    def __init__(self, shared: ContextParallel) -> None:
        super().__init__()
        self._shared = shared

    def post_forward(self, _module: nn.Module, output: torch.Tensor) -> torch.Tensor:
        return self._shared.gather(output)


def attention_for_context_parallel(wanted: str, device: torch.device, dtype: torch.dtype) -> str:
    """Choose the attention for split tokens: of those that work, the first that can exchange.

    Args:
        wanted: ``auto``, or one of ``ATTENTION_BACKENDS``.
        device: where the network computes.
        dtype: in which it does.

    Raises:
        SettingsError: the one that is wanted cannot.
        DeviceError: it does not work on the device.
    """
    for name in candidates(device) if wanted == "auto" else (wanted,):
        try:
            backend, _ = choose_attention(name, device, dtype)
        except DeviceError:
            if wanted != "auto":
                raise
            continue
        if _AttentionBackendRegistry._is_context_parallel_available(AttentionBackendName(backend)):
            return name
    raise SettingsError(
        f"{ATTENTION_SETTING}={wanted} does not work where ranks split tokens: set it to auto, cudnn or native, or "
        "divide the guidance passes only"
    )


@contextmanager
def _at_least_one_accelerator() -> Iterator[None]:
    """Pretend that there is an accelerator: the library divides by their number, and a CPU has none."""
    counted = torch.accelerator.device_count
    torch.accelerator.device_count = lambda: max(1, counted())
    try:
        yield
    finally:
        torch.accelerator.device_count = counted
