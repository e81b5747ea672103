"""Reading tensors from their files onto the device, at the speed of the disk.

Several threads each read the next few megabytes: into the tensor itself if it is in host memory in the dtype of the
file, else through a small buffer (page-locked for a CUDA device) from which it is copied, or converted on the device,
while the next piece is read. So neither a whole file nor a second copy of a tensor is ever in memory. Files are not
mapped: page faults made mapped files several times slower (``docs/benchmarks.md``).

See ``checkpoint`` for which tensors a model needs.
"""

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import NamedTuple

import torch

from libs.errors import ModelFilesError
from libs.model_repo.files.safetensors_header import StoredTensor
from libs.one_to_all.finite import is_finite, may_not_be_finite

READERS = 4
"""Threads that read: enough that the disk always has a request while others copy and check."""
PIECE_BYTES = 8 * 2**20
_BUFFERS = 2
"""Buffers per thread: one is filled while the device copies the other."""

_TORCH_DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I16": torch.int16,
    "U16": torch.uint16,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I32": torch.int32,
    "U32": torch.uint32,
    "F32": torch.float32,
    "I64": torch.int64,
    "U64": torch.uint64,
    "F64": torch.float64,
}


@dataclass(frozen=True)
class WeightSource:
    """A tensor to read: its name, where it is stored, and the dtype it should have."""

    name: str
    path: Path
    stored: StoredTensor
    dtype: torch.dtype

    @property
    def stored_dtype(self) -> torch.dtype:
        """The dtype in the file."""
        return _TORCH_DTYPES[self.stored.info.dtype]


class _Piece(NamedTuple):
    """Values ``[first, last)`` of a tensor, all dimensions flattened."""

    source: WeightSource
    first: int
    last: int

    @property
    def byte_count(self) -> int:
        return (self.last - self.first) * self.source.stored_dtype.itemsize

    @property
    def offset(self) -> int:
        return self.source.stored.first + self.first * self.source.stored_dtype.itemsize


def read_weights(sources: Sequence[WeightSource], device: torch.device) -> dict[str, torch.Tensor]:
    """Read all ``sources`` to ``device``, by name, and check that their values are finite.

    Peak host memory beside the tensors: 8 MB (with CUDA 16 MB, page-locked) for each of 4 threads.

    Raises:
        ModelFilesError: a file ends too early or cannot be read, a tensor is not floating point or holds NaN or
            infinity. The message names file and tensor.
        torch.OutOfMemoryError: the tensors do not fit; raised before anything is read.
    """
    for source in sources:
        if not source.stored_dtype.is_floating_point:
            raise ModelFilesError(f"{source.path}: {source.name} is {source.stored_dtype}, not a floating point tensor")
    results = {
        source.name: torch.empty(source.stored.info.shape, dtype=source.dtype, device=device) for source in sources
    }
    pieces = _PieceQueue(_pieces(sources))
    with ExitStack() as stack:
        files = {path: _open(path, stack) for path in {source.path for source in sources}}
        readers = [_Reader(files, results, device) for _ in range(READERS)]
        with ThreadPoolExecutor(READERS, thread_name_prefix="weights") as threads:
            for finished in [threads.submit(reader.read_all, pieces) for reader in readers]:
                finished.result()
    suspects = {name for reader in readers for name in reader.suspects()}
    for source in sources:
        if source.name in suspects and not is_finite(results[source.name]):
            raise ModelFilesError(f"{source.path}: {source.name} holds values that are not finite (NaN or infinity)")
    return results


def _pieces(sources: Iterable[WeightSource]) -> Iterator[_Piece]:
    """Pieces of all files in turn, those of one file in the order of their bytes.

    So the threads read different files: several threads in one file disturb the read-ahead of the system.
    """
    by_file: dict[Path, list[WeightSource]] = {}
    for source in sorted(sources, key=lambda source: (source.path, source.stored.first)):
        by_file.setdefault(source.path, []).append(source)
    for row in zip_longest(*map(_pieces_of_file, by_file.values())):
        yield from (piece for piece in row if piece is not None)


