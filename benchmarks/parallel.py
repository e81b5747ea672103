"""A denoising step on several devices against one, for each way of dividing it.

    OMP_NUM_THREADS=1 python benchmarks/parallel.py                          small network, ranks on CPU cores
    python benchmarks/parallel.py --device cuda --plans guidance:3 context:2,guidance:3     14B, random weights

Every plan runs in processes of its own, one plan after the other, round after round. Printed are the seconds of a step
(of the fastest chunks: a shared machine only adds), on a CPU the processor time of the busiest rank (waiting is not in
it, so other processes hardly disturb it), and both as ratios to one process; beside them what is counted: the gain
without any loss, and the bytes a rank receives. What does not belong here: a step in one process (``engine.py``),
whether results are equal (tests).
"""

import argparse
import logging
import os
import platform
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import torch
import torch.distributed as dist
from measuring.subject import Subject, make_subject
from torch import multiprocessing

from libs.model_repo.layout import RepositoryLayout
from libs.model_repo.variants import NetworkConfig, get_variant
from libs.one_to_all.device import default_dtype, resolve_device
from libs.one_to_all.memory.cost import TokenGrid, pass_cost, step_flops
from libs.one_to_all.parallel.cost import busiest_rank_bytes, busiest_rank_flops
from libs.one_to_all.parallel.denoising import ParallelDenoising
from libs.one_to_all.parallel.engine import devices_of_ranks
from libs.one_to_all.parallel.messages import LEADER, RankSetup
from libs.one_to_all.parallel.plan import ONE_PROCESS, ParallelPlan
from libs.one_to_all.parallel.rank_process import join_ranks
from libs.one_to_all.sampling.denoise import ChunkTask
from libs.one_to_all.sampling.guidance import plan_guidance
from libs.one_to_all.sampling.schedule import build_scheduler
from libs.one_to_all.speed_options import DEFAULT_SPEED

SMALL = {"num_attention_heads": 4, "num_layers": 4, "ffn_dim": 1024, "num_reference_layers": 3, "text_dim": 256}
"""The network on a CPU."""


@dataclass(frozen=True)
class Task:
    """What is timed."""

    network: NetworkConfig
    grid: TokenGrid
    devices: tuple[str, ...]
    plan: ParallelPlan
    steps: int


class Chunk(NamedTuple):
    """Wall and processor time of a chunk on one rank."""

    seconds: float
    processor: float


Chunks = list[tuple[Chunk, Chunk]]
"""Per rank: a chunk of one step, and one of more."""


@dataclass(frozen=True)
class Timing:
    """Of one step: wall time of the leader, and processor time of the busiest rank."""

    seconds: float
    processor: float

    @classmethod
    def of(cls, rounds: Sequence[Chunks], steps: int) -> "Timing":
        """The least disturbed of both chunks, and what a step adds."""
        added = []
        for rank in range(len(rounds[0])):
            one, more = (
                Chunk(*(min(times) for times in zip(*(chunks[rank][which] for chunks in rounds), strict=True)))
                for which in range(2)
            )
            added.append(Chunk(*((b - a) / steps for a, b in zip(one, more, strict=True))))
        return cls(added[LEADER].seconds, max(rank.processor for rank in added))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--plans", nargs="+", default=["guidance:2", "context:2", "guidance:3"])
    parser.add_argument("--variant", default="14b", help="whose size is taken on CUDA")
    parser.add_argument("--height", type=int)
    parser.add_argument("--width", type=int)
    parser.add_argument("--frames", type=int)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    device = resolve_device(arguments.device)
    small = device.type != "cuda"
    size = (arguments.height or (128 if small else 480), arguments.width or (192 if small else 832))
    grid = TokenGrid.of(*size, arguments.frames or (17 if small else 81))
    network = get_variant(arguments.variant).network
    network = replace(network, **SMALL) if small else network
    plans = [ONE_PROCESS, *map(ParallelPlan.parse, arguments.plans)]
    tasks = [Task(network, grid, tuple(devices_of_ranks(device, plan)), plan, arguments.steps) for plan in plans]
    name = torch.cuda.get_device_name(device) if not small else f"{os.cpu_count()} CPU cores, one thread per rank"
    print(f"{datetime.now(UTC):%Y-%m-%d}, {name}, torch {torch.__version__}, {platform.machine()}")
    print(f"{network.num_attention_heads} heads, {network.num_layers} blocks, {grid.tokens} tokens, 3 passes a step\n")
    rounds: dict[ParallelPlan, list[Chunks]] = {plan: [] for plan in plans}
    for _ in range(arguments.rounds):
        for task in tasks:
            rounds[task.plan].append(run(task))
    print_table(tasks, {plan: Timing.of(of, arguments.steps) for plan, of in rounds.items()}, small)


