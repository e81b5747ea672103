"""The LoRA a request names: where it lies, whether it fits, and its digest. Light: no torch.

What does not belong here: adding it to a network (``libs.one_to_all.lora``, ``lora_branches``).
"""

from libs.errors import ModelFilesError
from libs.model_repo.digests import DigestCache, sha256_of_files
from libs.model_repo.layout import RepositoryLayout
from libs.one_to_all.lora_file import LoraFile
from libs.requests.animation_request import ResolvedRequest
from libs.stages.requested_models import check_lora, lora_is_absent


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
