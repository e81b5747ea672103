"""What the environment and a clip say about memory; see ``choice`` for the plan that follows. Light: no torch."""

import re
from dataclasses import dataclass
from typing import cast, get_args

from libs.model_repo.variants import ModelVariant
from libs.one_to_all.events import SIZE_MULTIPLE
from libs.one_to_all.memory.plan import GB
from libs.one_to_all.sampling.chunk_plan import DEFAULT_CHUNK_LENGTHS
from libs.settings import Settings
from libs.settings.values import MEMORY_LIMIT_PATTERN, MemoryPlanName

SETTING = "ONE_TO_ALL_MEMORY"


@dataclass(frozen=True)
class MemoryOptions:
    """Which memory plans may be taken.

    Args:
        limit_bytes: count no more than this as free; None for all that is.
        keyword: use this plan, however much memory is free; None to choose by free memory.
        allow_fp8: FP8 weights of a plain variant may be taken, if its FP8 repository is there.
    """

    limit_bytes: int | None = None
    keyword: MemoryPlanName | None = None
    allow_fp8: bool = False


@dataclass(frozen=True)
class ClipSize:
    """What a clip's memory depends on: pixels, frames (4k + 1) of its largest chunk, whether a block cache is on."""

    height: int
    width: int
    frame_count: int
    block_cache: bool = False


DEFAULT_MEMORY = MemoryOptions()


def memory_options(settings: Settings) -> MemoryOptions:
    """Read what ``ONE_TO_ALL_MEMORY`` and ``ONE_TO_ALL_ALLOW_FP8`` ask for."""
    value, limit = settings.one_to_all_memory, re.fullmatch(MEMORY_LIMIT_PATTERN, settings.one_to_all_memory)
    return MemoryOptions(
        limit_bytes=round(float(limit[1]) * GB) if limit else None,
        keyword=cast(MemoryPlanName, value) if value in get_args(MemoryPlanName) else None,
        allow_fp8=settings.one_to_all_allow_fp8,
    )


def largest_usual_clip(variant: ModelVariant) -> ClipSize:
    """Return what to plan for while the clip is not known: 16:9 at the variant's size limit, whole chunks."""
    short = variant.sampling.short_side_limit
    long = round(short * 16 / 9 / SIZE_MULTIPLE) * SIZE_MULTIPLE
    return ClipSize(short, long, DEFAULT_CHUNK_LENGTHS.main)
