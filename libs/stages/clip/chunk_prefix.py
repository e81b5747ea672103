"""The key prefix of an unfinished clip's chunks: a digest of exactly what determines their pixels.

Too little in the name would mix two clips, too much would lose finished work: a clip that is asked for with another
priority, or by another name of its video, goes on with the chunks it has. See ``libs.storage.chunks``
for the chunks themselves.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from libs.one_to_all.sampling.chunk_plan import DEFAULT_CHUNK_LENGTHS
from libs.requests.documents.animation_request import ResolvedRequest
from libs.stages.clip.sampling import sampling_options
from libs.storage.backends.keys import CHUNKS_PREFIX

_DIGITS = 32


def chunk_prefix(
    request: ResolvedRequest,
    *,
    conditioning: str,
    model: Mapping[str, str] | None,
    lora_sha256s: Sequence[str],
    precision: str,
    code_version: str,
) -> str:
    """``chunks/<request>/<digest>``; chunks of different lengths lie in folders of their own below it.

    Of the request count what the sampler is told (``SamplingOptions``), the model variant and the strength of its
    LoRA. Picture, video, mode, face, size and frame interval count as what became of them: the conditioning.

    Args:
        request: the resolved request.
        conditioning: digest of the stored conditioning.
        model: what the verified model files are, None if they never were verified.
        lora_sha256s: of the LoRAs the request names.
        precision: ``AnimationEngine.precision``.
        code_version: of the stage that samples.
    """
    sampling = sampling_options(request, DEFAULT_CHUNK_LENGTHS).describe()
    del sampling["chunk_lengths"]  # the folder below says them
    determines = {
        "sampling": sampling,
        "variant": request.model,
        "conditioning": conditioning,
        "model": None if model is None else dict(model),
        "lora": _loras(request, lora_sha256s),
        "precision": precision,
        "code": code_version,
    }
    digest = hashlib.sha256(json.dumps(determines, sort_keys=True).encode()).hexdigest()
    return f"{CHUNKS_PREFIX}/{request.id}/{digest[:_DIGITS]}"


def _loras(request: ResolvedRequest, sha256s: Sequence[str]) -> Any:
    """Digests and strengths; one LoRA is written as it was before there could be several."""
    pairs = [[sha256, one.strength] for sha256, one in zip(sha256s, request.chosen_loras, strict=True)]
    if len(pairs) > 1:
        return pairs
    return None if not pairs else pairs[0][0] if pairs[0][1] == 1 else pairs[0]
