"""Which LoRA a network is loaded with. Light: no torch.

What does not belong here: what is in the file (``lora_changes``), adding it to the weights (``lora``) or beside them
(``lora_branches``).
"""

import math
from dataclasses import dataclass
from pathlib import Path

from libs.errors import InputError, ModelFilesError
from libs.model_repo.verification.digests import Signature

LoraIdentity = tuple[Path, Signature, float]


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

    def identity(self) -> LoraIdentity:
        """By which a network knows whether it has this LoRA already: path, bytes and strength.

        Raises:
            ModelFilesError: there is no such file.
        """
        try:
            return self.path, Signature.of(self.path), self.strength
        except FileNotFoundError:
            raise lora_is_missing(self.path) from None


def lora_is_missing(path: Path) -> ModelFilesError:
    """The error for a file that is not there."""
    return ModelFilesError(f"{path}: is missing; put the LoRA there, or name another one")
