"""The ways of making one denoising step that the engine's benchmark compares.

What does not belong here: timing (``clock``), the networks (``subject``), the plain way itself (``plain.network``).
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace

import torch
from plain.network import nothing_fused, plain_rotation

from libs.one_to_all.memory.cost import pass_cost, step_flops, weight_bytes
from libs.one_to_all.network import ActivationCache, OneToAllTransformer3DModel, probe_attention
from libs.one_to_all.speed_options import ATTENTION_BACKENDS
from libs.one_to_all.weights.fp8 import compute_in_fp8
from measuring.clock import Clock
from measuring.subject import Setting, Subject, attention_backend, compiled_blocks, fp8_copy, fp8_products

_FP8_SHARE = 0.8
"""Of the bytes in bfloat16: the copy takes 0.5, intermediate results the rest."""


@dataclass(frozen=True)
class Variant:
    """One way of making a step with ``transformer``: ``setting`` is in force while ``step`` runs."""

    name: str
    step: Callable[[], torch.Tensor]
    flops: int
    transformer: OneToAllTransformer3DModel
    setting: Setting = nullcontext

    def run(self) -> torch.Tensor:
        """The velocity."""
        with self.setting():
            return self.step()


def exact_variants(clock: Clock, subject: Subject, *, compiled: bool) -> list[Variant]:
    """The plain one first, then ours, ours with one thing changed, and other back-ends."""
    cost, activations = pass_cost(subject.network, subject.grid), ActivationCache()
    flops = step_flops(cost, subject.guidance)

    def step() -> torch.Tensor:
        return subject.step(activations)

    transformer = subject.transformer
    variants = [
        Variant("plain", subject.plain_step, len(subject.guidance.passes) * cost.total, transformer),
        Variant("ours", step, flops, transformer),
        Variant("ours, nothing fused", step, flops, transformer, nothing_fused),
        Variant("ours, rotation in float64", step, flops, transformer, lambda: plain_rotation(transformer)),
        Variant(
            "ours, attention not shared",
            lambda: subject.step(activations, share_attention=False),
            flops + cost.first_attention,
            transformer,
        ),
    ]
    for name in ATTENTION_BACKENDS:
        probe = probe_attention(name, clock.device, subject.latents.dtype)
        print(f"attention {probe.describe()}")
        if probe.usable and name != "native":
            setting = attention_backend(transformer, probe.backend)
            variants.append(Variant(f"ours, attention {name}", step, flops, transformer, setting))
    if compiled:
        started = time.perf_counter()
        variants.append(compiled_variant(variants[1]))
        variants[-1].run()
        print(f"compiling the blocks took {time.perf_counter() - started:.0f} s")
    return variants


def compiled_variant(one: Variant) -> Variant:
    """The same with its network's blocks compiled."""
    blocks = compiled_blocks(one.transformer)

    @contextmanager
    def both() -> Iterator[None]:
        with one.setting(), blocks():
            yield

    return replace(one, name=f"{one.name}, compiled", setting=both)


def fp8_variants(clock: Clock, subject: Subject, *, compiled: bool) -> list[Variant]:
    """The same weights rounded to FP8: de-quantized as layers compute, and multiplied as they are."""
    if clock.device.type == "cuda" and torch.cuda.mem_get_info(clock.device)[0] < _FP8_SHARE * weight_bytes(
        subject.network
    ):
        print("FP8 is left out: a copy of the weights does not fit beside them")
        return []
    flops = step_flops(pass_cost(subject.network, subject.grid), subject.guidance)
    other = replace(subject, transformer=fp8_copy(subject.transformer))
    print(compute_in_fp8(other.transformer, other.transformer._no_split_modules, clock.device))
    products, activations = fp8_products(other.transformer), ActivationCache()

    def step() -> torch.Tensor:
        return other.step(activations)

    variants = [
        Variant("FP8 weights, de-quantized", step, flops, other.transformer),
        Variant("FP8 compute", step, flops, other.transformer, products),
    ]
    if compiled and clock.device.type == "cuda":  # a CPU compiles for a minute, and gains nothing
        variants.append(compiled_variant(variants[-1]))
    return variants
