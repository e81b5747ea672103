"""What a rank holds and does: the leader makes chunks with all networks, the others follow with the transformer.

The leader works as the engine of one process does, except for denoising, in which all take part. See ``rank_process``
for the messages of the worker, ``guidance_parallel`` and ``context_parallel`` for dividing the work.
"""

import gc
from collections.abc import Callable
from multiprocessing.connection import Connection

import numpy as np
import torch
from torch.distributed.device_mesh import DeviceMesh

from libs.one_to_all.compilation import apply_speed
from libs.one_to_all.engine import AnimationEngine
from libs.one_to_all.events import AnimationInputs
from libs.one_to_all.memory.plan import MemoryPlan
from libs.one_to_all.parallel.denoising import ParallelDenoising
from libs.one_to_all.parallel.messages import ChunkMade, ClipStart, JoinChunk, MakeChunk, RankSetup
from libs.one_to_all.sampling.long_video import MakeChunk as ChunkMaker
from libs.one_to_all.sampling.schedule import build_scheduler
from libs.one_to_all.weights.loading import load_transformer
from libs.one_to_all.weights.lora import UnfusedLora, keeps_lora_unfused
from libs.one_to_all.weights.lora_file import LoraFile

IsStopped = Callable[[int], bool]
"""Whether the worker wants the chunk of this number to be left unfinished."""


class Leader:
    """The rank that makes chunks, with all networks.

    Args:
        setup: what it loads.
        device: its own.
        dtype: of all networks.
        mesh: of all ranks.
        connection: to the worker, for steps and frames.
    """

    def __init__(
        self, setup: RankSetup, device: torch.device, dtype: torch.dtype, mesh: DeviceMesh, connection: Connection
    ) -> None:
        self._engine = AnimationEngine.load(
            setup.layout, str(device), dtype, lora=setup.lora, speed=setup.speed, plan=setup.memory_plan
        )
        self._denoising = ParallelDenoising.on_mesh(mesh, self._engine.networks.transformer, device)
        self._connection = connection
        self._make_chunk: ChunkMaker | None = None
        self._poses = np.empty(0, np.uint8)
        self._engine.denoise = self._denoising.denoise

    @property
    def precision(self) -> str:
        """The precision of its engine."""
        return self._engine.precision

    def make(self, message: MakeChunk | JoinChunk, is_stopped: IsStopped) -> None:
        """Make the chunk, sending steps and frames, unless it is stopped."""
        assert isinstance(message, MakeChunk)
        if message.clip is not None:
            self._make_chunk = self._engine.chunk_maker(self._inputs(message.clip), message.clip.options)
        assert self._make_chunk is not None
        self._poses = message.poses
        results = self._make_chunk(message.chunk, message.previous)
        for result in results:
            self._connection.send(ChunkMade(result) if isinstance(result, np.ndarray) else result)
            if is_stopped(message.number):
                results.close()  # type: ignore[attr-defined]  # a generator; tells the other ranks
                break

    def place(self, plan: MemoryPlan) -> None:
        """See :meth:`AnimationEngine.place`."""
        self._engine.place(plan)

    def set_lora(self, lora: LoraFile | None) -> None:
        """See :meth:`AnimationEngine.set_lora`."""
        self._engine.set_lora(lora)

    def release_memory(self) -> None:
        """Forget the latest clip."""
        self._make_chunk = None
        self._denoising.forget_clip()
        self._engine.release_memory()

    def _inputs(self, clip: ClipStart) -> AnimationInputs:
        def poses(start: int, stop: int) -> np.ndarray:
            return self._poses[: stop - start]  # of the chunk that is being made

        return AnimationInputs(clip.image, clip.mask, clip.reference_pose, clip.frame_count, poses)


class Follower:
    """A rank that takes part in denoising; arguments as those of :class:`Leader`."""

    precision = ""

    def __init__(
        self, setup: RankSetup, device: torch.device, dtype: torch.dtype, mesh: DeviceMesh, _connection: Connection
    ) -> None:
        beside = keeps_lora_unfused(setup.layout)
        fused = None if beside else setup.lora
        self._scheduler = build_scheduler()
        self._transformer = load_transformer(setup.layout, device, dtype, fused)
        apply_speed(self._transformer, setup.speed, device, dtype)
        self._unfused_lora = UnfusedLora(self._transformer, dtype)
        if beside:
            self.set_lora(setup.lora)
        self._denoising = ParallelDenoising.on_mesh(mesh, self._transformer, device)

    def make(self, _message: MakeChunk | JoinChunk, _is_stopped: IsStopped) -> None:
        """Take part in the chunk that the leader begins."""
        self._denoising.follow(self._transformer, self._scheduler)

    def place(self, _plan: MemoryPlan) -> None:
        """Ignore the plan: the transformer of a rank never moves."""

    def set_lora(self, lora: LoraFile | None) -> None:
        """See :meth:`UnfusedLora.set`."""
        self._unfused_lora.set(lora)

    def release_memory(self) -> None:
        """Forget the latest clip."""
        self._denoising.forget_clip()
        gc.collect()
        torch.cuda.empty_cache()
