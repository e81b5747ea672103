"""Speed options of a loaded network: FP8 products, the attention back-end, compiled blocks.

See ``speed_options`` for the options, and ``network.activation_cache`` for what is computed once.
"""

import importlib.util
import logging
import os
import shutil
from collections.abc import Iterable

import torch
from diffusers.models.attention_dispatch import AttentionBackendName

from libs.one_to_all.network import OneToAllAttention, OneToAllTransformer3DModel, choose_attention
from libs.one_to_all.speed_options import SpeedOptions
from libs.one_to_all.weights.fp8 import compute_in_fp8

_RECOMPILATIONS = 32
"""Compilations of a block: chunk lengths, known frames, with and without control features; torch gives up after 8."""

COMPILE_SETTING = "ONE_TO_ALL_COMPILE"

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
        reason = why_not_compiled(device)
        if reason is None:
            compile_blocks(transformer)
        lines.append(
            "repeated blocks are compiled when they first run"
            if reason is None
            else f"repeated blocks are NOT compiled, as {COMPILE_SETTING} asks: {reason}"
        )
    for line in lines:
        _logger.info("%s", line)
    return lines


def why_not_compiled(device: torch.device) -> str | None:
    """What this machine lacks for compiling; None if nothing. Found out here, as torch says it when a clip is made.

    Triton's kernels for CUDA need a C compiler for the few lines that launch them, and kernels for the CPU a C++ one.
    """
    if device.type == "cuda":
        if importlib.util.find_spec("triton") is None:
            return "the package triton is not installed; wheels of torch for CUDA on Linux bring it"
        return _no_compiler("CC", ("gcc", "clang", "cc"), "apt-get install gcc libc6-dev")
    return _no_compiler("CXX", ("g++", "clang++", "c++"), "apt-get install g++")


def _no_compiler(variable: str, names: Iterable[str], command: str) -> str | None:
    named = os.environ.get(variable)
    if named is not None:
        return None if shutil.which(named) else f"{variable}={named} is not there; install it, or unset {variable}"
    if any(shutil.which(name) for name in names):
        return None
    return f"none of the compilers {', '.join(names)} is there; `{command}`"


def compile_blocks(transformer: OneToAllTransformer3DModel) -> None:
    """Compile the repeated blocks when they first run, and again for other kinds of input."""
    torch._dynamo.config.recompile_limit = max(torch._dynamo.config.recompile_limit, _RECOMPILATIONS)
    transformer.compile_repeated_blocks(fullgraph=False)
