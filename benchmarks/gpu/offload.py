"""Blocks on the host, in page-locked memory, against blocks on the card: plain weights, and weights in FP8.

Twelve main blocks of the 14B's size stand for its forty: all blocks of a kind cost the same, so ratios are those of
all. See ``memory`` for memory plans at full size.
"""

import time
from collections.abc import Iterator

import torch
from measuring.part_run import PartRun
from measuring.record import Figure
from measuring.subject import Subject, fp8_copy, make_subject

from libs.one_to_all.compilation import apply_speed
from libs.one_to_all.memory.offload import BlockOffload
from libs.one_to_all.network import ActivationCache
from libs.one_to_all.speed_options import SpeedOptions

_LAYERS = 12
_GOAL_STEP, _GOAL_RATE = 1.25, 25.0
_STEPS = 3
"""That are compared: the first learns the order of blocks, the others copy ahead."""


class _Offloads:
    def __init__(self, run: PartRun) -> None:
        self.run, self.size = run, run.sizes[0]
        self.subject = make_subject(run.network(_LAYERS), run.grid(self.size), run.device, run.dtype)
        apply_speed(self.subject.transformer, SpeedOptions(), run.device, run.dtype)

    def plain(self) -> Iterator[Figure]:
        """Weights in the dtype of the run."""
        yield from self._against_resident(self.subject, "plain weights")

    def fp8(self) -> Iterator[Figure]:
        """The same weights in FP8."""
        network = fp8_copy(self.subject.transformer)
        subject = make_subject(self.subject.network, self.subject.grid, self.run.device, self.run.dtype, network)
        apply_speed(network, SpeedOptions(), self.run.device, self.run.dtype)
        yield from self._against_resident(subject, "FP8 weights")

    def _against_resident(self, subject: Subject, name: str) -> Iterator[Figure]:
        """Results, the copies' speed, the time of a step; the blocks are on the card again afterwards."""
        run, activations = self.run, ActivationCache()
        expected = subject.step(activations)
        resident = run.clock.undisturbed(run.clock.timing(lambda: subject.step(activations), warm=True))
        started = time.perf_counter()
        offload = BlockOffload(subject.transformer, run.device)
        moving = time.perf_counter() - started
        try:
            different = max(float((subject.step(activations) != expected).float().mean()) for _ in range(_STEPS))
            yield Figure(f"values that differ in {_STEPS} steps, {name}", different, "share", 0.0, at_most=True)
            host = offload.host_bytes
            yield Figure(f"moving blocks there, {name}", host / moving / 1e9, "GB/s", note=f"{host / 1e9:.2f} GB")
            yield Figure(f"copies to the card, {name}", self._copied_bytes(offload) / 1e9, "GB/s", run.goal(_GOAL_RATE))
            timing = run.clock.timing(lambda: subject.step(activations), warm=True)
            ratio = run.clock.undisturbed(timing) / resident
            what = f"step over a resident one, {self.size[0]}x{self.size[1]}, {name}"
            yield Figure(what, ratio, "times", run.goal(_GOAL_STEP), True, f"{resident:.2f} s resident")
        finally:
            offload.remove()  # also for what is measured after an error

    def _copied_bytes(self, offload: BlockOffload) -> float:
        """Bytes per second of all blocks, one after the other, with nothing beside them."""
        blocks = offload.blocks
        buffer = torch.empty(max(block.byte_count for block in blocks), dtype=torch.uint8, device=self.run.device)

        def copy_all() -> None:
            for block in blocks:
                block.copy_to(buffer, non_blocking=True)

        seconds = min(self.run.clock.timing(copy_all).seconds)
        return sum(block.byte_count for block in blocks) / seconds


def take_figures(run: PartRun) -> None:
    """Measure and record."""
    offloads = _Offloads(run)
    run.record.take("blocks on the host", offloads.plain)
    run.record.take("FP8 blocks on the host", offloads.fp8)
