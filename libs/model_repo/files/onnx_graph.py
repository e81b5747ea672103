"""Reading the inputs and outputs of an ONNX file while its weights stay on the disk.

An ONNX file is a protobuf message; its weights are the initializers of its graph. ``onnx.load`` would read all of them
(over a gigabyte for the pose network), so the outer message is walked here, weights are skipped, and only the small
parts go through the ``onnx`` package. Field numbers: https://github.com/onnx/onnx/blob/main/onnx/onnx.proto.

See ``libs.pose.networks.sessions`` for running a graph.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from libs.errors import ModelFilesError
from libs.files.regular_file import open_regular, why_not_regular
from libs.messages.printable import printable
from libs.model_repo.files.repository import is_possible_name

_MODEL_GRAPH = 7
_GRAPH_NODE, _GRAPH_INITIALIZER, _GRAPH_INPUT, _GRAPH_OUTPUT = 1, 5, 11, 12
_LENGTH_DELIMITED = 2
_FIXED_SIZES = {1: 8, 5: 4}
_MOST_FIELDS = 200_000
"""Fifty times those of the largest graph here; each takes a few microseconds."""
_MOST_DIGITS = 18
_SMALL = 64 * 1024  # an initializer that names external data is far smaller; inline weights above this are skipped

Extent = int | None


@dataclass(frozen=True)
class OnnxGraph:
    """Signature of a graph: name -> shape, where None is a dynamic extent; and the files its weights lie in."""

    inputs: dict[str, tuple[Extent, ...]]
    outputs: dict[str, tuple[Extent, ...]]
    node_count: int
    external_files: dict[str, int] = field(default_factory=dict)
    """File name relative to the graph's folder -> bytes it must at least have."""


class IncompleteOnnxError(ModelFilesError):
    """The file ends inside its graph, or a file with its weights is missing or too short."""


def read_onnx_graph(path: Path) -> OnnxGraph:
    """The signature of the graph in ``path``; external weight files are checked to be there and long enough.

    Raises:
        IncompleteOnnxError: the file, or one that holds its weights, is cut off or missing.
        ModelFilesError: not an ONNX model.
    """
    graph = _parse(path)
    if not graph.inputs or not graph.outputs or not graph.node_count:
        raise ModelFilesError(f"{path}: is not an ONNX model (no graph with nodes, inputs and outputs)")
    for name, minimum in graph.external_files.items():
        weights = path.parent / name
        if not is_possible_name(name) or weights.resolve().parent != path.parent.resolve():
            raise ModelFilesError(f"{path}: keeps weights in {printable(name)!r}, which is outside its folder")
        problem = why_not_regular(weights)
        if problem is not None:
            raise ModelFilesError(f"{weights}: {problem} (weights of {path.name})")
        size = weights.stat().st_size if weights.is_file() else -1
        if size < minimum:
            found = "is missing" if size < 0 else f"has {size:,} bytes, at least {minimum:,} expected"
            raise IncompleteOnnxError(f"{weights}: {found} (weights of {path.name})")
    return graph


def _parse(path: Path) -> OnnxGraph:
    import onnx  # noqa: PLC0415 - loading the code location stays light
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # noqa: PLC0415

    inputs: dict[str, tuple[Extent, ...]] = {}
    outputs: dict[str, tuple[Extent, ...]] = {}
    external: dict[str, int] = {}
    initializers: set[str] = set()
    nodes = 0
    with open_regular(path) as (file, size):
        try:
            for number, length in _graph_fields(file, path, size):
                if number == _GRAPH_NODE:
                    nodes += 1
                elif number in (_GRAPH_INPUT, _GRAPH_OUTPUT):
                    if length > _SMALL:
                        raise ModelFilesError(f"{path}: is not an ONNX model (an input or output of {length:,} bytes)")
                    value = onnx.ValueInfoProto.FromString(file.read(length))
                    (inputs if number == _GRAPH_INPUT else outputs)[value.name] = _shape(value)
                elif number == _GRAPH_INITIALIZER and length <= _SMALL:
                    tensor = onnx.TensorProto.FromString(file.read(length))
                    initializers.add(tensor.name)
                    if tensor.data_location == onnx.TensorProto.EXTERNAL:
                        name, end = _external_data(tensor, path)
                        external[name] = max(end, external.get(name, 0))
        except DecodeError as error:
            raise ModelFilesError(f"{path}: is not an ONNX model: {error}") from None
    inputs = {name: shape for name, shape in inputs.items() if name not in initializers}
    return OnnxGraph(inputs, outputs, nodes, external)


def _graph_fields(file: BinaryIO, path: Path, size: int) -> Iterator[tuple[int, int]]:
    """(field number, length) of the graph's fields, the file standing at each one's first byte."""
    budget = iter(range(_MOST_FIELDS))
    for number, length in _fields(file, path, (0, size), budget):
        if number == _MODEL_GRAPH:
            start = file.tell()
            yield from _fields(file, path, (start, start + length), budget)


def _fields(file: BinaryIO, path: Path, span: tuple[int, int], budget: Iterator[int]) -> Iterator[tuple[int, int]]:
    """(field number, length) of each length-delimited field of a message; the caller may read it or not."""
    position, end = span
    while position < end:
        if next(budget, None) is None:
            raise ModelFilesError(f"{path}: is not an ONNX model (it has more than {_MOST_FIELDS:,} parts)")
        file.seek(position)
        key = _varint(file, path)
        wire_type = key & 7
        if key >> 3 == 0:
            raise ModelFilesError(f"{path}: is not an ONNX model (protobuf has no field 0)")
        if wire_type == _LENGTH_DELIMITED:
            length = _varint(file, path)
            position = file.tell() + length
            if position > end:
                raise IncompleteOnnxError(f"{path}: ends {position - end:,} bytes before its ONNX graph does")
            yield key >> 3, length
        elif wire_type in _FIXED_SIZES:
            position = file.tell() + _FIXED_SIZES[wire_type]
        elif wire_type == 0:
            _varint(file, path)
            position = file.tell()
        else:
            raise ModelFilesError(f"{path}: is not an ONNX model (protobuf wire type {wire_type})")


def _varint(file: BinaryIO, path: Path) -> int:
    value = shift = 0
    while True:
        byte = file.read(1)
        if not byte:
            raise IncompleteOnnxError(f"{path}: ends inside its ONNX graph")
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
        shift += 7
        if shift > 63:
            raise ModelFilesError(f"{path}: is not an ONNX model (a number is too long)")


def _shape(value: object) -> tuple[Extent, ...]:
    dims = value.type.tensor_type.shape.dim  # type: ignore[attr-defined]  # onnx ships no types
    return tuple(dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else None for dim in dims)


def _external_data(tensor: object, path: Path) -> tuple[str, int]:
    """(file, byte behind the tensor's last one)."""
    entries = {entry.key: entry.value for entry in tensor.external_data}  # type: ignore[attr-defined]
    end = 0
    for key in ("offset", "length"):
        value = entries.get(key, "0")
        if not (value.isascii() and value.isdecimal() and len(value) <= _MOST_DIGITS):
            raise ModelFilesError(f"{path}: gives weights in another file the {key} {printable(value)!r}, no number")
        end += int(value)
    return os.fspath(entries.get("location", "")), end
