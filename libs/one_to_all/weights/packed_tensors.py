"""Tensors of a block in one piece of the host's memory, so that one copy brings all of them to a device.

What does not belong here: which tensors, and when they move (``block_offload``); whose memory it is
(``shared_host_memory``).
"""

import math
from collections.abc import Callable

import torch

_ALIGNMENT = 256


class PackedTensors:
    """``tensors`` one behind the other in one piece of the host's memory, which ``take`` gives (uint8 [byte_count])."""

    def __init__(self, tensors: list[torch.Tensor], take: Callable[[int], torch.Tensor]) -> None:
        self.tensors = tensors
        self._offsets: list[int] = []
        end = 0
        for tensor in tensors:
            self._offsets.append(end)
            end += math.ceil(tensor.nbytes / _ALIGNMENT) * _ALIGNMENT
        self.byte_count = end
        self.host = take(end)
        self._at_rest = self._views(self.host)

    def rest(self, *, fill: bool = False) -> None:
        """Let the tensors be those here; ``fill`` takes over their values first."""
        for tensor, view in zip(self.tensors, self._at_rest, strict=True):
            if fill:
                view.copy_(tensor.data)
            tensor.data = view  # what it lay in is given back before the next block is packed

    def use(self, copy: torch.Tensor) -> None:
        """Let the tensors be those in ``copy``, which has the values of ``host``."""
        for tensor, view in zip(self.tensors, self._views(copy), strict=True):
            tensor.data = view

    def _views(self, buffer: torch.Tensor) -> list[torch.Tensor]:
        return [
            buffer[offset : offset + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
            for tensor, offset in zip(self.tensors, self._offsets, strict=True)
        ]
