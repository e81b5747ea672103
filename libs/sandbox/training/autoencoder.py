"""Trains the autoencoder: pictures and short clips to latents and back."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the customary name

from libs.sandbox.training import folded
from libs.sandbox.training.autoencoder_start import starting_autoencoder
from libs.sandbox.training.data import UPRIGHT, shard_frames
from libs.sandbox.training.losses import psnr, reconstruction_loss, sharpness
from libs.sandbox.training.muon import Muon
from libs.sandbox.training.runs import Run, Schedule

_NAME = "autoencoder"
_CROP = 64
_LATENT_NOISE = 0.03
_LARGEST_LATENT = 4.0


@dataclass(frozen=True)
class AutoencoderTraining:
    """Settings of the run."""

    steps: int = 3000
    save_every: int = 60
    learning_rate: float = 1.5e-3
    seed: int = 5


def train_autoencoder(data: Path, folder: Path, settings: AutoencoderTraining, kept: Path | None = None) -> None:
    """Train, or go on; the state lies in ``folder``, or else in ``kept`` weights."""
    torch.set_num_threads(1)
    network = starting_autoencoder()
    run = Run(folder, _NAME, network, Muon(network.named_parameters()), kept=kept)
    schedule = Schedule(settings.steps, settings.learning_rate)
    generator = np.random.default_rng(run.generator_seed(settings.seed))
    torch.manual_seed(run.step + settings.seed)
    held_back = to_video(shard_frames(data, "held_back", UPRIGHT)[0][:8, 1:])
    clips = shard_frames(data, "training")
    while run.step < settings.steps:
        if run.step % 300 == 0:
            clips = shard_frames(data, "training")  # more may have been made meanwhile
        run.start_clock()
        for _ in range(settings.save_every):
            video = to_video(_crops(generator, clips, 9 if run.step % 5 == 4 else 5))
            latents = folded.encode(network, video)
            noisy = latents + _LATENT_NOISE * latents.detach().std() * torch.randn_like(latents)
            loss = reconstruction_loss(folded.decode(network, noisy), video)
            penalty = 1e-2 * F.relu(latents.abs() - _LARGEST_LATENT).mean()
            run.optimiser.zero_grad()
            (loss + penalty).backward()
            torch.nn.utils.clip_grad_norm_(run.optimiser.parameters, 1.0)
            run.optimiser.step(schedule.rate(run.step))
            run.advance(loss=float(loss.detach()))
        run.stop_clock()
        run.save(**evaluate(run.average, held_back))


@torch.no_grad()
def evaluate(network: torch.nn.Module, video: torch.Tensor) -> dict[str, float]:
    """Figures of the autoencoder on held-back clips."""
    latents = folded.encode(network, video)
    made = folded.decode(network, latents)
    return {
        "psnr": psnr(made, video),
        "psnr_first": psnr(made[:, :, :1], video[:, :, :1]),
        "sharpness": sharpness(made) / sharpness(video),
        "latent_std": float(latents.std()),
    }


def to_video(frames: np.ndarray) -> torch.Tensor:
    """uint8 [B, T, H, W, 3] -> [B, 3, T, H, W] in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(frames)).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def _crops(g: np.random.Generator, shards: Sequence[np.ndarray], time: int) -> np.ndarray:
    """A batch: crops of clips; now and then a still picture, a mask, a plain surface."""
    count = 2 if time == 9 else 4
    batch = np.empty((count, time, _CROP, _CROP, 3), np.uint8)
    for index in range(count):
        shard = shards[int(g.integers(len(shards)))]
        clip = shard[int(g.integers(len(shard)))]
        start = 1 + g.integers(0, clip.shape[0] - time)
        top, left = (g.integers(0, side - _CROP + 1) for side in clip.shape[1:3])
        window = (slice(top, top + _CROP), slice(left, left + _CROP))
        crop = clip[(slice(start, start + time), *window)]
        draw = g.random()
        if draw < 0.08:
            crop = np.broadcast_to(clip[0][window], crop.shape)
        elif draw < 0.11:
            crop = np.broadcast_to(_mask(g), crop.shape)
        elif draw < 0.13:
            crop = np.full_like(crop, g.choice((0, 0, 255, 127)))
        if g.random() < 0.5:
            crop = crop[:, :, ::-1]
        if g.random() < 0.3:
            crop = crop[..., g.permutation(3)]
        batch[index] = crop
    return batch


def _mask(g: np.random.Generator) -> np.ndarray:
    """White outside a soft rectangle: what is to be filled in."""
    import cv2  # noqa: PLC0415

    mask = np.full((_CROP, _CROP), 255, np.uint8)
    low, high = np.sort(g.integers(-20, _CROP + 20, (2, 2)), axis=0)
    mask[max(low[0], 0) : max(high[0], 0), max(low[1], 0) : max(high[1], 0)] = 0
    return cv2.GaussianBlur(mask, (0, 0), g.uniform(0.3, 3.0))[None, ..., None]
