"""What was tried and is not part of the engine, because it brings (next to) nothing; measured so that this can be seen.

What does not belong here: anything the engine does.
"""

from collections.abc import Callable

import torch
from torch.nn import functional

from libs.one_to_all.network import ActivationCache, OneToAllAttention
from libs.one_to_all.network.modulation import TimeModulation, block_modulation
from measuring.clock import Clock
from measuring.subject import Subject


def measure_left_out(clock: Clock, subject: Subject) -> None:
    """Print each of them against what the engine does instead."""
    print("\nleft out" + f"{'engine s':>36}{'instead s':>12}{'ratio of processor time':>26}")
    _fused_projections(clock, subject)
    _batched_passes(clock, subject)
    _modulation_tables(clock, subject)


def _fused_projections(clock: Clock, subject: Subject) -> None:
    """One product for query, key and value, its weights laid side by side beforehand."""
    block = subject.transformer.blocks[0]
    attention = block.attn1
    assert isinstance(attention, OneToAllAttention)
    width = attention.to_q.in_features
    layers = (attention.to_q, attention.to_k, attention.to_v)
    weight = torch.cat([layer.weight for layer in layers])
    bias = torch.cat([layer.bias for layer in layers])
    for label, tokens in (("main", subject.grid.tokens), ("reference", subject.grid.per_frame)):
        states = torch.randn(1, tokens, width, device=clock.device).to(weight.dtype)
        _compare(
            clock,
            f"fused q, k, v ({label}, {tokens} tokens)",
            lambda states=states: [layer(states) for layer in layers],
            lambda states=states: functional.linear(states, weight, bias).chunk(3, dim=-1),
        )


def _batched_passes(clock: Clock, subject: Subject) -> None:
    """Two passes as a batch of two, instead of one after the other."""

    one, two = _passes(subject, 1), _passes(subject, 2)
    _compare(clock, "two passes as a batch", lambda: (one(), one()), two)


def _passes(subject: Subject, batch: int) -> Callable[[], object]:
    """A call for ``batch`` conditional passes at once, without what is remembered for a step or longer."""

    def repeated(tensor: torch.Tensor) -> torch.Tensor:
        return tensor.repeat(batch, *(1 for _ in tensor.shape[1:]))

    clip, activations = subject.clip, ActivationCache()
    inputs = [subject.latents, subject.timestep, clip.prompt, subject.chunk.poses]
    inputs = [repeated(one) for one in (*inputs, clip.image_latents, clip.reference_pose)]
    return lambda: subject.transformer(*inputs, activations=activations, return_dict=False)[0]


def _modulation_tables(clock: Clock, subject: Subject) -> None:
    """All there is to gain from tables made beforehand for the known timesteps."""
    transformer, activations = subject.transformer, ActivationCache()

    def values() -> None:
        _, projection = transformer.condition_embedder(subject.timestep, subject.latents.dtype)
        _, of_reference = transformer.refextractor.condition_embedder(subject.timestep, subject.latents.dtype)
        for module in transformer.modules():
            table = getattr(module, "scale_shift_table", None)
            if table is not None and table.shape[1] == projection.shape[1]:
                for _ in subject.guidance.passes:
                    block_modulation(table, TimeModulation(projection))
        block_modulation(transformer.blocks[0].scale_shift_table, TimeModulation(of_reference))

    timings = clock.timings({"step": lambda: subject.step(activations), "values": values})
    step, share = timings["step"], timings["values"].processor_median / timings["step"].processor_median
    print(
        f"{'modulation values of a step':<34}{step.median:>10.4f}{timings['values'].median:>12.4f}{share:>12.2%} of it"
    )


def _compare(clock: Clock, label: str, engine: Callable[[], object], instead: Callable[[], object]) -> None:
    timings = clock.timings({"engine": engine, "instead": instead})
    one, other = timings["engine"], timings["instead"]
    ratio = one.processor_median / other.processor_median
    print(f"{label:<34}{one.median:>10.4f}{other.median:>12.4f}{ratio:>26.2f}", flush=True)
