"""Trains the transformer to paint the reference's character in the poses asked for."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from libs.one_to_all.network.transformer import REPLACED_LATENT_FRAMES
from libs.requests.documents.animation_request import DEFAULT_NEGATIVE_PROMPT
from libs.sandbox.sizes import LATENT_CHANNELS, SIGMAS
from libs.sandbox.training import folded
from libs.sandbox.training.data import LIGHT_NAMES, UPRIGHT
from libs.sandbox.training.forward import TrainingForward
from libs.sandbox.training.latents import Latents, pose_features, some_latents, statistics
from libs.sandbox.training.muon import Muon
from libs.sandbox.training.prompts import TrainingPrompts, random_prompt
from libs.sandbox.training.runs import Run, Schedule
from libs.sandbox.training.transformer_start import ConstantChannels, starting_transformer, trainable

_NAME = "transformer"
_LAST_STEP_WEIGHT = 3.0
_SIGMA_SHARES = (0.34, 0.2, 0.2, 0.14)
"""Of SIGMAS, most where only poses say what moves; the rest is drawn from the whole schedule."""
_SHIFT = 7.0


@dataclass(frozen=True)
class TransformerTraining:
    """Settings of the run; shares are probabilities of a batch."""

    steps: int = 4000
    save_every: int = 40
    learning_rate: float = 3e-3
    batch: int = 8
    seed: int = 7
    known_frames: float = 0.2
    black_picture: float = 0.05
    no_pose: float = 0.04
    black_pose: float = 0.02
    own_guess_after: float = 0.6


@dataclass(frozen=True, eq=False)
class LatentSpace:
    """Normalisation of the latents, what black looks like, and how much each channel matters for pixels."""

    mean: torch.Tensor
    std: torch.Tensor
    weight: torch.Tensor

    @classmethod
    @torch.no_grad()
    def measure(cls, autoencoder: Any, clips: torch.Tensor) -> "LatentSpace":
        """From some clips' raw latents [N, 16, F, h, w]."""
        mean, std = statistics(clips)
        some = clips[:4, ..., 4:12, 4:12].float()
        plain = folded.decode(autoencoder, some)
        effects = []
        generator = torch.Generator().manual_seed(0)
        for channel in range(LATENT_CHANNELS):
            moved = some.clone()
            noise = torch.randn(some[:, channel].shape, generator=generator)
            moved[:, channel] += 0.3 * std[channel] * noise
            effects.append((folded.decode(autoencoder, moved) - plain).square().mean().sqrt())
        effect = torch.stack(effects)
        weight = (effect / effect.mean()).clamp(0.3, 3.0)
        return cls(mean, std, weight / weight.mean())

    def normalise(self, latents: torch.Tensor) -> torch.Tensor:
        """Raw latents [B, 16 or 32, ...] -> unit variance."""
        repeats = latents.shape[1] // LATENT_CHANNELS
        shape = (1, -1, 1, 1, 1)
        mean, std = (value.repeat(repeats).view(shape) for value in (self.mean, self.std))
        return (latents.float() - mean) / std

    def raw(self, latents: torch.Tensor) -> torch.Tensor:
        """The inverse."""
        return latents * self.std.view(1, -1, 1, 1, 1) + self.mean.view(1, -1, 1, 1, 1)


@dataclass(frozen=True, eq=False)
class Batch:
    """Normalised latents of clips and all that the network sees with them."""

    clean: torch.Tensor
    reference: torch.Tensor
    reference_pose: torch.Tensor
    poses: torch.Tensor | None
    text: tuple[torch.Tensor, torch.Tensor]


