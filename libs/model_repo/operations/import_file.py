"""Bringing a checkpoint that is one file, with the names of other programs, into this project's layout.

ComfyUI users have the 14B as one safetensors file with scaled FP8 weights and names of Wan2.1's own code. Only names
and header change: the bytes of the tensors are copied as they are. Everything is compared with the variant before the
first byte is written. No torch.
"""

import json
import re
import shutil
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from libs.errors import InputError, ModelFilesError
from libs.files.atomic_write import atomic_write
from libs.messages.printable import printable
from libs.model_repo.files.checkpoint import SINGLE_FILE_NAME
from libs.model_repo.files.parameters import (
    FP8_DTYPES,
    SCALE_SUFFIX,
    TensorInfo,
    compare_tensors,
    expected_parameters,
)
from libs.model_repo.files.repository import files_of_part, path_of
from libs.model_repo.files.safetensors_header import StoredTensor, read_stored_tensors
from libs.model_repo.files.shared_files import hard_link
from libs.model_repo.files.write_access import require_write_access
from libs.model_repo.hubs.download_plan import check_disk
from libs.model_repo.layout import RepositoryLayout
from libs.model_repo.variants import VARIANTS, ModelVariant
from libs.model_repo.verification.lock import hold_repository, lock_repository, read_lock
from libs.progress import Progress, no_progress

STAGE = "importing"
SHARD = "model-00001-of-00001.safetensors"

_PREFIXES = ("model.diffusion_model.", "diffusion_model.", "model.", "transformer.", "_orig_mod.")
_BRANCHES = ("", "controlnet.", "refextractor.")
_SCALES = (SCALE_SUFFIX, ".weight_scale")
"""How programs call the factor of an FP8 weight."""
_UNUSED = (".comfy_quant", ".scale_input", ".input_scale")
"""Ends of names that say how ComfyUI multiplies; the factor of a weight says all that this project needs."""
_MARKER = "scaled_fp8"
_IMPORTED = "imported from "
_SHOWN_PROBLEMS = 3
_BLOCK_BYTES = 8 << 20

_WAN_NAMES: Sequence[tuple[str, str]] = (
    # names here -> those of Wan2.1's own code and of ComfyUI's wrapper, in each branch
    (r"^(blocks\.\d+)\.attn1\.to_([qkv])\.", r"\1.self_attn.\2."),
    (r"^(blocks\.\d+)\.attn1\.to_out\.0\.", r"\1.self_attn.o."),
    (r"^(blocks\.\d+)\.attn1\.(norm_[qk])\.", r"\1.self_attn.\2."),
    (r"^(blocks\.\d+)\.attn1\.add_([kv])_proj\.", r"\1.ref_attn_\2_img."),
    (r"^(blocks\.\d+)\.attn1\.norm_added_k\.", r"\1.ref_attn_norm_k_img."),
    (r"^(blocks\.\d+)\.attn2\.to_([qkv])\.", r"\1.cross_attn.\2."),
    (r"^(blocks\.\d+)\.attn2\.to_out\.0\.", r"\1.cross_attn.o."),
    (r"^(blocks\.\d+)\.attn2\.(norm_[qk])\.", r"\1.cross_attn.\2."),
    (r"^(blocks\.\d+)\.norm2\.", r"\1.norm3."),
    (r"^(blocks\.\d+)\.ffn\.net\.0\.proj\.", r"\1.ffn.0."),
    (r"^(blocks\.\d+)\.ffn\.net\.2\.", r"\1.ffn.2."),
    (r"^(blocks\.\d+)\.scale_shift_table$", r"\1.modulation"),
    (r"^condition_embedder\.(time|text)_embedder\.linear_1\.", r"\1_embedding.0."),
    (r"^condition_embedder\.(time|text)_embedder\.linear_2\.", r"\1_embedding.2."),
    (r"^condition_embedder\.time_proj\.", r"time_projection.1."),
    (r"^proj_out\.", r"head.head."),
    (r"^scale_shift_table$", r"head.modulation"),
)


@dataclass(frozen=True)
class ImportReport:
    """What was imported.

    Attributes:
        variant: whose checkpoint it is.
        tensors: number of tensors.
        renamed: how many have another name now.
        size: bytes written.
        lacking: parts that the repository still needs; empty where its base has them.
    """

    variant: str
    tensors: int
    renamed: int
    size: int
    lacking: tuple[str, ...]


