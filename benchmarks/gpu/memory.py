"""The transformer of the 14B by memory plan: peaks against the plan's estimates, and the time of a step.

What does not belong here: text encoder and VAE (``beside``), whether results are equal (``agreement``, tests).
"""

import gc
import time
from collections.abc import Iterator

import torch
from measuring.part_run import PartRun
from measuring.record import Figure
from measuring.subject import Subject, fp8_copy, make_subject

from libs.one_to_all.compilation import apply_speed
from libs.one_to_all.memory.cost import block_bytes, weight_bytes
from libs.one_to_all.memory.estimates import bytes_between_passes, sampling_bytes
from libs.one_to_all.memory.offload import BlockOffload
from libs.one_to_all.network import ActivationCache
from libs.one_to_all.speed_options import SpeedOptions

_GOAL_OFFLOAD = 1.25


class _Plans:
    def __init__(self, run: PartRun) -> None:
        self.run, self.size = run, run.sizes[0]
        self.resident_seconds: float | None = None

    def all(self) -> Iterator[Figure]:
        """Resident, blocks on the host, FP8 weights: one after the other on the same weights."""
        run = self.run
        subject = make_subject(run.network(), run.grid(self.size), run.device, run.dtype)
        apply_speed(subject.transformer, SpeedOptions(), run.device, run.dtype)
        kept = bytes_between_passes(subject.network, subject.grid, block_cache=False)
        between = sampling_bytes(subject.network, subject.grid) + kept
        yield from self._measured("resident", subject, between, weight_bytes(subject.network))
        yield from self._library_bytes()
        started = time.perf_counter()
        offload = BlockOffload(subject.transformer, run.device)
        yield Figure("moving all blocks to page-locked memory", time.perf_counter() - started, "s")
        one, blocks = block_bytes(subject.network)
        moving = min(2 * one, blocks)
        yield from self._measured(
            "blocks on the host", subject, between + moving, weight_bytes(subject.network) - blocks
        )
        offload.remove()
        del offload
        in_fp8 = fp8_copy(subject.transformer)
        grid, network = subject.grid, subject.network
        del subject
        subject = make_subject(network, grid, run.device, run.dtype, in_fp8)
        apply_speed(in_fp8, SpeedOptions(), run.device, run.dtype)
        width = network.num_attention_heads * network.attention_head_dim
        dequantized = 2 * width * max(width, network.ffn_dim)
        yield from self._measured("FP8 weights", subject, between + dequantized, weight_bytes(network, fp8=True))

    def _measured(self, name: str, subject: Subject, beside: int, weights: int) -> Iterator[Figure]:
        """Step time, what a step adds to the weights at its peak, and what the caching allocator took in all."""
        clock, activations, run = self.run.clock, ActivationCache(), self.run
        gc.collect()
        if run.device.type == "cuda":
            torch.cuda.empty_cache()  # what the placement before left reserved
        peak = clock.peak(lambda: subject.step(activations))
        timing = clock.timing(lambda: subject.step(activations), warm=True)
        seconds = clock.undisturbed(timing)
        yield Figure(f"step, {name}, {self.size[0]}x{self.size[1]}", timing.median, "s")
        if self.resident_seconds is None:
            self.resident_seconds = seconds
        elif "host" in name:
            ratio = seconds / self.resident_seconds
            yield Figure(f"… of resident, {name}", ratio, "times", run.goal(_GOAL_OFFLOAD), at_most=True)
        goal, note = run.goal(1.0), f"{peak / 1e9:.2f} GB"
        yield Figure(f"memory beside the weights, of its estimate, {name}", peak / beside, "share", goal, True, note)
        if run.device.type == "cuda":
            whole, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
            note = f"{whole / 1e9:.2f} GB of {(weights + beside) / 1e9:.2f}"
            share = whole / (weights + beside)
            yield Figure(f"all memory at its peak, of its estimate, {name}", share, "share", goal, True, note)
            share = reserved / whole
            yield Figure(f"reserved by torch, of what was used, {name}", share, "share", run.goal(1.05), True)

    def _library_bytes(self) -> Iterator[Figure]:
        """What the driver and libraries hold beside torch's own memory."""
        if self.run.device.type == "cuda":
            free, total = torch.cuda.mem_get_info(self.run.device)
            held = (total - free - torch.cuda.memory_reserved()) / 1e9
            yield Figure(
                "held by driver and libraries", held, "GB", self.run.goal(1.0), True, "if the card is ours alone"
            )


def take_figures(run: PartRun) -> None:
    """Measure and record."""
    plans = _Plans(run)
    run.record.take("plans", plans.all)
