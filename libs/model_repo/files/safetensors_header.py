"""Reading what safetensors files say of themselves: headers and indices, never the tensors, and without torch.

The format (https://huggingface.co/docs/safetensors): 8 bytes little-endian length of the header, the header as JSON
(``{name: {dtype, shape, data_offsets}}``, maybe padded with blanks), then the data. A header fixes the size of its
file to the byte, so truncation shows without reading any data; a flipped bit in the data does not.

See ``parameters`` for what a particular checkpoint should hold.
"""

import math
import reprlib
import struct
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeGuard

from libs.errors import ModelFilesError
from libs.files.json_file import parse_json, read_json_file
from libs.files.regular_file import open_regular
from libs.model_repo.files.parameters import TensorInfo
from libs.model_repo.files.repository import is_possible_name

_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 16 * 1024 * 1024
"""A hundred times that of the largest checkpoint here; 100 MB, as the format permits, take gigabytes to parse."""
_MAX_DIMENSIONS = 64
_MAX_EXTENT = 2**63
_METADATA = "__metadata__"
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

_shown = reprlib.Repr()
_shown.maxstring = _shown.maxother = _shown.maxlong = 100


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
        FileNotFoundError: there is no such file.
        IncompleteSafetensorsError: the file is shorter than its header says.
        ModelFilesError: the header is not valid, or the file is longer than its header says.
    """
    return {name: tensor.info for name, tensor in read_stored_tensors(path).items()}


def read_stored_tensors(path: Path) -> dict[str, StoredTensor]:
    """Read a header like :func:`read_header`, with the position of each tensor in the file."""
    return read_tensors_and_metadata(path)[0]


def read_tensors_and_metadata(path: Path) -> tuple[dict[str, StoredTensor], dict[str, str]]:
    """Read a header like :func:`read_stored_tensors`, with the file's metadata (empty if it has none)."""
    header, start, size = _read_json_header(path)
    tensors: dict[str, StoredTensor] = {}
    spans: list[tuple[int, int]] = []
    metadata = header.pop(_METADATA, None) or {}
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise ModelFilesError(f"{path}: the header's {_METADATA} is not a mapping of texts")
    for name, entry in header.items():
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
    return tensors, metadata


def _read_json_header(path: Path) -> tuple[dict[str, Any], int, int]:
    """The header as a dictionary, the offset at which data begins, and the size of the file."""
    with open_regular(path) as (file, size):
        prefix = file.read(_LENGTH_BYTES)
        if len(prefix) < _LENGTH_BYTES:
            raise IncompleteSafetensorsError(f"{path}: has {size} bytes, too few for a safetensors header")
        (length,) = struct.unpack("<Q", prefix)
        if length > _MAX_HEADER_BYTES:
            raise ModelFilesError(f"{path}: is not a safetensors file (announces a header of {length:,} bytes)")
        text = file.read(length)
    if len(text) < length:
        raise IncompleteSafetensorsError(f"{path}: ends inside its header ({size:,} bytes)")
    header = parse_json(text, f"{path}: its safetensors header")
    if not isinstance(header, dict):
        raise ModelFilesError(f"{path}: its safetensors header is not an object")
    return header, _LENGTH_BYTES + length, size


def _read_entry(path: Path, name: str, entry: Any) -> tuple[TensorInfo, tuple[int, int]]:
    shown = _shown.repr(name)
    fields = entry if isinstance(entry, dict) else {}
    dtype, shape, offsets = (fields.get(field) for field in ("dtype", "shape", "data_offsets"))
    if not (_are_counts(shape, _MAX_DIMENSIONS) and _are_counts(offsets, 2) and len(offsets) == 2):
        raise ModelFilesError(f"{path}: the header's entry of {shown} cannot be read: {_shown.repr(entry)}")
    width = _BYTES_PER_VALUE.get(dtype) if isinstance(dtype, str) else None
    if width is None:
        raise ModelFilesError(f"{path}: the header gives {shown} the dtype {_shown.repr(dtype)}, which is not known")
    first, last = offsets
    if last - first != width * math.prod(shape):
        raise ModelFilesError(f"{path}: the header gives {shown} {last - first} bytes for {dtype} {_shown.repr(shape)}")
    assert isinstance(dtype, str)
    return TensorInfo(dtype, tuple(shape)), (first, last)


def _are_counts(values: Any, most: int) -> TypeGuard[list[int]]:
    """Whether ``values`` is a list of at most that many whole numbers that a file may need."""
    return (
        isinstance(values, list)
        and len(values) <= most
        and all(type(value) is int and 0 <= value < _MAX_EXTENT for value in values)
    )


def read_index(path: Path) -> dict[str, str]:
    """The ``weight_map`` of an index: tensor name -> shard file name.

    Raises:
        FileNotFoundError: there is no such file.
        ModelFilesError: not a valid index, or a shard's name leads out of the folder.
    """
    content = read_json_file(path, "safetensors index")
    entries = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(entries, dict) or not all(isinstance(shard, str) for shard in entries.values()):
        raise ModelFilesError(f"{path}: is not a safetensors index with a weight_map of names to file names")
    if not entries:
        raise ModelFilesError(f"{path}: its weight_map is empty")
    for shard in set(entries.values()):
        if not _is_plain_name(shard):
            raise ModelFilesError(f"{path}: names the shard {_shown.repr(shard)}, which is not a plain file name")
    return entries


def _is_plain_name(name: str) -> bool:
    return (
        name not in {"", ".", ".."} and PurePosixPath(name).name == name and "\\" not in name and is_possible_name(name)
    )