def train_transformer(folder: Path, autoencoder: Any, settings: TransformerTraining, kept: Path | None = None) -> None:
    """Train, or go on; latents lie in ``folder/latents``, the state in ``folder``, or else in ``kept``."""
    torch.set_num_threads(1)
    network = starting_transformer()
    optimiser = Muon(trainable(network), momentum=0.92, adam_share=0.15, betas=(0.9, 0.95))
    run = Run(folder, _NAME, network, optimiser, kept=kept)
    schedule = Schedule(settings.steps, settings.learning_rate, warm_up=60)
    shards = [Latents.load(path) for path in sorted((folder / "latents").glob("training-*.pt"))]
    held_back = Latents.load(next(iter(sorted((folder / "latents").glob(f"held_back-{UPRIGHT.name}-*.pt")))))
    space = LatentSpace.measure(autoencoder, some_latents(folder / "latents"))
    trainer = Trainer(TrainingForward(network), space, settings, autoencoder)
    judge = Trainer(TrainingForward(run.average), space, settings, autoencoder)
    constants = ConstantChannels(network)
    g = np.random.default_rng(run.generator_seed(settings.seed))
    torch.manual_seed(run.step + settings.seed)
    sizes = np.array([one.clip.shape[0] * one.clip.shape[2] for one in shards], float)
    while run.step < settings.steps:
        run.start_clock()
        for _ in range(settings.save_every):
            shard = shards[int(g.choice(len(shards), p=sizes / sizes.sum()))]
            count = max(1, settings.batch * 3 // shard.clip.shape[2])  # as many tokens in a batch of longer clips
            rows = g.choice(len(shard.clip), count, replace=False)
            sigma = _draw_sigma(g)
            loss = trainer.loss(g, shard, rows, sigma, run.step > settings.own_guess_after * settings.steps)
            run.optimiser.zero_grad()
            loss.backward()
            constants.keep()
            torch.nn.utils.clip_grad_norm_(run.optimiser.parameters, 1.0)
            run.optimiser.step(schedule.rate(run.step))
            name = f"loss_{sigma:.2f}" if sigma in SIGMAS else "loss_other"
            run.advance(**{name: float(loss.detach())})
        run.stop_clock()
        run.save(**judge.evaluate(held_back))


def _draw_sigma(g: np.random.Generator) -> float:
    choice = int(g.choice(len(SIGMAS) + 1, p=[*_SIGMA_SHARES, 1 - sum(_SIGMA_SHARES)]))
    if choice < len(SIGMAS):
        return SIGMAS[choice]
    u = float(g.uniform(0.002, 1.0))
    return _SHIFT * u / (1 + (_SHIFT - 1) * u)


class Trainer:
    """What a transformer in training is asked for: the loss of a batch, samples, and figures."""

    def __init__(
        self, forward: TrainingForward, space: LatentSpace, settings: TransformerTraining, autoencoder: Any
    ) -> None:
        self.forward, self.space, self.settings = forward, space, settings
        self.prompts = TrainingPrompts()
        self._black = _Black(autoencoder, forward.transformer)

    def loss(
        self, g: np.random.Generator, shard: Latents, rows: np.ndarray, sigma: float, own_guess: bool
    ) -> torch.Tensor:
        """Error of the clean latents that the network sees at ``sigma``, weighted by what pixels feel of it."""
        batch = self._batch(g, shard, rows)
        known = REPLACED_LATENT_FRAMES if g.random() < self.settings.known_frames else 0
        noise = torch.randn_like(batch.clean)
        clean = batch.clean
        start = clean
        if sigma == SIGMAS[-1] and own_guess:  # sampling arrives here with its own guess, not with the truth
            start = self._own_guess(batch, SIGMAS[0] if g.random() < 0.5 else SIGMAS[2], known)
        noisy = (1 - sigma) * start + sigma * noise
        if known:
            noisy = torch.cat((clean[:, :, :known], noisy[:, :, known:]), dim=2)
        velocity = self._velocity(batch, noisy, sigma, bool(known))
        error = (noisy - sigma * velocity - clean)[:, :, known:]
        weight = self.space.weight.view(1, -1, 1, 1, 1)
        loss = (weight.sqrt() * error.abs()).mean() + 0.5 * (weight * error.square()).mean()
        return loss * (_LAST_STEP_WEIGHT if sigma < 0.1 and start is clean else 1.0)

    @torch.no_grad()
    def _own_guess(self, batch: Batch, sigma: float, known: int) -> torch.Tensor:
        noisy = (1 - sigma) * batch.clean + sigma * torch.randn_like(batch.clean)
        if known:
            noisy = torch.cat((batch.clean[:, :, :known], noisy[:, :, known:]), dim=2)
        return noisy - sigma * self._velocity(batch, noisy, sigma, bool(known))

    def _velocity(self, batch: Batch, noisy: torch.Tensor, sigma: float, token_replace: bool) -> torch.Tensor:
        return self.forward(noisy, sigma, batch.text, batch.reference, batch.reference_pose, batch.poses, token_replace)

    def _batch(self, g: np.random.Generator, shard: Latents, rows: np.ndarray) -> Batch:
        settings = self.settings
        clean = self.space.normalise(shard.clip[rows])
        reference = self.space.normalise(shard.reference[rows])
        poses: torch.Tensor | None = shard.poses[rows].float()
        reference_pose = shard.reference_pose[rows].float()
        prompts = [random_prompt(g, LIGHT_NAMES[int(index)]) for index in shard.light[rows]]
        draw = g.random()
        if draw < settings.black_picture:
            reference = self.space.normalise(self._black.picture(reference.shape))
            if g.random() < 0.5:  # the unconditional pass of guidance, with its negative prompt
                poses, prompts = None, [DEFAULT_NEGATIVE_PROMPT] * len(prompts)
        elif draw < settings.black_picture + settings.no_pose:
            poses = None
        elif draw < settings.black_picture + settings.no_pose + settings.black_pose:
            assert poses is not None
            poses, reference_pose = self._black.pose(poses.shape), self._black.pose(reference_pose.shape)
        return Batch(clean, reference, reference_pose, poses, self.prompts.batch(prompts))

    @torch.no_grad()
    def evaluate(self, shard: Latents, count: int = 8) -> dict[str, float]:
        """Errors on held-back clips: of the first step, of sampled latents, and of a reference that stands still."""
        batch = plain_batch(self, shard, np.arange(min(count, len(shard.clip))))
        clean, reference = batch.clean, batch.reference
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
        weight = self.space.weight.view(1, -1, 1, 1, 1)

        def error(latents: torch.Tensor) -> float:
            return float((weight * (latents - clean).square()).mean().sqrt())

        first = noise - self._velocity(batch, noise, 1.0, token_replace=False)
        return {
            "still": error(reference[:, :LATENT_CHANNELS].expand_as(clean)),
            "first_step": error(first),
            "sampled": error(self.sample(batch, noise)),
        }

    @torch.no_grad()
    def sample(self, batch: Batch, noise: torch.Tensor, sigmas: Sequence[float] = SIGMAS) -> torch.Tensor:
        """Latents sampled without guidance."""
        latents = noise
        for sigma, following in zip(sigmas, (*sigmas[1:], 0.0), strict=True):
            latents = latents + (following - sigma) * self._velocity(batch, latents, sigma, token_replace=False)
        return latents


def sampler_of(transformer: Any, space: LatentSpace, autoencoder: Any) -> Trainer:
    """For sampling alone."""
    return Trainer(TrainingForward(transformer), space, TransformerTraining(), autoencoder)


def plain_batch(trainer: Trainer, shard: Latents, rows: np.ndarray) -> Batch:
    """Some clips of a shard with everything the network may see, and prompts that are the same every time."""
    g = np.random.default_rng(0)
    lights = [LIGHT_NAMES[int(index)] for index in shard.light[rows]]
    return Batch(
        trainer.space.normalise(shard.clip[rows]),
        trainer.space.normalise(shard.reference[rows]),
        shard.reference_pose[rows].float(),
        shard.poses[rows].float(),
        trainer.prompts.batch([random_prompt(g, light) for light in lights]),
    )


class _Black:
    """Latents of a black picture, twice, and features of a black pose drawing, of any size."""

    def __init__(self, autoencoder: Any, transformer: Any) -> None:
        self._autoencoder, self._transformer = autoencoder, transformer
        self._pictures: dict[torch.Size, torch.Tensor] = {}
        self._poses: dict[torch.Size, torch.Tensor] = {}

    @torch.no_grad()
    def picture(self, shape: torch.Size) -> torch.Tensor:
        """Raw latents of ``shape`` [B, 32, 1, h, w]."""
        if shape not in self._pictures:
            black = torch.full((1, 3, 1, 8 * shape[3], 8 * shape[4]), -1.0)
            latents = folded.encode(self._autoencoder, black)
            self._pictures[shape] = latents.repeat(1, 2, 1, 1, 1).expand(shape)
        return self._pictures[shape]

    def pose(self, shape: torch.Size) -> torch.Tensor:
        """Features of ``shape`` [B, 16, F', H/4, W/4]."""
        if shape not in self._poses:
            black = torch.full((1, 3, 2 * shape[2] - 1, 4 * shape[3], 4 * shape[4]), -1.0)
            self._poses[shape] = pose_features(self._transformer, black).expand(shape)
        return self._poses[shape]
