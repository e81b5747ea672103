"""The LoRA a request names: where it lies, whether it fits, and its digest. Light: no torch.

See ``libs.one_to_all.weights.lora`` for adding it to a network.
"""

from dataclasses import dataclass
from pathlib import Path

from libs.errors import ModelFilesError
from libs.model_repo.layout import RepositoryLayout
from libs.model_repo.verification.digests import DigestCache, sha256_of_files
from libs.one_to_all.weights.lora_file import LoraFile
from libs.requests.documents.animation_request import ResolvedRequest
from libs.stages.request.requested_models import check_lora, lora_is_absent


@dataclass(frozen=True)
class RequestedLora:
    """The LoRA that a clip is made with.

    Attributes:
        file: the file and its strength.
        sha256: of the file.
        name: its path below the models folder, as observed versions call it.
    """

    file: LoraFile
    sha256: str
    name: str

    @classmethod
    def of(cls, request: ResolvedRequest, layout: RepositoryLayout) -> "RequestedLora | None":
        """Check and hash the LoRA of ``request``; None when it names none.

        Raises:
            ModelFilesError: as :func:`requested_lora`.
        """
        file = requested_lora(request, layout)
        return cls(file, lora_digest(file, layout), path_of_lora(file.path, layout)) if file else None


def requested_lora(request: ResolvedRequest, layout: RepositoryLayout) -> LoraFile | None:
    """The file in the model's folder ``loras/`` at the request's strength; None when the request names none.

    What the file holds must fit the network, by its header, and be finite numbers; it is read through once.

    Raises:
        ModelFilesError: it is not there (says which there are), or it is for another network or broken.
    """
    if request.lora is None:
        return None
    path = layout.lora(request.lora)
    if not path.is_file():
        raise ModelFilesError(lora_is_absent(layout, request.lora))
    check_lora(path, layout)
    return LoraFile(path, request.lora_strength)


def lora_digest(lora: LoraFile, layout: RepositoryLayout) -> str:
    """SHA-256 of the file, remembered like those of the model files."""
    return sha256_of_files([lora.path], DigestCache.beside(layout))[lora.path]


def path_of_lora(file: Path, layout: RepositoryLayout) -> str:
    """How observed versions call a LoRA: its path below the models folder."""
    return file.relative_to(layout.root.parent).as_posix()
