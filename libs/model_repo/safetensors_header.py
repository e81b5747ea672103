"""Reading what safetensors files say of themselves: headers and indices, never the tensors, and without torch.

The format (https://huggingface.co/docs/safetensors): 8 bytes little-endian length of the header, the header as JSON
(``{name: {dtype, shape, data_offsets}}``, maybe padded with blanks), then the data. A header fixes the size of its
file to the byte, so truncation shows without reading any data; a flipped bit in the data does not.

What does not belong here: what a particular checkpoint should hold (``parameters``).
"""

import json
import math
import struct
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

from libs.errors import ModelFilesError
from libs.model_repo.parameters import TensorInfo

_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000  # the limit of the safetensors library
_BYTES_PER_VALUE = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "F8_E4M3": 1,
    "F8_E5M2": 1,
    "I16": 2,
    "U16": 2,
    "F16": 2,
    "BF16": 2,
    "I32": 4,
    "U32": 4,
    "F32": 4,
    "I64": 8,
    "U64": 8,
    "F64": 8,
}


class IncompleteSafetensorsError(ModelFilesError):
    """The file ends before the bytes its header announces."""


class StoredTensor(NamedTuple):
    """A tensor and the bytes of its file that hold it: ``[first, last)``, counted from the file's beginning."""

    info: TensorInfo
    first: int
    last: int


def read_header(path: Path) -> dict[str, TensorInfo]:
    """The tensors of a safetensors file, after checking that header and file size agree.

    Raises:
        IncompleteSafetensorsError: the file is shorter than its header says.
        ModelFilesError: the header is not valid, or the file is longer than its header says.
    """
    return {name: tensor.info for name, tensor in read_stored_tensors(path).items()}


def read_stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """As :func:`read_header`, and where in the file each tensor lies."""
    size = path.stat().st_size
    header, start = _read_json_header(path, size)
    tensors: dict[str, StoredTensor] = {}
    spans: list[tuple[int, int]] = []
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        info, span = _read_entry(path, name, entry)
        tensors[name] = StoredTensor(info, start + span[0], start + span[1])
        spans.append(span)
    end = 0
    for first, last in sorted(spans):
        if first != end:
            raise ModelFilesError(f"{path}: the header leaves a gap or an overlap at data byte {end}")
        end = last
    if start + end > size:
        raise IncompleteSafetensorsError(f"{path}: has {size:,} bytes, its header announces {start + end:,}")
    if start + end < size:
        raise ModelFilesError(f"{path}: has {size:,} bytes, its header announces only {start + end:,}")
    return tensors


def _read_json_header(path: Path, size: int) -> tuple[dict[str, Any], int]:
    """The header as a dictionary, and the offset at which data begins."""
    with path.open("rb") as file:
        prefix = file.read(_LENGTH_BYTES)
        if len(prefix) < _LENGTH_BYTES:
            raise IncompleteSafetensorsError(f"{path}: has {size} bytes, too few for a safetensors header")
        (length,) = struct.unpack("<Q", prefix)
        if length > _MAX_HEADER_BYTES:
            raise ModelFilesError(f"{path}: is not a safetensors file (announces a header of {length:,} bytes)")
        text = file.read(length)
    if len(text) < length:
        raise IncompleteSafetensorsError(f"{path}: ends inside its header ({size:,} bytes)")
    try:
        header = json.loads(text)
    except (UnicodeDecodeError, ValueError) as error:
        raise ModelFilesError(f"{path}: its safetensors header is not JSON: {error}") from None
    if not isinstance(header, dict):
        raise ModelFilesError(f"{path}: its safetensors header is not an object")
    return header, _LENGTH_BYTES + length


def _read_entry(path: Path, name: str, entry: Any) -> tuple[TensorInfo, tuple[int, int]]:
    try:
        dtype, shape = str(entry["dtype"]), tuple(int(extent) for extent in entry["shape"])
        first, last = (int(offset) for offset in entry["data_offsets"])
        width = _BYTES_PER_VALUE[dtype]
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFilesError(f"{path}: the header's entry of {name!r} cannot be read: {error!r}") from None
    if last - first != width * math.prod(shape) or first < 0:
        raise ModelFilesError(f"{path}: the header gives {name!r} {last - first} bytes for {dtype} {list(shape)}")
    return TensorInfo(dtype, shape), (first, last)


def read_index(path: Path) -> dict[str, str]:
    """The ``weight_map`` of an index: tensor name -> shard file name.

    Raises:
        ModelFilesError: not a valid index, or a shard's name leads out of the folder.
    """
    try:
        weight_map = json.loads(path.read_bytes())["weight_map"]
        entries = {str(name): str(shard) for name, shard in weight_map.items()}
    except (UnicodeDecodeError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFilesError(f"{path}: is not a safetensors index with a weight_map: {error!r}") from None
    if not entries:
        raise ModelFilesError(f"{path}: its weight_map is empty")
    for shard in set(entries.values()):
        if PurePosixPath(shard).name != shard or shard in {"", ".", ".."} or "\\" in shard:
            raise ModelFilesError(f"{path}: names the shard {shard!r}, which is not a plain file name")
    return entries