def wan_name(name: str) -> str:
    """The name of a parameter in Wan2.1's own code; of one that is only in this network, its own name."""
    for branch in reversed(_BRANCHES):
        if name.startswith(branch):
            inner = name.removeprefix(branch)
            for pattern, replacement in _WAN_NAMES:
                if re.search(pattern, inner):
                    return branch + re.sub(pattern, replacement, inner)
            return name
    return name


def variants_of(tensors: Mapping[str, TensorInfo]) -> list[str]:
    """The variants whose checkpoint these tensors, by whatever names, can be."""
    return [
        variant.name
        for variant in VARIANTS.values()
        if not variant.made_by_code and not compare_tensors(variant, _renamed(tensors, variant))
    ]


def choose_variant(file: Path, wanted: str | None) -> ModelVariant:
    """The variant that a file is a checkpoint of.

    Raises:
        InputError: it could be several, and none is ``wanted``; or it is not ``wanted``.
        ModelFilesError: it is none of any variant, or cannot be read.
    """
    tensors = {name: tensor.info for name, tensor in _stored(file).items()}
    if wanted is not None:
        _require_fits(file, tensors, VARIANTS[wanted])
        return VARIANTS[wanted]
    found = variants_of(tensors)
    if len(found) > 1:
        raise InputError(f"{file}: could be {' or '.join(found)}: name one of them with --as")
    if found:
        return VARIANTS[found[0]]
    fp8 = any(info.dtype in FP8_DTYPES for info in tensors.values())
    likely = VARIANTS["14b-fp8" if fp8 else "14b"]
    _require_fits(file, tensors, likely)
    raise AssertionError("what fits a variant was found")


def import_checkpoint(
    file: Path, layout: RepositoryLayout, base: RepositoryLayout | None = None, progress: Progress = no_progress
) -> ImportReport:
    """Write the checkpoint of ``layout`` from ``file``, and lock it; the file stays as it is.

    Args:
        file: one safetensors file.
        layout: of the variant that :func:`choose_variant` names.
        base: a repository with the same pretrained files, which are linked.
        progress: called with bytes written.

    Raises:
        ModelFilesError: the file does not fit, or the repository has a checkpoint already.
        DiskFullError: there is no room; checked before the first byte.
    """
    stored = _stored(file)
    names = _names(stored, layout.variant)
    infos = {ours: stored[theirs].info for ours, theirs in names.items()}
    _require_fits(file, {name: tensor.info for name, tensor in stored.items()}, layout.variant)
    with hold_repository(layout):
        require_write_access(layout, f"the checkpoint of {file} is to be written there")
        if layout.index.is_file() or (layout.root / SINGLE_FILE_NAME).is_file():
            raise ModelFilesError(f"{layout.root}: has a checkpoint already; move it away if this one is meant")
        total = sum(stored[theirs].last - stored[theirs].first for theirs in names.values())
        check_disk(layout.root, total, shutil.disk_usage(layout.root).free)
        header: dict[str, object] = {"__metadata__": {"format": "pt", "imported_from": file.name}}
        offset = 0
        for ours, theirs in names.items():
            end = offset + stored[theirs].last - stored[theirs].first
            dtype, shape = infos[ours]
            header[ours] = {"dtype": dtype, "shape": list(shape), "data_offsets": [offset, end]}
            offset = end
        text = json.dumps(header, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 8)  # data begins at a multiple of 8, as the format asks
        with atomic_write(layout.root / SHARD) as temporary, temporary.open("wb") as target, file.open("rb") as source:
            target.write(struct.pack("<Q", len(text)) + text)
            done = 0
            for theirs in names.values():
                for block in _blocks(source, stored[theirs], file):
                    target.write(block)
                    done += len(block)
                progress(STAGE, done, total, SHARD)
        index = {"metadata": {"total_size": total}, "weight_map": dict.fromkeys(sorted(names), SHARD)}
        with atomic_write(layout.index) as temporary:
            temporary.write_text(json.dumps(index, indent=2) + "\n")
    lacking = complete_import(layout, base, f"{_IMPORTED}{file.name}", progress)
    renamed = sum(ours != theirs for ours, theirs in names.items())
    return ImportReport(layout.variant.name, len(names), renamed, total, tuple(lacking))


