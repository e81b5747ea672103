"""What every part of the benchmark on a card is given: device, size, clock and record, from its command line.

What does not belong here: the parts (``gpu``), the order in which they run (``parts``).
"""

import argparse
import logging
import platform
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

import torch

from libs.model_repo.variants import NetworkConfig, get_variant
from libs.one_to_all.device import default_dtype, device_name, resolve_device
from libs.one_to_all.memory.cost import TokenGrid
from measuring.clock import Clock
from measuring.record import Record

H100_FLOPS = 989e12
"""Dense bfloat16 product of an H100 SXM, per second, as its maker says."""
_SMALL = {"num_attention_heads": 2, "num_layers": 3, "ffn_dim": 512, "num_reference_layers": 2, "text_dim": 128}
_FULL_SIZES = ((480, 832), (576, 768), (576, 1024))
_SMALL_SIZES = ((64, 96), (64, 128))


@dataclass(frozen=True)
class PartRun:
    """One part at work.

    Args:
        device: to measure on.
        small: scaled down, to see that it runs; figures mean nothing then, and no goal is shown.
        clock: of this device.
        record: where figures go.
    """

    device: torch.device
    small: bool
    clock: Clock
    record: Record

    @classmethod
    def from_arguments(cls, arguments: Sequence[str], description: str, rounds: int) -> Self:
        """As the command line says; ``rounds`` of each call, one where everything is scaled down."""
        parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
        parser.add_argument("--device", default="cuda")
        parser.add_argument("--small", action="store_true", help="scaled down: only to see that it runs")
        parser.add_argument("--record", type=Path, required=True, help="a .json file, continued where it exists")
        options = parser.parse_args(arguments)
        logging.getLogger("diffusers").setLevel(logging.ERROR)
        device = resolve_device(options.device)
        about = {
            "date": f"{datetime.now(UTC):%Y-%m-%d}",
            "device": device_name(device),
            "torch": f"torch {torch.__version__}",
            "machine": platform.machine(),
            "size": "scaled down: no figures" if options.small else "14B, 81 frames, random weights, bfloat16",
        }
        rounds = 1 if options.small else rounds
        return cls(device, options.small, Clock(device, rounds), Record(options.record, about))

    @property
    def dtype(self) -> torch.dtype:
        """Of networks on this device."""
        return default_dtype(self.device)

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """Heights and widths of the clips, the usual one first."""
        return list(_SMALL_SIZES if self.small else _FULL_SIZES)

    def grid(self, size: tuple[int, int]) -> TokenGrid:
        """Of a chunk of this size."""
        return TokenGrid.of(*size, 9 if self.small else 81)

    def network(self, layers: int | None = None) -> NetworkConfig:
        """The 14B's, with fewer main blocks where ``layers`` says so."""
        network = get_variant("14b").network
        if self.small:
            return replace(network, **_SMALL)
        return replace(network, num_layers=layers or network.num_layers)

    def goal(self, value: float) -> float | None:
        """``value`` where figures mean something."""
        return None if self.small else value
