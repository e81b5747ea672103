"""Making the FP8 variant of a checkpoint: float8_e4m3fn weights with one float16 scale per output channel.

Tensors are read from memory-mapped shards one at a time and written at once, so that memory stays near one tensor. A
shard stands under its final name only when it is whole; a run that was killed carries on behind the last one. The
format is the common one (``<layer>.scale_weight`` beside ``<layer>.weight``, weight = stored * scale).

See ``libs.one_to_all.weights.fp8`` for computing with such weights. Torch is imported when quantizing starts.
"""

import json
import shutil
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from libs.errors import InputError, ModelFilesError
from libs.files.atomic_write import atomic_write
from libs.model_repo.files.checkpoint import SINGLE_FILE_NAME
from libs.model_repo.files.parameters import TensorInfo, is_quantized, scale_name
from libs.model_repo.files.repository import CONFIGURATION_NAME, files_of_part, path_of
from libs.model_repo.files.safetensors_header import read_header, read_index
from libs.model_repo.files.shared_files import hard_link
from libs.model_repo.files.write_access import can_write, require_write_access
from libs.model_repo.hubs.download_plan import check_disk
from libs.model_repo.layout import INDEX_NAME, RepositoryLayout
from libs.model_repo.verification.digests import DigestCache, sha256_of_files
from libs.model_repo.verification.lock import LockedFile, RepositoryLock, hold_repository, read_lock, write_lock
from libs.model_repo.verification.verify import verify_repository
from libs.progress import Progress, no_progress

if TYPE_CHECKING:
    import torch

E4M3_MAX = 448.0
"""The largest finite value of float8_e4m3fn."""
STAGE = "quantizing"
_FP8 = "F8_E4M3"
_SOURCE_DIGEST = "source_sha256"
_BYTES = {"BF16": 2, "F16": 2, "F32": 4, _FP8: 1}


@dataclass(frozen=True)
class QuantizeReport:
    """What was made: shards written now, shards found from an earlier run, sizes in bytes before and after."""

    written: tuple[str, ...]
    kept: tuple[str, ...]
    size_before: int
    size_after: int


def quantize_checkpoint(
    source: RepositoryLayout, target: RepositoryLayout, progress: Progress = no_progress
) -> QuantizeReport:
    """Write the FP8 variant ``target`` of the verified checkpoint ``source``; pretrained files are hard-linked.

    Args:
        source: a repository of plain weights with a lock file.
        target: the repository of its FP8 variant.
        progress: called with bytes of weights read.

    Raises:
        InputError: ``target`` is not the FP8 variant of ``source``.
        ModelFilesError: ``source`` is not complete, or changes while it is read; a weight is not finite.
        DiskFullError: there is no room; checked before the first byte.
    """
    if target.variant.weight_format != "fp8_scaled" or target.variant.base != source.variant.name:
        raise InputError(f"{target.variant.name} is not the FP8 variant of {source.variant.name}")
    with hold_repository(source):
        _require_verified(source)
        locked = read_lock(source)
    if locked is None:
        raise ModelFilesError(
            f"{source.root}: has no lock file; `one-to-all models verify {source.variant.name} --write-lock` makes one"
        )
    with hold_repository(target):
        shards = _shards(source)
        plans = {shard: _plan_shard(read_header(source.root / shard)) for shard in shards}
        damaged = _damaged(target, shards)
        if not can_write(target.root):
            return _as_it_is(source, target, shards, damaged, locked)
        _check_room(target, plans)
        written, kept = [], []
        done, total = 0, sum((source.root / shard).stat().st_size for shard in shards)
        for shard in shards:
            progress(STAGE, done, total, shard)
            digest = locked.files[shard].sha256
            if shard not in damaged and _is_made_from(target.root / shard, digest):
                kept.append(shard)
            else:
                _write_shard(source.root / shard, target.root / shard, plans[shard], digest)
                written.append(shard)
            done += (source.root / shard).stat().st_size
        progress(STAGE, done, total, INDEX_NAME)
        size_after = _write_index(target, plans)
        if (source.root / CONFIGURATION_NAME).is_file():
            _link_or_copy(source.root / CONFIGURATION_NAME, target.root / CONFIGURATION_NAME)
        _link_pretrained(source, target)
        _remove_strangers(target, shards)
        _write_lock(source, target, locked)
    return QuantizeReport(tuple(written), tuple(kept), total, size_after)


