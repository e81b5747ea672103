"""The LoRAs a request names: where they lie, whether they fit, and their digests. Light: no torch.

See ``libs.one_to_all.weights.lora`` for adding them to a network.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from libs.errors import ModelFilesError
from libs.model_repo.layout import RepositoryLayout
from libs.model_repo.verification.digests import DigestCache, sha256_of_files
from libs.one_to_all.weights.lora_file import LoraFile, describe_skipped
from libs.requests.documents.animation_request import ResolvedRequest
from libs.stages.request.requested_models import check_lora, lora_is_absent


@dataclass(frozen=True)
class RequestedLora:
    """A LoRA that a clip is made with.

    Attributes:
        file: the file and its strength.
        sha256: of the file.
        name: its path below the models folder, as observed versions call it.
        skipped: names of its tensors that fit no module.
    """

    file: LoraFile
    sha256: str
    name: str
    skipped: tuple[str, ...] = ()

    @property
    def note(self) -> str | None:
        """What people are told of it; None if there is nothing to tell."""
        return f"LoRA {self.file.name}: {describe_skipped(self.skipped)}" if self.skipped else None


def requested_loras(request: ResolvedRequest, layout: RepositoryLayout) -> tuple[RequestedLora, ...]:
    """Check and hash the LoRAs of ``request`` in the model's folder ``loras/``, in the order in which they are added.

    What a file holds must fit the network, by its header, and be finite numbers; it is read through once.

    Raises:
        ModelFilesError: one is not there (says which there are), or it is for another network or broken.
    """
    found = []
    for choice in request.chosen_loras:
        path = layout.lora(choice.name)
        if not path.is_file():
            raise ModelFilesError(lora_is_absent(layout, choice.name))
        skipped = check_lora(path, layout, strict=request.lora_strict)
        file = LoraFile(path, choice.strength, request.lora_strict)
        found.append(RequestedLora(file, lora_digest(file, layout), path_of_lora(path, layout), skipped))
    return tuple(found)


def lora_of_engine(loras: Sequence[RequestedLora]) -> LoraFile | None:
    """All of them as the engine takes them."""
    files = [one.file for one in loras]
    return replace(files[0], others=tuple(files[1:])) if files else None


def lora_digest(lora: LoraFile, layout: RepositoryLayout) -> str:
    """SHA-256 of the file, remembered like those of the model files."""
    return sha256_of_files([lora.path], DigestCache.beside(layout))[lora.path]


def path_of_lora(file: Path, layout: RepositoryLayout) -> str:
    """How observed versions call a LoRA: its path below the models folder."""
    return file.relative_to(layout.root.parent).as_posix()
