"""What happens beside the steps of a clip: the prompt, the VAE's two ways, frames on the host; time and memory.

What does not belong here: the transformer (``steps``, ``memory``).
"""

import gc
from collections.abc import Callable, Iterator

import torch
from measuring.beside import prompt_call, random_vae
from measuring.part_run import PartRun
from measuring.record import Figure

from libs.one_to_all.memory.estimates import decoding_bytes
from libs.one_to_all.sampling.vae import decode_latents, encode_latents, uint8_from_signed


def take_figures(run: PartRun) -> None:
    """Measure and record."""
    run.record.take("prompt", lambda: _prompt(run))
    vae = random_vae(run.device, run.dtype, small=run.small)
    for size in run.sizes:
        run.record.take(f"VAE at {size[0]}x{size[1]}", lambda: _vae(run, vae, size))  # noqa: B023
    run.record.take("VAE in tiles", lambda: _tiles(run, vae))


def _prompt(run: PartRun) -> list[Figure]:
    encode = prompt_call(run.device, run.dtype, small=run.small)
    peak = run.clock.peak(encode)
    seconds = run.clock.timing(encode, warm=True).median
    del encode
    gc.collect()
    return [Figure("a prompt of 512 tokens", seconds, "s", note=f"{peak / 1e9:.2f} GB beside the weights")]


def _vae(run: PartRun, vae: torch.nn.Module, size: tuple[int, int]) -> Iterator[Figure]:
    grid, name = run.grid(size), f"{size[0]}x{size[1]}"

    def random(*shape: int) -> torch.Tensor:
        return torch.randn(shape, device=run.device, dtype=run.dtype)

    frames = random(1, 3, 5, *size).clamp_(-1, 1)
    yield _seconds(run, f"VAE encode, 5 frames, {name}", lambda: encode_latents(vae, frames))
    latents = random(1, 16, grid.frames - 1, size[0] // 8, size[1] // 8)
    yield from _decoding(run, vae, latents, f"VAE decode, {grid.frame_count} frames, {name}", tiled=False)
    video = random(1, 3, grid.frame_count, *size)
    yield _seconds(run, f"{grid.frame_count} frames to uint8 on the host, {name}", lambda: uint8_from_signed(video))


def _tiles(run: PartRun, vae: torch.nn.Module) -> Iterator[Figure]:
    size = run.sizes[0]
    grid = run.grid(size)
    shape = (1, 16, grid.frames - 1, size[0] // 8, size[1] // 8)
    latents = torch.randn(shape, device=run.device, dtype=run.dtype)
    vae.enable_tiling()
    yield from _decoding(run, vae, latents, f"VAE decode in tiles, {size[0]}x{size[1]}", tiled=True)
    vae.disable_tiling()


def _decoding(run: PartRun, vae: torch.nn.Module, latents: torch.Tensor, name: str, *, tiled: bool) -> Iterator[Figure]:
    def decode() -> torch.Tensor:
        return decode_latents(vae, latents)

    estimate = decoding_bytes(run.grid((8 * latents.shape[3], 8 * latents.shape[4])), tiled=tiled)
    peak = run.clock.peak(decode)
    yield Figure(name, run.clock.timing(decode, warm=True).median, "s")
    goal, note = run.goal(1.0), f"{peak / 1e9:.2f} GB"
    yield Figure(f"… memory of its estimate, {name}", peak / estimate, "share", goal, True, note)


def _seconds(run: PartRun, name: str, call: Callable[[], object]) -> Figure:
    return Figure(name, run.clock.timing(call).median, "s")
