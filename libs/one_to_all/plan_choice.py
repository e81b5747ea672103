"""From a model repository, the memory that is free and what is asked for to a memory plan, and to the files it takes.

What does not belong here: how a plan is found (``memory_plan``), dropping other engines for it (``warm``).
"""

import math
from dataclasses import replace

import torch

from libs.errors import DeviceError, ModelFilesError
from libs.model_repo.layout import RepositoryLayout
from libs.model_repo.variants import FP8_SUFFIX, VARIANTS, ModelVariant
from libs.one_to_all.intermediate_bytes import ALONE, WorkShare
from libs.one_to_all.lora_contents import bytes_beside_fp8
from libs.one_to_all.lora_file import LoraFile
from libs.one_to_all.memory import bytes_of_file, bytes_of_folder
from libs.one_to_all.memory_options import ClipSize, MemoryOptions, largest_usual_clip
from libs.one_to_all.memory_plan import GB, MemoryPlan, plan_memory


def choose_plan(
    layout: RepositoryLayout,
    dtype: torch.dtype,
    free_bytes: int,
    options: MemoryOptions,
    clip: ClipSize | None,
    lora: LoraFile | None = None,
    share: WorkShare = ALONE,
    host_free_bytes: int | None = None,
) -> MemoryPlan:
    """The fastest plan that fits; the smallest where none does, or the one that ``options`` name.

    Args:
        layout: of the variant that is asked for.
        dtype: of text encoder and VAE; the transformer is counted in bfloat16, or FP8 where its files are.
        free_bytes: on the device, without the weights of this variant.
        options: limit, name of a plan, FP8 allowed; FP8 weights of a plain variant are taken only if they are there.
        clip: what is made; the largest usual clip of the variant if it is not known.
        lora: lies beside FP8 weights and takes room there; fused into others it takes none.
        share: of one of several processes that make the clip.
        host_free_bytes: in this machine's memory, likewise; None does not look.
    """
    variant = layout.variant
    clip = clip or largest_usual_clip(variant)
    return plan_memory(
        free_bytes if options.limit_bytes is None else min(free_bytes, options.limit_bytes),
        variant,
        clip.height,
        clip.width,
        clip.frame_count,
        allow_fp8=options.allow_fp8 and fp8_layout(layout) is not None,
        text_encoder_bytes=bytes_of_folder(layout.wan_part("text_encoder"), dtype),
        vae_bytes=bytes_of_folder(layout.wan_part("vae"), dtype),
        keyword=options.keyword,
        block_cache=clip.block_cache,
        lora_bytes=0 if lora is None else _lora_bytes(lora, variant, dtype),
        share=share,
        host_free_bytes=host_free_bytes,
    )


def _lora_bytes(lora: LoraFile, variant: ModelVariant, dtype: torch.dtype) -> int:
    try:
        return bytes_beside_fp8(lora.path, variant, dtype.itemsize)
    except ModelFilesError:  # loading says what is wrong, and how to mend it
        return bytes_of_file(lora.path, dtype)


def check_host(plan: MemoryPlan, device: torch.device) -> None:
    """Raise where ``plan``, for ``device``, would keep more in this machine's memory than is free there.

    Page-locked memory cannot be swapped: the system would end processes, and not by their size alone.

    Raises:
        DeviceError: says what to change.
    """
    if not plan.fits_host:
        assert plan.host_free_bytes is not None
        raise DeviceError(
            f"on {device} no memory plan is smaller than this one ({plan.name}), which keeps "
            f"{math.ceil(plan.host_bytes / GB)} GB of weights in this machine's memory, and "
            f"{plan.host_free_bytes // GB} GB are free: free some, allow FP8 weights (ONE_TO_ALL_ALLOW_FP8), use a "
            "smaller variant, or a device with more memory"
        )


def layout_of_weights(layout: RepositoryLayout, variant: str) -> RepositoryLayout:
    """Where the weights that a plan takes lie: ``layout``, or the FP8 repository beside it."""
    if variant == layout.variant.name:
        return layout
    fp8 = fp8_layout(layout)
    assert fp8 is not None, "such a plan is made only where they are"
    return fp8


def fp8_layout(layout: RepositoryLayout) -> RepositoryLayout | None:
    """The FP8 repository that belongs to a plain one, with the same pretrained files; None if it is not there."""
    variant: ModelVariant | None = VARIANTS.get(layout.variant.name + FP8_SUFFIX.lower())
    if variant is None:
        return None
    fp8 = replace(layout, variant=variant, root=layout.root.parent / variant.folder)
    return fp8 if fp8.index.is_file() else None