def _as_it_is(
    source: RepositoryLayout, target: RepositoryLayout, shards: list[str], damaged: set[str], locked: RepositoryLock
) -> QuantizeReport:
    """The report for a read-only target that was made from this source before: nothing is left to do."""
    lacking = [
        shard
        for shard in shards
        if shard in damaged or not _is_made_from(target.root / shard, locked.files[shard].sha256)
    ]
    if lacking or verify_repository(target).state != "complete":
        require_write_access(target, f"it is not the complete FP8 variant of {source.root}")
    sizes = [sum((layout.root / shard).stat().st_size for shard in shards) for layout in (source, target)]
    return QuantizeReport((), tuple(shards), sizes[0], sizes[1])


def _require_verified(source: RepositoryLayout) -> None:
    """The digest cache makes this quick after a download; without it every byte is read once."""
    report = verify_repository(source, "full")
    if report.part("checkpoint").state != "complete":
        raise ModelFilesError(report.part("checkpoint").message)


def _shards(source: RepositoryLayout) -> list[str]:
    return sorted(set(read_index(source.index).values())) if source.index.is_file() else [SINGLE_FILE_NAME]


@dataclass(frozen=True)
class _Output:
    """One tensor of an FP8 shard; ``scale_of`` is the weight whose scale this is."""

    name: str
    info: TensorInfo
    scale_of: str | None = None

    @property
    def size(self) -> int:
        count = _BYTES[self.info.dtype]
        for extent in self.info.shape:
            count *= extent
        return count


def _plan_shard(tensors: Mapping[str, TensorInfo]) -> list[_Output]:
    """The tensors of the FP8 shard, in the order they are written: each weight followed by its scale."""
    outputs = []
    for name, info in sorted(tensors.items()):
        if is_quantized(name, info.shape):
            outputs.append(_Output(name, TensorInfo(_FP8, info.shape)))
            outputs.append(_Output(scale_name(name), TensorInfo("F16", (info.shape[0], 1)), scale_of=name))
        else:
            outputs.append(_Output(name, info))
    return outputs


def _check_room(target: RepositoryLayout, plans: Mapping[str, list[_Output]]) -> None:
    needed = sum(
        output.size for shard, outputs in plans.items() if not (target.root / shard).is_file() for output in outputs
    )
    check_disk(target.root, needed, shutil.disk_usage(target.root).free)


def _is_made_from(path: Path, digest: str) -> bool:
    """True if ``path`` is a whole shard that an earlier run made from the source with this digest."""
    try:
        read_header(path)
    except (FileNotFoundError, ModelFilesError):
        return False
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        return bool(json.loads(file.read(length)).get("__metadata__", {}).get(_SOURCE_DIGEST) == digest)


def _damaged(target: RepositoryLayout, shards: list[str]) -> set[str]:
    """Shards that an earlier run finished and locked, and that have changed since."""
    try:
        locked = read_lock(target)
    except ModelFilesError:  # it is written again at the end
        return set()
    paths = {shard: target.root / shard for shard in shards if locked and shard in locked.files}
    there = {shard: path for shard, path in paths.items() if path.is_file()}
    digests = sha256_of_files(there.values(), DigestCache.beside(target))
    return {shard for shard, path in there.items() if locked and digests[path] != locked.files[shard].sha256}