def run(task: Task) -> Chunks:
    """One plan in new processes."""
    on_cpu = task.devices[0] == "cpu"
    # Forking spares the ranks on a CPU the import; a process that has touched CUDA cannot be forked.
    context = multiprocessing.get_context("fork" if on_cpu else "spawn")
    answers = context.SimpleQueue()
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.start_processes(
            measure, (task, folder, answers), nprocs=task.plan.ranks, start_method=context.get_start_method()
        )
    return answers.get()


def measure(rank: int, task: Task, folder: str, answers: "multiprocessing.SimpleQueue[Chunks]") -> None:
    """One rank: a chunk of one step, and one of more; what they differ by are steps alone."""
    logging.getLogger("diffusers").setLevel(logging.ERROR)
    device = torch.device(task.devices[rank])
    if device.type == "cpu":
        torch.set_num_threads(1)
    layout = RepositoryLayout(get_variant("sandbox"), Path(), Path(), Path())  # nothing is read from it
    store = Path(folder, "store")
    mesh = join_ranks(RankSetup(rank, task.plan, layout, str(device), "", None, DEFAULT_SPEED, None, store), device)
    subject = make_subject(task.network, task.grid, device, default_dtype(device))
    shared = ParallelDenoising.on_mesh(mesh, subject.transformer, device)
    _chunk(shared, subject, rank, 1)  # warm-up
    one, more = (_chunk(shared, subject, rank, steps) for steps in (1, 1 + task.steps))
    all_ranks: Chunks = [(one, more)] * task.plan.ranks
    dist.all_gather_object(all_ranks, (one, more))
    if rank == LEADER:
        answers.put(all_ranks)
    dist.barrier()
    dist.destroy_process_group()


def _chunk(shared: ParallelDenoising, subject: Subject, rank: int, steps: int) -> Chunk:
    """A chunk of so many steps."""
    dist.barrier()
    started, worked = time.perf_counter(), time.process_time()
    if rank == LEADER:
        for _ in shared.denoise(
            subject.transformer,
            build_scheduler(),
            ChunkTask(subject.guidance, subject.clip, subject.chunk, subject.latents, steps),
        ):
            pass
    else:
        shared.follow(subject.transformer, build_scheduler())
    if subject.latents.device.type == "cuda":
        torch.cuda.synchronize()
    return Chunk(time.perf_counter() - started, time.process_time() - worked)


def print_table(tasks: Sequence[Task], timings: dict[ParallelPlan, Timing], on_cpu: bool) -> None:
    """One row per plan."""
    print(f"{'plan':<24}{'ranks':>6}{'seconds':>10}{'ratio':>8}{'processor':>11}{'ratio':>8}", end="")
    print(f"{'counted':>10}{'MB received':>13}")
    guidance = plan_guidance(2.0, 1.5)
    for task in tasks:
        plan, timing, alone = task.plan, timings[task.plan], timings[ONE_PROCESS]
        flops = step_flops(pass_cost(task.network, task.grid), guidance)
        gain = flops / busiest_rank_flops(plan, task.network, task.grid, guidance)
        received = busiest_rank_bytes(plan, task.network, task.grid, guidance, 4 if on_cpu else 2) / 1e6
        processor = (
            f"{timing.processor:>11.3f}{alone.processor / timing.processor:>8.2f}" if on_cpu else f"{'-':>11}{'-':>8}"
        )
        print(
            f"{plan!s:<24}{plan.ranks:>6}{timing.seconds:>10.3f}{alone.seconds / timing.seconds:>8.2f}{processor}",
            end="",
        )
        print(f"{gain:>10.2f}{received:>13.1f}")


if __name__ == "__main__":
    main()
