"""One copy of the blocks that lie on the host for all processes that make a clip, whatever their number.

It is memory without a file: the worker opens it and hands its descriptor to the ranks it starts, and it is gone with
the last process that has it open, however that ends. The first rank that offloads its blocks fills it; the others find
theirs there, and read none from the disk. So it is for weights that nothing changes once they are loaded. What does
not belong here: what is copied to and from it (``block_offload``), and who shares it (``parallel``).
"""

import math
import mmap
import os
import sys
from pathlib import Path

import torch
from filelock import FileLock

from libs.errors import DeviceError

_PAGE = mmap.ALLOCATIONGRANULARITY
"""Mappings begin at a multiple of it. The first page holds the number of processes whose blocks lie here."""


def can_share_host_memory() -> bool:
    """Does this system have memory that is shared without a file?"""
    return sys.platform == "linux"


def open_shared_memory() -> int:
    """A descriptor of new, empty memory, for :class:`SharedHostMemory`; closed by whoever asked for it."""
    assert sys.platform == "linux"
    descriptor = os.memfd_create("one-to-all-blocks")
    os.ftruncate(descriptor, _PAGE)
    return descriptor


class SharedHostMemory:
    """One process' view of it.

    Args:
        descriptor: see :func:`open_shared_memory`; inherited by processes, or the same one within a process.
        lock: a file by which processes take turns. Its folder is there.
        page_locked: for copies to a CUDA device, which then need not wait for the processor.

    All methods are called while ``turn`` is held, from before weights are read until they lie here.
    """

    def __init__(self, descriptor: int, lock: Path, page_locked: bool) -> None:
        self.turn = FileLock(lock)
        """A context: one process at a time loads weights, or moves them here or away."""
        self._descriptor = descriptor
        self._page_locked = page_locked
        self._header = torch.frombuffer(mmap.mmap(descriptor, _PAGE), dtype=torch.int64)
        self._pieces: list[torch.Tensor] = []
        self._end = _PAGE
        self.copies = False
        """Whether this process fills what it takes; else it holds the values already."""

    @property
    def filled(self) -> bool:
        """True while the blocks of any process lie here."""
        return bool(self._header[0])

    def begin(self) -> None:
        """Before the blocks of this process are taken, all of them, and in the order of all others."""
        self.copies = not self.filled
        self._end = _PAGE
        self._header[0] += 1

    def take(self, byte_count: int) -> torch.Tensor:
        """Memory for the next block, uint8 [byte_count].

        Raises:
            DeviceError: it cannot be page-locked.
        """
        length = max(1, math.ceil(byte_count / _PAGE)) * _PAGE
        if self.copies:
            os.ftruncate(self._descriptor, self._end + length)
        piece = torch.frombuffer(mmap.mmap(self._descriptor, length, offset=self._end), dtype=torch.uint8)
        self._end += length
        if self._page_locked:
            _page_lock(piece)
        self._pieces.append(piece)
        return piece[:byte_count]

    def give_back(self) -> None:
        """After the blocks of this process were moved away; with the last one's the memory is free."""
        if self._page_locked:
            for piece in self._pieces:
                _unlock(piece)
        self._pieces = []
        self._header[0] -= 1
        if not self.filled:
            os.ftruncate(self._descriptor, _PAGE)


def _page_lock(piece: torch.Tensor) -> None:
    """In this process; memory that several share is page-locked by each of them."""
    error = int(torch.cuda.cudart().cudaHostRegister(piece.data_ptr(), piece.nbytes, 0))
    if error:
        raise DeviceError(
            f"{piece.nbytes} bytes of this machine's memory cannot be page-locked (CUDA error {error}): keep blocks on "
            "the devices (ONE_TO_ALL_MEMORY=drop-text-encoder), or give the worker more memory"
        )


def _unlock(piece: torch.Tensor) -> None:
    error = int(torch.cuda.cudart().cudaHostUnregister(piece.data_ptr()))
    assert not error, f"CUDA error {error}"
