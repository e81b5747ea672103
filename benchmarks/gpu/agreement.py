"""Whether a card computes what a CPU computes: a small network in float32, blocks from the host, weights from files.

Takes seconds and comes first: if something does not run on CUDA at all, it is seen here. What does not belong here:
time.
"""

import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from measuring.beside import random_vae
from measuring.part_run import PartRun
from measuring.record import Figure
from measuring.subject import Subject, make_subject
from safetensors.torch import save_file

from libs.model_repo.files.safetensors_header import read_stored_tensors
from libs.one_to_all.compilation import apply_speed
from libs.one_to_all.memory.cost import TokenGrid
from libs.one_to_all.memory.offload import BlockOffload
from libs.one_to_all.network import ActivationCache
from libs.one_to_all.sampling.denoise import ChunkConditions, ClipConditions
from libs.one_to_all.sampling.vae import decode_latents, uint8_from_signed
from libs.one_to_all.speed_options import SpeedOptions
from libs.one_to_all.weights.reading import WeightSource, read_weights

CPU = torch.device("cpu")
_GRID = TokenGrid.of(96, 128, 9)


def take_figures(run: PartRun) -> None:
    """Compare and record."""
    torch.backends.cudnn.allow_tf32 = False  # here float32 means float32
    subject = make_subject(replace(run, small=True).network(), _GRID, CPU, torch.float32)
    run.record.take("a step in float32", lambda: _step(run, subject))
    run.record.take("blocks on the host", lambda: _blocks_on_the_host(run, subject))
    run.record.take("weights read from a file", lambda: _weights(run))
    run.record.take("frames", lambda: _frames(run))


def _on(subject: Subject, device: torch.device, dtype: torch.dtype) -> Subject:
    """A copy of ``subject`` elsewhere."""

    def moved(conditions: ClipConditions | ChunkConditions) -> dict[str, torch.Tensor | None]:
        return {name: None if one is None else one.to(device, dtype) for name, one in vars(conditions).items()}

    other = make_subject(subject.network, subject.grid, device, dtype)
    other.transformer.load_state_dict(subject.transformer.state_dict())
    clip, chunk = ClipConditions(**moved(subject.clip)), ChunkConditions(**moved(subject.chunk))
    latents, timestep = subject.latents.to(device, dtype), subject.timestep.to(device)
    return Subject(subject.network, subject.grid, subject.guidance, other.transformer, clip, chunk, latents, timestep)


def _step(run: PartRun, subject: Subject) -> list[Figure]:
    expected = subject.step(ActivationCache())
    figures = []
    for dtype, limit in ((torch.float32, 1e-4), (torch.bfloat16, 0.03)):
        there = _on(subject, run.device, dtype)
        apply_speed(there.transformer, SpeedOptions(), run.device, dtype)
        found = there.step(ActivationCache()).float().cpu()
        difference = ((found - expected).norm() / expected.norm()).item()
        what = f"velocity of a step in {str(dtype).removeprefix('torch.')} against float32 on the CPU, relative L2"
        figures.append(Figure(what, difference, goal=limit, at_most=True))
    return figures


def _blocks_on_the_host(run: PartRun, subject: Subject) -> list[Figure]:
    there = _on(subject, run.device, run.dtype)
    expected = there.step(ActivationCache())
    offload = BlockOffload(there.transformer, run.device)
    found = [there.step(ActivationCache()) for _ in range(5)]  # the first learns the order, the others copy ahead
    offload.remove()
    found.append(there.step(ActivationCache()))
    different = max((one != expected).float().mean().item() for one in found)
    return [Figure("values that differ with blocks on the host, in 5 steps", different, "share", 0.0, at_most=True)]


def _weights(run: PartRun) -> list[Figure]:
    generator = torch.Generator().manual_seed(0)
    stored = {f"weight {index}": torch.randn(1000, 1000 + index, generator=generator) for index in range(40)}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.safetensors")
        save_file({name: one.bfloat16() if len(name) % 2 else one for name, one in stored.items()}, path)
        places = read_stored_tensors(path).items()
        sources = [WeightSource(name, path, tensor, torch.bfloat16) for name, tensor in places]
        loaded = read_weights(sources, run.device)
    wrong = sum(not torch.equal(one.cpu(), stored[name].bfloat16()) for name, one in loaded.items())
    return [Figure("tensors that differ from their file", wrong, f"of {len(stored)}", 0.0, at_most=True)]


def _frames(run: PartRun) -> list[Figure]:
    torch.manual_seed(0)
    vae = random_vae(CPU, torch.float32, small=True)
    latents = torch.randn(1, 16, 3, 8, 12)
    expected = uint8_from_signed(decode_latents(vae, latents)).astype(int)
    vae.to(run.device)
    found = uint8_from_signed(decode_latents(vae, latents.to(run.device))).astype(int)
    largest = float(abs(found - expected).max())
    return [Figure("decoded frames against the CPU's, largest difference", largest, "levels", 1.0, at_most=True)]
