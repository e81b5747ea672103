"""Block offload: blocks stay in host memory and are copied to the device one by one, just before they compute.

All three lists of blocks take part: main, control and reference. During a pass a pool holds two slots on the device:
one for the block that computes, and one into which a stream of its own copies the block that will probably follow.
Between passes it holds none. The values are the same wherever they lie, and so is the result.

diffusers' group offload does not do here: it finds only lists directly below the model, fails on lists within lists as
soon as streams are used (each level traces the order of calls under the same hook name), and its order of prefetching
is fixed by the first pass, while here a pass may leave out control or reference blocks. See ``plan`` for when blocks
are offloaded, and ``placement`` for doing it.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from diffusers.hooks.hooks import HookRegistry, ModelHook
from torch import nn

from libs.one_to_all.memory.estimates import page_locked_bytes

SLOTS = 2
"""Blocks on the device at a time: the one that computes, and the one that is copied."""
_HOOK = "one_to_all_block_offload"
_ALIGNMENT = 256


def block_lists(model: nn.Module) -> dict[str, nn.ModuleList]:
    """Find the lists of blocks anywhere in ``model``: all that are called ``blocks``, by their path."""
    return {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and path.rpartition(".")[2] == "blocks"
    }


class HostBlock:
    """A block whose tensors are packed into one piece of host memory, so that one copy moves all of them.

    Args:
        module: the block; its tensors are moved to the host, wherever they are.
        page_locked: whether a GPU can read the host's copy by itself.
    """

    def __init__(self, module: nn.Module, *, page_locked: bool) -> None:
        self.module = module
        self._page_locked = page_locked
        self._pack()

    def _pack(self) -> None:
        self.tensors = self._present()
        self._offsets: list[int] = []
        end = 0
        for tensor in self.tensors:
            self._offsets.append(end)
            end += math.ceil(tensor.nbytes / _ALIGNMENT) * _ALIGNMENT
        self._host = torch.zeros(end, dtype=torch.uint8, pin_memory=self._page_locked)
        self._host_views = self._views(self._host)
        for tensor, view in zip(self.tensors, self._host_views, strict=True):
            view.copy_(tensor.data)
            tensor.data = view  # frees what held the values before the next block is packed

    def repack(self) -> None:
        """Pack again if tensors were added to the module or taken from it."""
        if {id(tensor) for tensor in self.tensors} != {id(tensor) for tensor in self._present()}:
            self._pack()

    @property
    def byte_count(self) -> int:
        """Bytes of a slot that holds this block."""
        return self._host.numel()

    @property
    def host_bytes(self) -> int:
        """Bytes of host memory that this block takes, with those by which page-locking rounds up."""
        return page_locked_bytes(self.byte_count) if self._page_locked and self.byte_count else self.byte_count

    def copy_to(self, buffer: torch.Tensor, *, non_blocking: bool = False) -> None:
        """Copy all tensors to the beginning of ``buffer``, uint8."""
        buffer[: self.byte_count].copy_(self._host, non_blocking=non_blocking)

    def use(self, buffer: torch.Tensor) -> None:
        """Let the block compute from ``buffer``, which :meth:`copy_to` has filled."""
        for tensor, view in zip(self.tensors, self._views(buffer), strict=True):
            tensor.data = view

    def use_host(self) -> None:
        """Let the block's tensors be those on the host again."""
        for tensor, view in zip(self.tensors, self._host_views, strict=True):
            tensor.data = view

    def move_to(self, device: torch.device) -> None:
        """Give each tensor memory of its own on ``device``."""
        for tensor in self.tensors:
            tensor.data = tensor.data.to(device, copy=True)

    def _present(self) -> list[torch.Tensor]:
        return [*self.module.parameters(), *self.module.buffers()]

    def _views(self, buffer: torch.Tensor) -> list[torch.Tensor]:
        return [
            buffer[offset : offset + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
            for tensor, offset in zip(self.tensors, self._offsets, strict=True)
        ]


class Slot:
    """Room for one block on the device; with CUDA, events say when it is filled and when it is free again."""

    def __init__(self, byte_count: int, device: torch.device) -> None:
        self.buffer = torch.empty(byte_count, dtype=torch.uint8, device=device)
        self.block: HostBlock | None = None
        cuda = device.type == "cuda"
        self.copied = torch.cuda.Event() if cuda else None
        self.free = torch.cuda.Event() if cuda else None


class SlotPool:
    """The slots of one pass, and the h2d copies that fill them.

    Args:
        device: where the blocks compute.
    """

    def __init__(self, device: torch.device) -> None:
        self.slots: list[Slot] = []
        self._device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None

    @property
    def byte_count(self) -> int:
        """Bytes of device memory that the slots take at this moment."""
        return sum(slot.buffer.numel() for slot in self.slots)

    def allocate(self, slot_bytes: int) -> None:
        """Take device memory for a pass."""
        self.slots = [Slot(slot_bytes, self._device) for _ in range(SLOTS)]
        if self._stream is not None:  # the buffers' memory may still be in use by what was queued before
            self._stream.wait_stream(torch.cuda.current_stream(self._device))

    def free(self) -> None:
        """Give all device memory back; no block uses it any longer."""
        for slot in self.slots:
            if slot.block is not None:
                slot.block.use_host()
        if self._stream is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)
        self.slots = []

    def slot_of(self, block: HostBlock) -> Slot | None:
        """Find the slot that holds ``block``, or into which it is being copied."""
        return next((slot for slot in self.slots if slot.block is block), None)

    def acquire(self, block: HostBlock) -> Slot:
        """Let ``block`` compute from a slot; copy it there first if it was not prefetched."""
        slot = self.slot_of(block) or self.copy(block)
        if slot.copied is not None:
            torch.cuda.current_stream(self._device).wait_event(slot.copied)
        block.use(slot.buffer)
        return slot

    def release(self, block: HostBlock) -> None:
        """Free the slot of ``block`` once the work queued so far is done."""
        block.use_host()
        slot = self.slot_of(block)
        if slot is not None:
            slot.block = None
            if slot.free is not None:
                slot.free.record(torch.cuda.current_stream(self._device))

    def prefetch(self, block: HostBlock, *, beside: Slot | None = None) -> None:
        """Begin to copy ``block`` unless it is there already; the slot ``beside`` stays as it is."""
        if self.slot_of(block) is None:
            self.copy(block, beside)

    def copy(self, block: HostBlock, beside: Slot | None = None) -> Slot:
        """Copy ``block`` to a slot, if need be over a block that was prefetched and did not follow after all."""
        others = [slot for slot in self.slots if slot is not beside]
        slot = next((slot for slot in others if slot.block is None), others[0])
        slot.block = block
        if self._stream is None or slot.copied is None or slot.free is None:
            block.copy_to(slot.buffer)
            return slot
        self._stream.wait_event(slot.free)
        with torch.cuda.stream(self._stream):
            block.copy_to(slot.buffer, non_blocking=True)
            slot.copied.record(self._stream)
        return slot


