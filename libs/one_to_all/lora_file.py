"""Which LoRA a network is loaded with. Light: no torch.

What does not belong here: what is in the file (``lora_names``), adding it to the weights (``lora``).
"""

import math
from dataclasses import dataclass
from pathlib import Path

from libs.errors import InputError


@dataclass(frozen=True)
class LoraFile:
    """A safetensors file, and how strongly it is added (1 as it was trained).

    Raises:
        InputError: the strength is no number.
    """

    path: Path
    strength: float = 1.0

    def __post_init__(self) -> None:
        if not math.isfinite(self.strength):
            raise InputError(f"LoRA {self.path.name}: strength={self.strength} must be a number")

    @property
    def name(self) -> str:
        """As a request names it: the file's name without its ending."""
        return self.path.stem
