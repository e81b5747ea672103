"""One training run: its schedule, its checkpoint to resume from, and its curve as lines of JSON."""

import copy
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from libs.errors import ModelFilesError
from libs.files.atomic_write import atomic_write
from libs.sandbox.trained import kept_networks, kept_weights


@dataclass(frozen=True)
class Schedule:
    """A learning rate that warms up, stays, and falls to a small share in the last part.

    A run can be prolonged from any checkpoint of its even part.

    Args:
        steps: of the whole run.
        learning_rate: the highest.
        warm_up: steps of the rise.
        fall: share of the steps in which the rate falls.
        last_share: of the highest rate, at the end.
    """

    steps: int
    learning_rate: float
    warm_up: int = 40
    fall: float = 0.35
    last_share: float = 0.03

    def rate(self, step: int) -> float:
        """The learning rate of a step, from 0."""
        rise = min(1.0, (step + 1) / self.warm_up)
        left = (self.steps - step) / max(1.0, self.fall * self.steps)
        return self.learning_rate * rise * max(self.last_share, min(1.0, left))


class Run:
    """A network being trained, its moving average, and where both are kept.

    Args:
        folder: holds ``<name>.pt`` (state) and ``<name>.jsonl`` (curve).
        name: of the run.
        network: what is trained.
        optimiser: with ``state_dict`` and ``load_state_dict``.
        decay: of the moving average of the weights, which is what is judged and kept.
        others: more objects with a state, e.g. a discriminator.
        kept: weights that ``keep`` wrote; where there is no checkpoint, the run goes on from them.
    """

    def __init__(
        self,
        folder: Path,
        name: str,
        network: nn.Module,
        optimiser: Any,
        decay: float = 0.995,
        others: Mapping[str, Any] | None = None,
        kept: Path | None = None,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.state_path, self.curve_path = folder / f"{name}.pt", folder / f"{name}.jsonl"
        self.network, self.optimiser, self.others = network, optimiser, dict(others or {})
        self.average = copy.deepcopy(network).requires_grad_(False)
        self.step, self.seconds = 0, 0.0
        self._decay, self._means = decay, dict[str, float]()
        self._started = time.process_time()
        if self.state_path.exists():
            self._resume()
        elif kept is not None and name in kept_networks(kept):
            self._start_from(kept, name)

    def _start_from(self, kept: Path, name: str) -> None:
        """Go on from kept weights, with a fresh optimiser."""
        weights, entry = kept_weights(kept, name), kept_networks(kept)[name]
        for network in (self.network, self.average):
            network.load_state_dict(weights, strict=False)  # ONNX does not hold how many batches a norm has seen
            missing = {key for key in set(network.state_dict()) - set(weights) if not key.endswith("batches_tracked")}
            if missing:
                raise ModelFilesError(f"{kept}: the kept weights of {name} lack {', '.join(sorted(missing)[:3])}")
        self.step, self.seconds = entry["steps"], entry["core_seconds"]

    def _resume(self) -> None:
        state = torch.load(self.state_path, weights_only=True)
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        for name, other in self.others.items():
            other.load_state_dict(state["others"][name])
        self.step, self.seconds = state["step"], state["seconds"]

    def generator_seed(self, seed: int) -> list[int]:
        """A seed for random numbers from here on: a resumed run does not repeat what it has drawn."""
        return [seed, self.step]

    @torch.no_grad()
    def advance(self, **losses: float) -> None:
        """Count a step: update the moving average and the running means of the losses."""
        self.step += 1
        share = 1 - min(self._decay, self.step / (self.step + 10))
        for average, parameter in zip(self.average.parameters(), self.network.parameters(), strict=True):
            average.lerp_(parameter, share)
        for name, value in losses.items():
            self._means[name] = 0.95 * self._means.get(name, value) + 0.05 * value

    def save(self, **figures: float) -> None:
        """Write the checkpoint, and one line of the curve; the time of ``figures`` is not counted."""
        state = {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "others": {name: other.state_dict() for name, other in self.others.items()},
            "step": self.step,
            "seconds": self.seconds,
        }
        with atomic_write(self.state_path) as temporary:
            torch.save(state, temporary)
        line = {"step": self.step, "seconds": round(self.seconds), **_rounded(self._means), **_rounded(figures)}
        with self.curve_path.open("a", encoding="utf-8") as curve:
            curve.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)

    def start_clock(self) -> None:
        """Begin to count processor time."""
        self._started = time.process_time()

    def stop_clock(self) -> None:
        """Add the processor time since :meth:`start_clock`."""
        self.seconds += time.process_time() - self._started


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    return {name: round(float(value), 4) for name, value in values.items()}
