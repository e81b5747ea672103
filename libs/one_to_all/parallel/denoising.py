"""Denoising of one chunk on all ranks: the leader says what to do, the others take part.

The leader's :meth:`ParallelDenoising.denoise` replaces ``sampling.denoise.denoise``; every other rank calls
:meth:`ParallelDenoising.follow` once per chunk. All ranks take the same steps from the same latents, so all of them
know the result. See ``guidance_parallel`` and ``context_parallel`` for dividing passes and tokens.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Self

import torch
import torch.distributed as dist
from diffusers import FlowMatchEulerDiscreteScheduler
from torch.distributed.device_mesh import DeviceMesh

from libs.one_to_all.network import ActivationCache, OneToAllTransformer3DModel
from libs.one_to_all.parallel.context_parallel import ContextParallel
from libs.one_to_all.parallel.guidance_parallel import GuidanceParallel
from libs.one_to_all.parallel.messages import LEADER
from libs.one_to_all.sampling.denoise import ChunkTask, ClipConditions, DenoisingStep, denoise


@dataclass(frozen=True, eq=False)
class _Work:
    """What the leader was asked for; ``task`` has no clip where ``same_clip`` means the clip of the chunk before."""

    task: ChunkTask
    same_clip: bool


class ParallelDenoising:
    """One rank's part in denoising.

    Args:
        device: of this rank's network.
        passes: with which ranks guidance passes are divided, or None.
        tokens: with which ranks tokens are split, or None.
    """

    def __init__(self, device: torch.device, passes: GuidanceParallel | None, tokens: ContextParallel | None) -> None:
        self._device = device
        self._passes = passes
        self._tokens = tokens
        self._clip: ClipConditions | None = None
        self._activations = ActivationCache()

    @classmethod
    def on_mesh(cls, mesh: DeviceMesh, transformer: OneToAllTransformer3DModel, device: torch.device) -> Self:
        """Make this rank's part from the mesh of all ranks; splitting tokens changes ``transformer``."""
        passes = GuidanceParallel(mesh.get_group("guidance")) if mesh["guidance"].size() > 1 else None
        tokens = ContextParallel(transformer, mesh) if mesh["ulysses"].size() > 1 else None
        return cls(device, passes, tokens)

    def denoise(
        self,
        transformer: OneToAllTransformer3DModel,
        scheduler: FlowMatchEulerDiscreteScheduler,
        task: ChunkTask,
        activations: ActivationCache | None = None,
    ) -> Iterator[DenoisingStep]:
        """Denoise on all ranks; closing the generator ends the chunk on all of them after the step."""
        same_clip = task.clip is self._clip
        self._clip = task.clip
        _send_object(_Work(replace(task, clip=None) if same_clip else task, same_clip))  # type: ignore[arg-type]
        for step in self._steps(transformer, scheduler, task, activations):
            goes_on = False
            try:
                yield step
                goes_on = True
            finally:
                _broadcast_flag(goes_on)

    def follow(self, transformer: OneToAllTransformer3DModel, scheduler: FlowMatchEulerDiscreteScheduler) -> None:
        """Take part in the chunk that the leader begins; returns when it is done, or was ended."""
        work = _receive_object(self._device)
        assert isinstance(work, _Work)
        if not work.same_clip:
            self._clip, self._activations = work.task.clip, ActivationCache()
        assert self._clip is not None
        task = replace(work.task, clip=self._clip)
        for _ in self._steps(transformer, scheduler, task, self._activations):
            if not _broadcast_flag():
                return

    def forget_clip(self) -> None:
        """Let go of the latest clip's tensors; the next chunk must be the first of a clip."""
        self._clip, self._activations = None, ActivationCache()

    def _steps(
        self,
        transformer: OneToAllTransformer3DModel,
        scheduler: FlowMatchEulerDiscreteScheduler,
        task: ChunkTask,
        activations: ActivationCache | None,
    ) -> Iterator[DenoisingStep]:
        if self._tokens is not None:
            self._tokens.expect_tokens(task.noise.shape)
        return denoise(transformer, scheduler, task, activations, self._passes)


# Between ranks, through the CPU: once per chunk what is to be done, once per step whether to go on.


def _send_object(thing: object) -> None:
    buffer = io.BytesIO()
    torch.save(thing, buffer)
    content = torch.frombuffer(buffer.getbuffer(), dtype=torch.uint8)
    dist.broadcast(torch.tensor([content.numel()]), src=LEADER)
    dist.broadcast(content, src=LEADER)


def _receive_object(device: torch.device) -> object:
    size = torch.zeros(1, dtype=torch.int64)
    dist.broadcast(size, src=LEADER)
    content = torch.empty(int(size), dtype=torch.uint8)
    dist.broadcast(content, src=LEADER)
    # Not weights only: it comes from the leader of these ranks, and from nowhere else.
    return torch.load(io.BytesIO(content.numpy().tobytes()), map_location=device, weights_only=False)


def _broadcast_flag(value: bool = False) -> bool:
    """The leader's ``value``, on all ranks."""
    flag = torch.tensor([int(value)])
    dist.broadcast(flag, src=LEADER)
    return bool(flag)