class BlockOffload:
    """Keeps the blocks of ``model`` on the host until :meth:`remove`; everything else of it is moved to ``device``.

    With CUDA the host's copies are page-locked. A block that a hook registered later skips (a block cache) is not
    copied either.

    Args:
        model: with parameters anywhere; calls of it are passes, and ``conditioning_scale`` is their keyword.
        device: where it computes.
        pool: device memory for the blocks; a new pool when left out.
    """

    def __init__(self, model: nn.Module, device: torch.device, pool: SlotPool | None = None) -> None:
        self._device = device
        self._pool = SlotPool(device) if pool is None else pool
        self.blocks = [
            HostBlock(block, page_locked=device.type == "cuda")
            for blocks in block_lists(model).values()
            for block in blocks
        ]
        in_blocks = {id(tensor) for tensor in self.tensors}
        for tensor in (*model.parameters(), *model.buffers()):
            if id(tensor) not in in_blocks:
                tensor.data = tensor.data.to(device)
        self._next: dict[tuple[bool, HostBlock | None], HostBlock] = {}
        """What followed a block the last time, in passes without and with control blocks."""
        self._latest: tuple[bool, HostBlock | None] = (True, None)
        for block in self.blocks:
            HookRegistry.check_if_exists_or_initialize(block.module).register_hook(_BlockHook(self, block), _HOOK)
        self._handles = [
            model.register_forward_pre_hook(self._start_pass, with_kwargs=True),
            model.register_forward_hook(self.end_pass, always_call=True),
        ]

    @property
    def tensors(self) -> list[torch.Tensor]:
        """Parameters and buffers of all blocks."""
        return [tensor for block in self.blocks for tensor in block.tensors]

    @property
    def bytes_on_device(self) -> int:
        """Bytes of device memory taken for blocks at this moment."""
        return self._pool.byte_count

    @property
    def host_bytes(self) -> int:
        """Bytes of host memory that all blocks take."""
        return sum(block.host_bytes for block in self.blocks)

    def repack(self) -> None:
        """Pack again, between two passes, the blocks to which parameters were added or from which some were taken."""
        for block in self.blocks:
            block.repack()

    def remove(self) -> None:
        """Undo the offload: move all blocks to the device."""
        self.end_pass()
        for handle in self._handles:
            handle.remove()
        for block in self.blocks:
            HookRegistry.check_if_exists_or_initialize(block.module).remove_hook(_HOOK, recurse=False)
            block.move_to(self._device)

    def acquire(self, block: HostBlock) -> None:
        """Bring ``block`` to the device before it computes, and prefetch the one that will probably follow."""
        slot = self._pool.acquire(block)
        self._next[self._latest] = block
        self._latest = (self._latest[0], block)
        following = self._next.get(self._latest)
        if following is not None:
            self._pool.prefetch(following, beside=slot)

    def release(self, block: HostBlock) -> None:
        """Free the slot of ``block`` after it has computed."""
        self._pool.release(block)

    def _start_pass(self, _: nn.Module, _args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        self._pool.allocate(max((block.byte_count for block in self.blocks), default=0))
        self._latest = (kwargs.get("conditioning_scale", 1.0) != 0, None)
        first = self._next.get(self._latest)
        if first is not None:
            self._pool.prefetch(first)

    def end_pass(self, *_: object) -> None:
        """Free all slots after a pass. Torch calls this hook after each pass, except one that an interrupt ended."""
        self._pool.free()


class _BlockHook(ModelHook):
    """Acquires and releases a block around its forward.

    It is registered before all other hooks, so that it is the innermost and runs only when the block itself runs.
    """

    def __init__(self, offload: BlockOffload, block: HostBlock) -> None:
        super().__init__()
        self._offload = offload
        self._block = block

    @torch.compiler.disable
    def pre_forward(self, _: nn.Module, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """See :class:`ModelHook`."""
        self._offload.acquire(self._block)
        return args, kwargs

    @torch.compiler.disable
    def post_forward(self, _: nn.Module, output: Any) -> Any:
        """See :class:`ModelHook`."""
        self._offload.release(self._block)
        return output
