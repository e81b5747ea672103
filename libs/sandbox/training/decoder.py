"""Trains the decoder alone, after the autoencoder: sharp edges, from encoded latents with a little noise.

Where a transformer is trained, half of the latents are what it paints: they are blurred, and the decoder draws edges.

The encoder stays, so that the transformer's latents keep their meaning. A discriminator of small patches says whether
edges look drawn; the energy of local second differences keeps as much detail as there was.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812 - the customary name
from torch import nn

from libs.sandbox.training import folded
from libs.sandbox.training.autoencoder import evaluate, to_video
from libs.sandbox.training.data import UPRIGHT, Clips
from libs.sandbox.training.latents import Latents
from libs.sandbox.training.losses import laplacian, reconstruction_loss, sharpness
from libs.sandbox.training.muon import Muon
from libs.sandbox.training.painted import paint_shards
from libs.sandbox.training.runs import Run, Schedule
from libs.sandbox.training.store import trained_weights

_NAME = "decoder"
_WINDOW = 10  # latent cells; pictures of 80 pixels
_LATENT_FRAMES = 3
_MARGIN = 8  # pixels that see less than they would in the whole picture
_LATENT_NOISE = 0.05
_DISCRIMINATOR_FROM = 30


@dataclass(frozen=True)
class DecoderTraining:
    """Settings of the run."""

    steps: int = 1000
    save_every: int = 40
    learning_rate: float = 1e-3
    batch: int = 3
    energy: float = 0.5
    adversary: float = 0.3
    painted_share: float = 0.5
    painted_clips: int = 12
    seed: int = 13


class PatchDiscriminator(nn.Module):
    """Says of each patch of about 20 pixels how real it looks; also gives its features."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            (
                nn.Conv2d(3, 32, 4, 2, 1),
                nn.Conv2d(32, 64, 4, 2, 1),
                nn.Conv2d(64, 64, 3, 1, 1),
                nn.Conv2d(64, 1, 3, 1, 1),
            )
        )

    def forward(self, pictures: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """[B, 3, H, W] -> scores, and the features behind each layer before the last."""
        features = []
        x = pictures
        for layer in self.layers[:-1]:
            x = F.leaky_relu(layer(x), 0.2)
            features.append(x)
        return self.layers[-1](x), features


class _Adversary:
    """The discriminator with its optimiser, as one thing with a state."""

    def __init__(self) -> None:
        self.network = PatchDiscriminator()
        self._optimiser = torch.optim.Adam(self.network.parameters(), lr=5e-4, betas=(0.5, 0.99))

    def state_dict(self) -> dict[str, Any]:
        return {"network": self.network.state_dict(), "optimiser": self._optimiser.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.network.load_state_dict(state["network"])
        self._optimiser.load_state_dict(state["optimiser"])

    def judge(self, made: torch.Tensor, real: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """How unreal ``made`` looks, and how far its features are from those of ``real``."""
        score, features = self.network(made)
        with torch.no_grad():
            _, wanted = self.network(real)
        matching = [(one - other).abs().mean() for one, other in zip(features, wanted, strict=True)]
        return -score.mean(), torch.stack(matching).sum()

    def learn(self, made: torch.Tensor, real: torch.Tensor) -> None:
        """Tell them apart a little better."""
        loss = F.relu(1 - self.network(real)[0]).mean() + F.relu(1 + self.network(made.detach())[0]).mean()
        self._optimiser.zero_grad()
        loss.backward()
        self._optimiser.step()


def train_decoder(
    data: Path, folder: Path, autoencoder: Any, settings: DecoderTraining, kept: Path | None = None
) -> None:
    """Train, or go on from the autoencoder's average; latents lie in ``folder/latents``, the state in ``folder``."""
    torch.set_num_threads(1)
    network = autoencoder
    network.requires_grad_(False)
    named = [(name, p) for name, p in network.named_parameters() if name.startswith(("decoder", "post_quant"))]
    for _, parameter in named:
        parameter.requires_grad_(True)
    adversary = _Adversary()
    run = Run(folder, _NAME, network, Muon(named), decay=0.99, others={"adversary": adversary}, kept=kept)
    schedule = Schedule(settings.steps, settings.learning_rate, warm_up=20, fall=0.5)
    g = np.random.default_rng(run.generator_seed(settings.seed))
    torch.manual_seed(run.step + settings.seed)
    names = [path.stem for path in sorted((folder / "latents").glob("training-*.pt"))]
    frames = {name: Clips.load(data / f"{name}.npz").frames for name in names}
    encoded = [(Latents.load(folder / "latents" / f"{name}.pt").clip, frames[name]) for name in names]
    transformer = trained_weights(folder, "transformer", kept)
    painted, judged = list[tuple[torch.Tensor, np.ndarray]](), None
    if transformer is not None:
        made = paint_shards(folder, "training", network, transformer, settings.painted_clips, settings.seed)
        painted = [(one.latents, frames[name][one.rows]) for name, one in made.items()]
        upright = f"held_back-{UPRIGHT.name}"
        (name, one), *_ = paint_shards(folder, upright, network, transformer, settings.painted_clips).items()
        judged = one.latents, to_video(Clips.load(data / f"{name}.npz").frames[one.rows, 1:])
    held_back = to_video(Clips.load(sorted(data.glob(f"held_back-{UPRIGHT.name}-*.npz"))[-1]).frames[:8, 1:])
    while run.step < settings.steps:
        run.start_clock()
        for _ in range(settings.save_every):
            own = bool(painted) and g.random() < settings.painted_share
            sources = painted if own else encoded
            latents, pictures = sources[int(g.integers(len(sources)))]
            noise = 0.0 if own else _LATENT_NOISE
            made_video, real = _window(g, network, latents, pictures, min(settings.batch, len(latents)), noise)
            loss = reconstruction_loss(made_video, real)
            loss = loss + settings.energy * (_energy(made_video) - _energy(real)).abs().mean()
            run.optimiser.zero_grad()
            fake, true = (video.transpose(1, 2).flatten(0, 1) for video in (made_video, real))
            total = loss
            if run.step >= _DISCRIMINATOR_FROM:
                unreal, matching = adversary.judge(fake, true)
                balance = _balance(loss, unreal, network.decoder.conv_out.weight)
                total = loss + settings.adversary * (balance * unreal + matching)
            total.backward()
            torch.nn.utils.clip_grad_norm_(run.optimiser.parameters, 1.0)
            run.optimiser.step(schedule.rate(run.step))
            adversary.learn(fake, true)
            run.advance(**{"loss_painted" if own else "loss": float(loss.detach())})
        run.stop_clock()
        run.save(**evaluate(run.average, held_back), **_judge(run.average, judged))


@torch.no_grad()
def _judge(autoencoder: Any, painted: tuple[torch.Tensor, torch.Tensor] | None) -> dict[str, float]:
    """Sharpness of held-back painted clips, relative to the true ones'."""
    if painted is None:
        return {}
    latents, true = painted
    made = folded.decode(autoencoder, latents).clamp(-1, 1)
    return {"sharpness_painted": sharpness(made) / sharpness(true)}


def _window(
    g: np.random.Generator, network: Any, latents: torch.Tensor, frames: np.ndarray, batch: int, noise: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """Decoded and true pictures of one window; its margin counts only where it is the picture's own border."""
    rows = g.choice(len(latents), batch, replace=False)
    limits = [side - _WINDOW for side in latents.shape[3:]]
    # ends more often than a uniform draw would: they are the borders of pictures
    top, left = (int(np.clip(g.integers(-2, limit + 3), 0, limit)) for limit in limits)
    chosen = latents[rows, :, :_LATENT_FRAMES, top : top + _WINDOW, left : left + _WINDOW].float()
    noisy = chosen + noise * chosen.std() * torch.randn_like(chosen)
    made = folded.decode(network, noisy)
    side = 8 * _WINDOW
    last = 1 + made.shape[2]
    real = to_video(frames[rows, 1:last, 8 * top : 8 * top + side, 8 * left : 8 * left + side])
    inner = [
        slice(0 if start == 0 else _MARGIN, side if start == limit else side - _MARGIN)
        for start, limit in zip((top, left), limits, strict=True)
    ]
    return made[..., inner[0], inner[1]], real[..., inner[0], inner[1]]


def _energy(video: torch.Tensor) -> torch.Tensor:
    """Root mean square of the grey's second differences in each 3 x 3 neighbourhood."""
    second = laplacian(video.mean(dim=1))
    return (F.avg_pool2d(second.square().flatten(0, 1).unsqueeze(1), 3, 1) + 1e-5).sqrt()


def _balance(loss: torch.Tensor, unreal: torch.Tensor, weight: torch.Tensor) -> float:
    """The factor that makes both pull alike at the last layer."""
    pulls = [torch.autograd.grad(one, weight, retain_graph=True)[0].norm() for one in (loss, unreal)]
    return float((pulls[0] / (pulls[1] + 1e-6)).clamp(0, 20))
