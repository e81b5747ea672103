"""Ways of making a step, of a network with the 14B's blocks but fewer of them: back-ends, compiled, FP8.

Each way is timed in turn with what it is compared to. All blocks of a kind cost the same, so a ratio of a few blocks is
that of all. What does not belong here: shares of the card at full size (``steps``).
"""

import time

import torch
from measuring.part_run import PartRun
from measuring.record import Figure
from measuring.subject import make_subject
from measuring.variants import Variant, compiled_variant, exact_variants, fp8_variants

from libs.one_to_all.network import choose_attention

_LAYERS = 6
_GOAL_FP8 = 1.3


def take_figures(run: PartRun) -> None:
    """Measure and record."""
    subject = make_subject(run.network(_LAYERS), run.grid(run.sizes[0]), run.device, run.dtype)
    plain, ours, *others = exact_variants(run.clock, subject, compiled=False)
    for one in (plain, *others):
        run.record.take(one.name, lambda: _against(run, ours, one, "ours with torch's attention"))  # noqa: B023
    in_fp8 = fp8_variants(run.clock, subject, compiled=False)
    backend, _ = choose_attention("auto", run.device, run.dtype)
    for transformer in (subject.transformer, *(one.transformer for one in in_fp8[:1])):
        transformer.set_attention_backend(backend)
    for one in in_fp8:
        run.record.take(one.name, lambda: _against(run, ours, one, "bfloat16", run.goal(_GOAL_FP8)))  # noqa: B023
    if run.device.type == "cuda":  # a CPU compiles for minutes
        run.record.take("compiled", lambda: _compiled(run, ours, in_fp8))


def _against(run: PartRun, base: Variant, one: Variant, name: str, goal: float | None = None) -> list[Figure]:
    expected, found = base.run(), one.run()
    difference = ((found - expected).norm() / expected.norm()).item()
    timings = run.clock.timings({"base": base.run, "one": one.run}, warm=True)
    seconds = {name: run.clock.undisturbed(timing) for name, timing in timings.items()}
    note = f"{seconds['base']:.2f} and {seconds['one']:.2f} s; velocity differs by {difference:.1e}"
    goal = goal if "compute" in one.name else None
    return [Figure(f"{one.name}: times as fast as {name}", seconds["base"] / seconds["one"], goal=goal, note=note)]


def _compiled(run: PartRun, ours: Variant, in_fp8: list[Variant]) -> list[Figure]:
    """Compiled against not, then FP8 compute compiled against bfloat16 compiled."""
    started = time.perf_counter()
    compiled = compiled_variant(ours)
    compiled.run()
    torch.cuda.synchronize()
    figures = [Figure("compiling the blocks", time.perf_counter() - started, "s", note="and one step")]
    figures += _against(run, ours, compiled, "ours")
    for one in in_fp8[-1:]:
        in_fp8_compiled = compiled_variant(one)
        figures += _against(run, compiled, in_fp8_compiled, "bfloat16 compiled", run.goal(_GOAL_FP8))
    return figures