def is_imported(layout: RepositoryLayout) -> bool:
    """Whether the checkpoint was imported, by its lock; so it is not to be made from that of its base."""
    lock = read_lock(layout)
    entry = lock.files.get(SHARD) if lock is not None else None
    return entry is not None and entry.source.startswith(_IMPORTED)


def complete_import(
    layout: RepositoryLayout,
    base: RepositoryLayout | None,
    source: str = f"{_IMPORTED}a file",
    progress: Progress = no_progress,
) -> list[str]:
    """Link pretrained files of ``base`` and lock what is there; returns the parts that are still lacking.

    Raises:
        ModelFilesError: a file is another one than its lock says.
    """
    with hold_repository(layout):
        lacking = _link_pretrained(base, layout)
    lock_repository(layout, source=source, progress=progress)
    return lacking


def _stored(file: Path) -> dict[str, StoredTensor]:
    if file.suffix == ".gguf":
        raise ModelFilesError(f"{file}: is a GGUF file; one in safetensors is expected")
    try:
        return read_stored_tensors(file)
    except FileNotFoundError:
        raise ModelFilesError(f"{file}: there is no such file") from None


def _names(tensors: Mapping[str, object], variant: ModelVariant) -> dict[str, str]:
    """Name here -> name in the file, sorted; unused tensors are left out, unknown ones keep their names."""
    aliases: dict[str, str] = {}
    for name in expected_parameters(variant.network):
        aliases |= {name: name, wan_name(name): name}
    found = {}
    for theirs in tensors:
        if theirs.endswith(_UNUSED) or theirs == _MARKER or theirs.endswith(f".{_MARKER}"):
            continue
        found[_our_name(theirs, aliases)] = theirs
    return dict(sorted(found.items()))


def _our_name(theirs: str, aliases: Mapping[str, str]) -> str:
    name = theirs
    while True:
        if name in aliases:
            return aliases[name]
        for end in _SCALES:
            weight = name.removesuffix(end) + ".weight"
            if name.endswith(end) and weight in aliases:
                return aliases[weight].removesuffix(".weight") + SCALE_SUFFIX
        prefix = next((prefix for prefix in _PREFIXES if name.startswith(prefix)), None)
        if prefix is None:
            return theirs
        name = name.removeprefix(prefix)


def _renamed(tensors: Mapping[str, TensorInfo], variant: ModelVariant) -> dict[str, TensorInfo]:
    return {ours: tensors[theirs] for ours, theirs in _names(tensors, variant).items()}


def _require_fits(file: Path, tensors: Mapping[str, TensorInfo], variant: ModelVariant) -> None:
    problems = [problem.message for problem in compare_tensors(variant, _renamed(tensors, variant))]
    if problems:
        shown = "; ".join(printable(problem) for problem in problems[:_SHOWN_PROBLEMS])
        more = f"; and {len(problems) - _SHOWN_PROBLEMS} more" if len(problems) > _SHOWN_PROBLEMS else ""
        raise ModelFilesError(f"{file}: is not the checkpoint of {variant.name}: {shown}{more}")


def _blocks(source: BinaryIO, tensor: StoredTensor, file: Path) -> Iterator[bytes]:
    source.seek(tensor.first)
    left = tensor.last - tensor.first
    while left:
        block = source.read(min(left, _BLOCK_BYTES))
        if not block:
            raise ModelFilesError(f"{file}: ends while it is read; is it still being written?")
        left -= len(block)
        yield block


def _link_pretrained(base: RepositoryLayout | None, target: RepositoryLayout) -> list[str]:
    """Give ``target`` the pretrained files of its base; returns the parts of which there are none."""
    lacking = []
    for part in ("pose_models", "wan_resources"):
        files = {} if base is None else files_of_part(base, part)
        for name, path in files.items():
            place = path_of(target, name)
            if not (place.exists() and place.samefile(path)) and not hard_link(path, place):
                with atomic_write(place) as temporary:
                    shutil.copy2(path, temporary)
        if not files_of_part(target, part):
            lacking.append(part)
    return lacking
