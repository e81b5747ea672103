"""Latents as the transformer paints them, beside the true frames: what the decoder meets in a clip."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from libs.sandbox.sizes import LATENT_CHANNELS, SIGMAS
from libs.sandbox.training.latents import Latents, measured_statistics
from libs.sandbox.training.transformer import LatentSpace, Trainer, plain_batch, sampler_of
from libs.sandbox.training.transformer_start import starting_transformer

_BATCH = 6
_LONGEST = 9  # latent frames; longer clips cost more and show nothing else
_FROM_TRUTH = SIGMAS[2:]
"""Half of the latents start from the noisy truth: limbs lie where they should, with the transformer's blur."""


@dataclass(frozen=True, eq=False)
class Painted:
    """Raw latents [N, 16, F, h, w], and which clips of their shard they show, [N]."""

    rows: np.ndarray
    latents: torch.Tensor


def paint_shards(
    folder: Path, shards: str, autoencoder: Any, transformer: Mapping[str, torch.Tensor], count: int, seed: int = 0
) -> dict[str, Painted]:
    """Clips sampled without guidance, by the name of their shard.

    Args:
        folder: of the runs; latents lie in ``folder/latents``.
        shards: how their names begin, e.g. ``training``.
        autoencoder: that made the latents.
        transformer: its weights.
        count: of clips from each shard; all of a smaller one.
        seed: of clips and noise.
    """
    network = starting_transformer()
    network.load_state_dict(transformer)
    space = LatentSpace(*measured_statistics(folder / "latents"), weight=torch.ones(LATENT_CHANNELS))
    sampler = sampler_of(network.eval(), space, autoencoder)
    g = np.random.default_rng([seed, count])
    painted = {}
    for path in sorted((folder / "latents").glob(f"{shards}-*.pt")):
        shard = Latents.load(path)
        if shard.clip.shape[2] <= _LONGEST:
            rows = np.sort(g.choice(len(shard.clip), min(count, len(shard.clip)), replace=False))
            parts = [rows[first : first + _BATCH] for first in range(0, len(rows), _BATCH)]
            latents = [_paint(sampler, shard, part, bool(index % 2), seed + index) for index, part in enumerate(parts)]
            painted[path.stem] = Painted(rows, torch.cat(latents))
    return painted


@torch.no_grad()
def _paint(sampler: Trainer, shard: Latents, rows: np.ndarray, from_truth: bool, seed: int) -> torch.Tensor:
    batch = plain_batch(sampler, shard, rows)
    noise = torch.randn(batch.clean.shape, generator=torch.Generator().manual_seed(seed))
    if not from_truth:
        return sampler.space.raw(sampler.sample(batch, noise))
    sigma = _FROM_TRUTH[0]
    return sampler.space.raw(sampler.sample(batch, (1 - sigma) * batch.clean + sigma * noise, _FROM_TRUTH))
