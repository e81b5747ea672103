"""Program: what ranks compute together against what one process computes; ``test_parallel_denoising`` runs it.

One process imports the libraries and computes the reference, then forks the ranks of every plan: that takes a fraction
of starting each of them anew. Prints one JSON object per plan.
"""

import json
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from torch import multiprocessing

from libs.model_repo.variants import get_variant
from libs.one_to_all.network import OneToAllTransformer3DModel
from libs.one_to_all.parallel.denoising import ParallelDenoising
from libs.one_to_all.parallel.messages import LEADER, RankSetup
from libs.one_to_all.parallel.plan import ParallelPlan
from libs.one_to_all.parallel.rank_process import join_ranks
from libs.one_to_all.sampling.denoise import ChunkConditions, ChunkTask, ClipConditions, denoise
from libs.one_to_all.sampling.guidance import plan_guidance
from libs.one_to_all.sampling.schedule import build_scheduler
from libs.one_to_all.speed_options import DEFAULT_SPEED

CPU = torch.device("cpu")
STEPS = 2


@dataclass(frozen=True)
class Case:
    """One chunk: latent frames and size, guidance, whether it goes on from known latents."""

    frames: int
    height: int
    width: int
    guidance: tuple[float, float]
    known: bool


CASES = (
    Case(3, 4, 4, (2.0, 1.5), False),  # 16 tokens
    Case(2, 6, 6, (2.0, 1.5), True),  # 27 tokens, which only 3 ranks divide; 18 of them are replaced
    Case(4, 2, 6, (2.0, 0.0), True),  # 15 tokens, two passes
    Case(2, 2, 14, (1.0, 0.0), False),  # 21 tokens, one pass: some ranks have none
)


def network(heads: int) -> OneToAllTransformer3DModel:
    """Random weights, biases and norms included; two control blocks, three reference features."""
    torch.manual_seed(0)
    sizes = {**asdict(get_variant("sandbox").network), "num_attention_heads": heads, "attention_head_dim": 24}
    sizes |= {"num_layers": 4, "num_control_layers": 2, "num_reference_layers": 2, "ffn_dim": 64}
    transformer = OneToAllTransformer3DModel(**sizes).eval().requires_grad_(False)
    for name, parameter in transformer.named_parameters():
        if parameter.dim() == 1:
            parameter.copy_(torch.randn_like(parameter) * 0.1 + (1.0 if "norm" in name and "weight" in name else 0.0))
    return transformer


def chunk_task(case: Case) -> ChunkTask:
    """One chunk of random conditions."""
    generator = torch.Generator().manual_seed(1)
    size = (case.height, case.width)
    pixels = (case.height * 8, case.width * 8)

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, generator=generator)

    clip = ClipConditions(
        random(1, 7, 64), random(1, 9, 64), random(1, 32, 1, *size), random(1, 32, 1, *size), random(1, 3, 1, *pixels)
    )
    known = random(1, 16, 2, *size) if case.known else None
    chunk = ChunkConditions(random(1, 3, 4 * case.frames - 3, *pixels), known)
    return ChunkTask(plan_guidance(*case.guidance), clip, chunk, random(1, 16, case.frames, *size), STEPS)


def alone(transformer: OneToAllTransformer3DModel, case: Case) -> list[torch.Tensor]:
    """Latents after each step, made by one process."""
    return [step.latents for step in denoise(transformer, build_scheduler(), chunk_task(case))]


def rank_main(rank: int, plan: ParallelPlan, heads: int, folder: str, expected: list[list[torch.Tensor]]) -> None:
    """One rank: all cases, and before them the first one once more, stopped after one step."""
    transformer, scheduler = network(heads), build_scheduler()
    setup = RankSetup(rank, plan, None, "cpu", "float32", None, DEFAULT_SPEED, 1, Path(folder) / "store")  # type: ignore[arg-type]
    mesh = join_ranks(setup, CPU)
    shared = ParallelDenoising.on_mesh(mesh, transformer, CPU)
    tokens: list[int] = []  # of every pass on this rank
    transformer.blocks[1].attn1.to_q.register_forward_hook(lambda *call: tokens.append(call[-1].shape[1]))

    if rank == LEADER:
        stopped = shared.denoise(transformer, scheduler, chunk_task(CASES[0]))
        next(stopped)
        stopped.close()
    else:
        shared.follow(transformer, scheduler)
    differences: list[float] = []
    for case, latents in zip(CASES, expected, strict=True):
        if rank != LEADER:
            shared.follow(transformer, scheduler)
            continue
        made = [step.latents for step in shared.denoise(transformer, scheduler, chunk_task(case))]
        differences.append(max((a - b).abs().max().item() for a, b in zip(made, latents, strict=True)))
    gathered: list[list[int]] = [[] for _ in range(plan.ranks)]
    dist.all_gather_object(gathered, tokens)
    if rank == LEADER:
        print(json.dumps({"plan": str(plan), "differences": differences, "tokens": gathered}), flush=True)
    dist.destroy_process_group()


def main() -> None:
    """Each argument is a plan and a number of heads, e.g. ``guidance:2,context:2/4``."""
    torch.set_num_threads(1)
    for argument in sys.argv[1:]:
        text, _, heads = argument.partition("/")
        plan = ParallelPlan.parse(text)
        transformer = network(int(heads))
        expected = [alone(transformer, case) for case in CASES]
        with tempfile.TemporaryDirectory() as folder:
            arguments = (plan, int(heads), folder, expected)
            multiprocessing.start_processes(rank_main, arguments, nprocs=plan.ranks, start_method="fork")


if __name__ == "__main__":
    main()
