"""Speed options of a loaded network: FP8 products, the attention back-end, compiled blocks.

See ``speed_options`` for the options, and ``network.activation_cache`` for what is computed once.
"""

import logging

import torch
from diffusers.models.attention_dispatch import AttentionBackendName

from libs.one_to_all.network import OneToAllAttention, OneToAllTransformer3DModel, choose_attention
from libs.one_to_all.speed_options import SpeedOptions
from libs.one_to_all.weights.fp8 import compute_in_fp8

_RECOMPILATIONS = 32
"""Compilations of a block: chunk lengths, known frames, with and without control features; torch gives up after 8."""

_logger = logging.getLogger(__name__)


def apply_speed(
    transformer: OneToAllTransformer3DModel, options: SpeedOptions, device: torch.device, dtype: torch.dtype
) -> list[str]:
    """Apply speed options to ``transformer``, which computes on ``device`` in ``dtype``, once after loading.

    Returns:
        What was chosen, a line each; the same lines go to the log.

    Raises:
        DeviceError: the attention that is asked for does not work there.
    """
    lines = []
    if options.fp8_compute:
        lines.append(compute_in_fp8(transformer, transformer._no_split_modules, device))
    backend, probes = choose_attention(options.attention, device, dtype)
    for module in transformer.modules():
        if isinstance(module, OneToAllAttention):
            # Not for the whole model: that would change what networks on other devices use by default, too.
            module.processor._attention_backend = AttentionBackendName(backend)
    lines.append(f"attention by {backend} ({'; '.join(probe.describe() for probe in probes)})")
    if options.compile_blocks:
        compile_blocks(transformer)
        lines.append("repeated blocks are compiled when they first run")
    for line in lines:
        _logger.info("%s", line)
    return lines


def compile_blocks(transformer: OneToAllTransformer3DModel) -> None:
    """Compile the repeated blocks when they first run, and again for other kinds of input."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _RECOMPILATIONS)
    transformer.compile_repeated_blocks(fullgraph=False)
