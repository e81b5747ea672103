"""Blocks that stay in this machine's memory and come to the device one by one, the next while one computes.

All three lists of blocks take part: main, control and reference. On the device is room for two blocks: the one that
computes, and the one that is copied meanwhile by a stream of its own; between passes for none. The values are the same
wherever they lie, so the result is, too.

Not diffusers' group offload: it finds only lists directly below the model, fails on lists within lists as soon as
streams are used (each level traces the order of calls under the same hook name), and its order of prefetching is fixed
by the first pass, while here a pass may leave out control or reference blocks. What does not belong here: when to do
this (``memory_plan``, ``placement``).
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch
from diffusers.hooks.hooks import HookRegistry, ModelHook
from torch import nn

from libs.one_to_all.memory.host_estimate import page_locked_bytes
from libs.one_to_all.shared_host_memory import SharedHostMemory
from libs.one_to_all.weights.fp8 import names_held_in_fp8
from libs.one_to_all.weights.packed_tensors import PackedTensors

_HOOK = "one_to_all_block_offload"
_SLOTS = 2


def block_lists(model: nn.Module) -> dict[str, nn.ModuleList]:
    """The lists of blocks anywhere in ``model``, by their path: all that are called ``blocks``."""
    return {
        path: module
        for path, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and path.rpartition(".")[2] == "blocks"
    }


def constant_names_in_blocks(model: nn.Module) -> list[str]:
    """Of the tensors in blocks that nothing changes once they are loaded, as the state dict of ``model`` has them.

    In a network with FP8 weights these and their scales: a LoRA is put beside them, or added to others. In any other
    network all of them.
    """
    names = [name for path, blocks in block_lists(model).items() for name in blocks.state_dict(prefix=f"{path}.")]
    in_fp8 = names_held_in_fp8(model)
    return [name for name in names if name in in_fp8] if in_fp8 else names


class BlockOffload:
    """Keeps the blocks of ``model`` on the host until :meth:`remove`; everything else of it is moved to ``device``.

    With CUDA the host's copies are page-locked. A block that a hook registered later skips (a block cache) is not
    copied either.

    Args:
        model: with parameters anywhere; calls of it are passes, and ``conditioning_scale`` is their keyword.
        device: where it computes.
        shared: takes what nothing changes in all blocks (:func:`constant_names_in_blocks`), for several processes at
            once; the values are those that it holds already.
    """

    def __init__(self, model: nn.Module, device: torch.device, shared: SharedHostMemory | None = None) -> None:
        self._device = device
        self._shared = shared
        common: frozenset[int] = frozenset()
        if shared is not None:
            shared.begin()
            tensors = model.state_dict(keep_vars=True)
            common = frozenset(id(tensors[name]) for name in constant_names_in_blocks(model))
        self._blocks = [
            _HostBlock(block, device, shared, common) for blocks in block_lists(model).values() for block in blocks
        ]
        in_blocks = {id(tensor) for tensor in self.tensors}
        for tensor in (*model.parameters(), *model.buffers()):
            if id(tensor) not in in_blocks:
                tensor.data = tensor.data.to(device)
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._slots: list[_Slot] = []
        self._next: dict[tuple[bool, _HostBlock | None], _HostBlock] = {}
        """What came after a block the last time, in passes without and with control blocks."""
        self._before: tuple[bool, _HostBlock | None] = (True, None)
        for block in self._blocks:
            HookRegistry.check_if_exists_or_initialize(block.module).register_hook(_BlockHook(self, block), _HOOK)
        self._handles = [
            model.register_forward_pre_hook(self._start_pass, with_kwargs=True),
            model.register_forward_hook(self.end_pass, always_call=True),
        ]

    @property
    def tensors(self) -> list[torch.Tensor]:
        """Parameters and buffers of all blocks."""
        return [tensor for block in self._blocks for tensor in block.tensors]

    @property
    def bytes_on_device(self) -> int:
        """Of blocks, now."""
        return sum(slot.buffer.numel() for slot in self._slots)

    @property
    def host_bytes(self) -> int:
        """Of the host's memory that all blocks take."""
        return sum(block.host_bytes for block in self._blocks)

    def repack(self) -> None:
        """Between two passes, after parameters were added to layers of blocks or taken from them: these move, too.

        What lies in shared memory does not change.
        """
        for block in self._blocks:
            if {id(tensor) for tensor in block.tensors} != {id(tensor) for tensor in block.present()}:
                block.pack_own()

    def remove(self) -> None:
        """Undo it: all blocks are moved to the device."""
        self.end_pass()
        for handle in self._handles:
            handle.remove()
        for block in self._blocks:
            HookRegistry.check_if_exists_or_initialize(block.module).remove_hook(_HOOK, recurse=False)
            block.stay_on(self._device)
        if self._shared is not None:
            self._shared.give_back()

    def bring(self, block: "_HostBlock") -> None:
        """Before ``block`` computes: it is on the device, and the one that will probably follow is on its way."""
        slot = self._slot_of(block) or self._copy(block)
        if slot.copied is not None:
            torch.cuda.current_stream(self._device).wait_event(slot.copied)
        block.use(slot.buffer)
        self._next[self._before] = block
        self._before = (self._before[0], block)
        following = self._next.get(self._before)
        if following is not None and self._slot_of(following) is None:
            self._copy(following, beside=slot)

    def give_back(self, block: "_HostBlock") -> None:
        """After ``block`` has computed: its room is free for another."""
        block.use(None)
        slot = self._slot_of(block)
        if slot is not None:
            slot.block = None
            if slot.used is not None:
                slot.used.record(torch.cuda.current_stream(self._device))

    def _start_pass(self, _: nn.Module, _args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        size = max((block.byte_count for block in self._blocks), default=0)
        self._slots = [_Slot(size, self._device) for _ in range(_SLOTS)]
        if self._stream is not None:  # the buffers' memory may still be in use by what was queued before
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
        self._before = (kwargs.get("conditioning_scale", 1.0) != 0, None)
        first = self._next.get(self._before)
        if first is not None:
            self._copy(first)

    def end_pass(self, *_: object) -> None:
        """After a pass: no block is on the device. Torch tells of each, but not of one that an interrupt ended."""
        for slot in self._slots:
            if slot.block is not None:
                slot.block.use(None)
        if self._stream is not None:
            torch.cuda.current_stream(self._device).wait_stream(self._stream)
        self._slots = []

    def _slot_of(self, block: "_HostBlock") -> "_Slot | None":
        return next((slot for slot in self._slots if slot.block is block), None)

    def _copy(self, block: "_HostBlock", beside: "_Slot | None" = None) -> "_Slot":
        """Copy ``block`` to a slot; one that holds a block which did not follow after all is overwritten."""
        others = [slot for slot in self._slots if slot is not beside]
        slot = next((slot for slot in others if slot.block is None), others[0])
        slot.block = block
        target = slot.buffer[: block.byte_count]
        if self._stream is None or slot.copied is None or slot.used is None:
            block.copy_to(target)
            return slot
        self._stream.wait_event(slot.used)
        with torch.cuda.stream(self._stream):
            block.copy_to(target, non_blocking=True)
            slot.copied.record(self._stream)
        return slot


class _HostBlock:
    """One block: its tensors packed into one piece of the host's memory, so that it is moved by one copy.

    Two pieces where ``shared`` takes those of its tensors whose ids are in ``common``, and others are left.
    """

    def __init__(
        self, module: nn.Module, device: torch.device, shared: SharedHostMemory | None, common: Collection[int]
    ) -> None:
        self.module = module
        self._page_locked = device.type == "cuda"
        constant = [tensor for tensor in self.present() if id(tensor) in common]
        self._common: PackedTensors | None = None
        if shared is not None and constant:
            self._common = PackedTensors(constant, shared.take)
            self._common.rest(fill=shared.copies)
        self.pack_own()

    def present(self) -> list[torch.Tensor]:
        """The tensors that the module has now."""
        return [*self.module.parameters(), *self.module.buffers()]

    def pack_own(self) -> None:
        """Move the tensors that the module has now to the host, wherever they are, but for what is shared."""
        common: set[int] = set() if self._common is None else {id(tensor) for tensor in self._common.tensors}
        own = [tensor for tensor in self.present() if id(tensor) not in common]
        self._own = PackedTensors(
            own, lambda count: torch.zeros(count, dtype=torch.uint8, pin_memory=self._page_locked)
        )
        self._own.rest(fill=True)
        self._pieces = [self._own] if self._common is None else [self._common, self._own]

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All that move."""
        return [tensor for piece in self._pieces for tensor in piece.tensors]

    @property
    def byte_count(self) -> int:
        """Of all pieces, one behind the other."""
        return sum(piece.byte_count for piece in self._pieces)

    @property
    def host_bytes(self) -> int:
        """Of the host's memory that it takes."""
        common = 0 if self._common is None else self._common.byte_count
        own = self._own.byte_count
        return common + (page_locked_bytes(own) if self._page_locked and own else own)

    def copy_to(self, buffer: torch.Tensor, *, non_blocking: bool = False) -> None:
        """All pieces to ``buffer``, uint8 [byte_count]."""
        for piece, part in self._parts(buffer):
            if piece.byte_count:
                part.copy_(piece.host, non_blocking=non_blocking)

    def use(self, buffer: torch.Tensor | None) -> None:
        """Let the tensors be those in ``buffer``, filled by :meth:`copy_to`; None for those on the host."""
        if buffer is None:
            for piece in self._pieces:
                piece.rest()
        else:
            for piece, part in self._parts(buffer):
                piece.use(part)

    def stay_on(self, device: torch.device) -> None:
        """Give each tensor memory of its own on ``device``."""
        for tensor in self.tensors:
            tensor.data = tensor.data.to(device, copy=True)

    def _parts(self, buffer: torch.Tensor) -> Iterator[tuple[PackedTensors, torch.Tensor]]:
        start = 0
        for piece in self._pieces:
            yield piece, buffer[start : start + piece.byte_count]
            start += piece.byte_count


class _Slot:
    """Room for a block on the device; with CUDA ``copied`` and ``used`` say when it is filled and free again."""

    def __init__(self, byte_count: int, device: torch.device) -> None:
        self.buffer = torch.empty(byte_count, dtype=torch.uint8, device=device)
        self.block: _HostBlock | None = None
        cuda = device.type == "cuda"
        self.copied = torch.cuda.Event() if cuda else None
        self.used = torch.cuda.Event() if cuda else None


class _BlockHook(ModelHook):
    """Registered before all others, so that it is the innermost: it runs when the block's own forward runs."""

    def __init__(self, offload: BlockOffload, block: _HostBlock) -> None:
        super().__init__()
        self._offload = offload
        self._block = block

    @torch.compiler.disable
    def pre_forward(self, _: nn.Module, *args: Any, **kwargs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """See :class:`ModelHook`."""
        self._offload.bring(self._block)
        return args, kwargs

    @torch.compiler.disable
    def post_forward(self, _: nn.Module, output: Any) -> Any:
        """See :class:`ModelHook`."""
        self._offload.give_back(self._block)
        return output