def _pieces_of_file(sources: Iterable[WeightSource]) -> Iterator[_Piece]:
    for source in sources:
        count = (source.stored.last - source.stored.first) // source.stored_dtype.itemsize
        step = PIECE_BYTES // source.stored_dtype.itemsize
        for first in range(0, count, step):
            yield _Piece(source, first, min(first + step, count))


def _open(path: Path, stack: ExitStack) -> int:
    descriptor = os.open(path, os.O_RDONLY)
    stack.callback(os.close, descriptor)
    return descriptor


class _PieceQueue:
    """An iterator for several threads, which :meth:`stop` ends."""

    def __init__(self, pieces: Iterator[_Piece]) -> None:
        self._pieces = pieces
        self._lock = threading.Lock()

    def __iter__(self) -> Iterator[_Piece]:
        return self

    def __next__(self) -> _Piece:
        with self._lock:
            return next(self._pieces)

    def stop(self) -> None:
        with self._lock:
            self._pieces = iter(())


class _Reader:
    """One thread: its buffers, and with CUDA a stream on which copies and checks are queued."""

    def __init__(self, files: Mapping[Path, int], results: Mapping[str, torch.Tensor], device: torch.device) -> None:
        self._files = files
        self._results = results
        self._device = device
        self._checks: list[tuple[str, torch.Tensor]] = []
        self._buffers: list[torch.Tensor] = []
        self._copied: list[torch.cuda.Event] = []
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)
            self._stream.wait_stream(torch.cuda.current_stream(device))  # which may still use what was freed there
            self._copied = [torch.cuda.Event() for _ in range(_BUFFERS)]

    def read_all(self, pieces: _PieceQueue) -> None:
        """Read pieces until none is left; an error also ends the other threads."""
        stream: AbstractContextManager[object] = (
            nullcontext() if self._stream is None else torch.cuda.stream(self._stream)
        )
        try:
            with torch.no_grad(), stream:
                for number, piece in enumerate(pieces):
                    self._read(piece, number % _BUFFERS)
        except BaseException:
            pieces.stop()
            raise
        finally:
            if self._stream is not None:  # after an error, too: what is still copied must not hit memory given back
                self._stream.synchronize()

    def suspects(self) -> set[str]:
        """Names of the tensors whose pieces, read by this thread, may not be finite."""
        if not self._checks:
            return set()
        answers = torch.stack([check for _, check in self._checks]).tolist()
        return {name for (name, _), suspicious in zip(self._checks, answers, strict=True) if suspicious}

    def _read(self, piece: _Piece, slot: int) -> None:
        result = self._results[piece.source.name].view(-1)[piece.first : piece.last]
        if self._device.type == "cpu" and result.dtype == piece.source.stored_dtype:
            self._fill(result.view(torch.uint8), piece)
        elif self._stream is None:
            buffer = self._buffer(0)[: piece.byte_count]
            self._fill(buffer, piece)
            result.copy_(buffer.view(piece.source.stored_dtype))
        else:
            buffer = self._buffer(slot)[: piece.byte_count]
            self._copied[slot].synchronize()
            self._fill(buffer, piece)
            values = buffer.view(piece.source.stored_dtype).to(self._device, non_blocking=True)
            result.copy_(values)  # converted on the device
            self._copied[slot].record(self._stream)
        self._checks.append((piece.source.name, may_not_be_finite(result)))

    def _buffer(self, slot: int) -> torch.Tensor:
        while len(self._buffers) <= slot:
            self._buffers.append(torch.empty(PIECE_BYTES, dtype=torch.uint8, pin_memory=self._stream is not None))
        return self._buffers[slot]

    def _fill(self, target: torch.Tensor, piece: _Piece) -> None:
        """Read the bytes of ``piece`` into ``target``, uint8 in host memory."""
        path = piece.source.path
        rest, offset = target.numpy().data, piece.offset
        while rest:
            try:
                count = os.preadv(self._files[path], [rest], offset)
            except OSError as error:
                raise ModelFilesError(f"{path}: cannot be read ({error})") from error
            if not count:
                raise ModelFilesError(f"{path}: ends inside {piece.source.name}; it became shorter while it was read")
            rest, offset = rest[count:], offset + count
