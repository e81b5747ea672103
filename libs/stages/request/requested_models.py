"""Whether the model files that requests need are there, as far as this machine can know: for ``submit``.

The run looks again before anything is computed. See ``libs.one_to_all.weights.lora_file`` for what a LoRA file holds,
``libs.model_repo.verification.verify`` for verifying.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from libs.errors import InputError, ModelFilesError
from libs.model_repo.layout import RepositoryLayout, layout_of
from libs.model_repo.variants import VARIANTS, variant_of_folder
from libs.model_repo.verification.digests import DigestCache
from libs.one_to_all.weights.lora_file import CHECKED_VALUES_CACHE, check_fits, check_values, describe_skipped
from libs.requests.documents.animation_request import LORA_NAME_PATTERN, AnimationRequest
from libs.requests.documents.presets import STEP_DISTILL_LORA
from libs.settings import Settings
from libs.storage.artifacts import ArtifactStore

VERIFICATION = "model_verification"


def model_warnings(requests: Iterable[AnimationRequest], settings: Settings, store: ArtifactStore) -> list[str]:
    """What will stop runs of these ``requests`` before they begin, and what of a LoRA is skipped, each once.

    A machine without any model files reports nothing: the files are where the GPUs are.

    Raises:
        InputError: a LoRA that is there does not fit the model it is named for.
    """
    default = variant_of_folder(settings.one_to_all_model_dir).name
    resolved = (request.resolve(default) for request in requests)
    wanted = {
        (request.model, choice.name if choice else None, request.lora_strict): request
        for request in resolved
        for choice in request.chosen_loras or (None,)
    }
    machine_has_models = any(layout_of(variant, settings).root.is_dir() for variant in VARIANTS)
    found: list[str] = []
    for (model, lora, strict), request in wanted.items():
        layout = layout_of(model, settings)
        if machine_has_models:
            found += _problems_of_files(layout, lora, request.id, strict)
        if store.manifest(VERIFICATION, model) is None:
            found.append(never_verified(model))
    return list(dict.fromkeys(found))


def never_verified(model: str) -> str:
    """What to do about model files that were never verified; a run stops until it is done."""
    return (
        f"{model} was never verified: run the job prepare_models for partition {model!r} in Dagster, which fetches "
        "what is missing and verifies it"
    )


def lora_is_absent(layout: RepositoryLayout, lora: str) -> str:
    """What to do about a LoRA that is not in the model's folder; names those there are."""
    there = [file.stem for file in layout.loras() if re.fullmatch(LORA_NAME_PATTERN, file.stem)]
    plain = lora.removesuffix(".safetensors")
    if plain in there:
        return f"lora: {lora} is named without its ending: write `lora: {plain}`"
    others = f", or name one of {', '.join(there)}" if there else ""
    preset = ": the presets need a step-distilled LoRA (docs/few-steps.md)" if lora == STEP_DISTILL_LORA else ""
    return f"lora: {layout.lora(lora)} is missing{preset}; put the file there{others}"


def check_lora(path: Path, layout: RepositoryLayout, *, strict: bool = True) -> tuple[str, ...]:
    """Return the names of tensors that are skipped; none of a LoRA that must fit strictly.

    Raises:
        ModelFilesError: it cannot be used with the variant of ``layout``; says what is wrong with it.
    """
    skipped = check_fits(path, layout.variant, strict=strict)
    check_values(path, DigestCache.beside(layout, CHECKED_VALUES_CACHE))
    return skipped


def _problems_of_files(layout: RepositoryLayout, lora: str | None, request: str, strict: bool) -> Iterator[str]:
    model = layout.variant.name
    if not layout.root.is_dir():
        yield (
            f"{model} is not on this machine ({layout.root}): fetch it with `{_fetching_command(layout)}`, or by the "
            f"job prepare_models for partition {model!r}, which also verifies it"
        )
    elif lora is not None:
        path = layout.lora(lora)
        if not path.is_file():
            yield lora_is_absent(layout, lora)
            return
        try:
            if skipped := check_lora(path, layout, strict=strict):
                yield f"LoRA {lora}: {describe_skipped(skipped)}"
        except ModelFilesError as error:
            raise InputError(f"{request}: lora: {error}") from None


def _fetching_command(layout: RepositoryLayout) -> str:
    base = layout.variant.base
    return f"one-to-all models download {layout.variant.name}" if base is None else f"one-to-all models quantize {base}"
