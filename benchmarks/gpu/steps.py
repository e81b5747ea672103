"""Denoising steps of the whole 14B at the usual sizes: time, share of the card, memory against the plan's estimate.

What does not belong here: ways of computing a step (``variants``), memory plans (``memory``).
"""

from functools import cache

import torch
from measuring.ceilings import copied_bytes, product_flops
from measuring.part_run import H100_FLOPS, PartRun
from measuring.record import Figure
from measuring.subject import Subject, make_subject, make_transformer

from libs.one_to_all.compilation import apply_speed
from libs.one_to_all.memory.cost import pass_cost, step_flops
from libs.one_to_all.memory.estimates import bytes_between_passes, sampling_bytes
from libs.one_to_all.network import ActivationCache
from libs.one_to_all.speed_options import SpeedOptions

_GOAL_SHARE, _GOAL_RATIO = 0.65, 1.5


class _Steps:
    def __init__(self, run: PartRun) -> None:
        self.run = run
        self.ceiling = product_flops(run.clock, run.dtype)

    @cache  # noqa: B019 - lives as long as the process
    def _transformer(self) -> tuple[torch.nn.Module, str]:
        transformer = make_transformer(self.run.network(), self.run.device, self.run.dtype)
        lines = apply_speed(transformer, SpeedOptions(), self.run.device, self.run.dtype)
        return transformer, lines[0].partition(" (")[0]

    def subject(self, size: tuple[int, int]) -> Subject:
        run = self.run
        return make_subject(run.network(), run.grid(size), run.device, run.dtype, self._transformer()[0])

    def ceilings(self) -> list[Figure]:
        """Of the card."""
        return [
            Figure("matrix product of 8192 x 8192", self.ceiling / 1e12, "TFLOP/s"),
            Figure("copy on the device, read and written", copied_bytes(self.run.clock) / 1e9, "GB/s"),
        ]

    def step(self, size: tuple[int, int]) -> list[Figure]:
        """As the engine makes it: its own choice of attention, nothing compiled."""
        run, subject = self.run, self.subject(size)
        activations, name = ActivationCache(), f"{size[0]}x{size[1]}"
        peak = run.clock.peak(lambda: subject.step(activations))  # the first: with what clips and chunks share
        estimate = sampling_bytes(subject.network, subject.grid)
        estimate += bytes_between_passes(subject.network, subject.grid, block_cache=False)
        timing = run.clock.timing(lambda: subject.step(activations), warm=True)
        flops = step_flops(pass_cost(subject.network, subject.grid), subject.guidance)
        speed = flops / run.clock.undisturbed(timing)
        goal = run.goal(_GOAL_SHARE)
        return [
            Figure(f"step of three passes, {name}", timing.median, "s", note=self._transformer()[1]),
            Figure(f"… of the card's measured matrix product, {name}", speed / self.ceiling, "share", goal),
            Figure(f"… of 989 TFLOP/s, {name}", speed / H100_FLOPS, "share", goal),
            Figure(
                f"memory beside the weights, of the plan's estimate, {name}",
                peak / estimate,
                "share",
                run.goal(1.0),
                at_most=True,
                note=f"{peak / 1e9:.2f} GB",
            ),
        ]

    def plain(self) -> list[Figure]:
        """Everything computed in each pass, rotation in float64, nothing fused, against ours, in turn."""
        run, size = self.run, self.run.sizes[0]
        subject, activations = self.subject(size), ActivationCache()
        timings = run.clock.timings({"plain": subject.plain_step, "ours": lambda: subject.step(activations)})
        plain, ours = (run.clock.undisturbed(timings[name]) for name in ("plain", "ours"))
        what = f"plain step over ours, {size[0]}x{size[1]}"
        return [Figure(what, plain / ours, "times", run.goal(_GOAL_RATIO), note=f"{plain:.2f} s plain")]


def take_figures(run: PartRun) -> None:
    """Measure and record."""
    steps = _Steps(run)
    run.record.take("ceilings", steps.ceilings)
    run.record.take("step at the first size", lambda: steps.step(run.sizes[0]))
    run.record.take("plain", steps.plain)
    for size in run.sizes[1:]:
        run.record.take(f"step at {size[0]}x{size[1]}", lambda: steps.step(size))  # noqa: B023 - called at once