def _write_shard(source: Path, target: Path, outputs: list[_Output], digest: str) -> None:
    header: dict[str, object] = {"__metadata__": {"format": "pt", _SOURCE_DIGEST: digest}}
    offset = 0
    for output in outputs:
        end = offset + output.size
        header[output.name] = {
            "dtype": output.info.dtype,
            "shape": list(output.info.shape),
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # data begins at a multiple of 8, as the format asks
    with atomic_write(target) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in _converted(source, outputs):
            write_tensor(file, tensor)


def _converted(source: Path, outputs: list[_Output]) -> Iterator["torch.Tensor"]:
    from safetensors import safe_open  # noqa: PLC0415 - with torch, only when quantizing

    pending: torch.Tensor | None = None
    for output in outputs:
        if output.scale_of is not None:
            assert pending is not None
            yield pending
            pending = None
            continue
        with safe_open(source, framework="pt", device="cpu") as shard:
            # opened again for each tensor: pages of a mapped shard count as this process's memory until it is closed
            tensor = shard.get_tensor(output.name)
        if output.info.dtype == _FP8:
            tensor, pending = quantize_weight(tensor, f"{source}: {output.name}")
        yield tensor


def quantize_weight(weight: "torch.Tensor", name: str = "weight") -> tuple["torch.Tensor", "torch.Tensor"]:
    """A linear layer's weight as (float8_e4m3fn [out, in], float16 scale [out, 1]), with weight ≈ fp8 * scale.

    The scale of an output channel is its largest absolute value over 448, rounded up to float16 *before* the weight is
    divided by it: the rounding costs no accuracy, and nothing is clamped. Rows are converted in blocks: the peak is the
    weight, its result and a few megabytes.

    Raises:
        ModelFilesError: the weight holds NaN or infinity, or a scale is beyond float16.
    """
    import torch  # noqa: PLC0415 - only when quantizing

    rows, columns = weight.shape
    stored = torch.empty(rows, columns, dtype=torch.float8_e4m3fn, device=weight.device)
    scales = torch.empty(rows, 1, dtype=torch.float16, device=weight.device)
    block = max(1, 4 * 1024 * 1024 // max(columns, 1))
    for start in range(0, rows, block):
        part = weight[start : start + block].float()
        largest = part.abs().amax(dim=1, keepdim=True)
        if not torch.isfinite(largest).all():
            raise ModelFilesError(f"{name}: holds values that are not finite (NaN or infinity)")
        scale = (largest / E4M3_MAX).to(torch.float16)
        if not torch.isfinite(scale).all():
            raise ModelFilesError(f"{name}: holds values too large for a float16 scale")
        rounded_down = scale.float() * E4M3_MAX < largest
        scale[rounded_down] = (scale[rounded_down].view(torch.int16) + 1).view(torch.float16)  # the next number up
        scale[largest == 0] = 1.0
        scales[start : start + block] = scale
        stored[start : start + block] = (part / scale.float()).to(torch.float8_e4m3fn)
    return stored, scales


def write_tensor(file: BinaryIO, tensor: "torch.Tensor") -> None:
    """Append the bytes of a tensor to a shard."""
    import torch  # noqa: PLC0415

    file.write(tensor.contiguous().flatten().view(torch.uint8).numpy().data)


def _write_index(target: RepositoryLayout, plans: Mapping[str, list[_Output]]) -> int:
    total = sum(output.size for outputs in plans.values() for output in outputs)
    weight_map = {output.name: shard for shard, outputs in plans.items() for output in outputs}
    metadata = {"total_size": total, "quantization": "float8_e4m3fn, scale per output channel"}
    content = {"metadata": metadata, "weight_map": dict(sorted(weight_map.items()))}
    with atomic_write(target.index) as temporary:
        temporary.write_text(json.dumps(content, indent=2) + "\n")
    return total


def _link_pretrained(source: RepositoryLayout, target: RepositoryLayout) -> None:
    """Give the FP8 repository the pretrained files of its base, unless settings make both use the same folder."""
    for part in ("pose_models", "wan_resources"):
        for name, path in files_of_part(source, part).items():
            place = path_of(target, name)
            if not (place.exists() and place.samefile(path)):
                _link_or_copy(path, place)


def _link_or_copy(path: Path, place: Path) -> None:
    if not hard_link(path, place):
        with atomic_write(place) as temporary:
            shutil.copy2(path, temporary)


def _remove_strangers(target: RepositoryLayout, shards: list[str]) -> None:
    """Shards of an earlier, differently split source, which no index names any more."""
    for path in target.root.glob("*.safetensors"):
        if path.name not in shards:
            path.unlink()


def _write_lock(source: RepositoryLayout, target: RepositoryLayout, locked: RepositoryLock) -> None:
    cache = DigestCache.beside(target)
    own = files_of_part(target, "checkpoint")
    linked = files_of_part(target, "pose_models") | files_of_part(target, "wan_resources")
    digests = sha256_of_files([*own.values(), *linked.values()], cache)
    made = f"quantized from {source.variant.name}"
    entries = {name: LockedFile(path.stat().st_size, digests[path], made) for name, path in own.items()}
    for name, path in linked.items():
        # What the source's lock says holds here too: a damaged file is not declared right by linking it.
        entries[name] = locked.files.get(name) or LockedFile(path.stat().st_size, digests[path], made)
    write_lock(target, RepositoryLock(target.variant.name, dict(sorted(entries.items()))))
