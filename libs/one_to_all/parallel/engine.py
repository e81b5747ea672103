"""The engine of several ranks: the same clips, events and errors as the engine of one process.

The worker plans, stores and hands out chunks, and draws poses. A rank that fails ends all of them; the next chunk
starts them again. See ``ranks`` for the processes, ``guidance_parallel`` and ``context_parallel`` for how they divide
the work.
"""

import gc
import weakref
from collections.abc import Generator, Iterator

import numpy as np
import torch

from libs.errors import DeviceError, DeviceOutOfMemoryError
from libs.model_repo.layout import RepositoryLayout
from libs.one_to_all.engine import animate_clip
from libs.one_to_all.events import AnimationEvent, AnimationInputs, ChunkStore, StepFinished
from libs.one_to_all.memory.plan import MemoryPlan
from libs.one_to_all.options import SamplingOptions
from libs.one_to_all.parallel.messages import ClipStart, MakeChunk, RankSetup
from libs.one_to_all.parallel.plan import SETTING, ParallelPlan
from libs.one_to_all.parallel.ranks import Ranks, new_folder
from libs.one_to_all.sampling.chunk_plan import Chunk
from libs.one_to_all.sampling.long_video import MakeChunk as ChunkMaker
from libs.one_to_all.sampling.long_video import chunk_poses
from libs.one_to_all.speed_options import DEFAULT_SPEED, SpeedOptions
from libs.one_to_all.weights.lora_file import LoraFile


class ParallelEngine:
    """An :class:`Engine` of ranks that make one clip after the other, each on a device of its own.

    Args:
        layout: the model repository, read by every rank.
        device: of rank 0; rank r has the r-th CUDA device after it, or the CPU.
        dtype: of all networks.
        parallel: how the work is divided.
        lora: of the transformer.
        speed: how the transformer computes.
        memory_plan: where the networks lie, for the variant of ``layout``; None for all on the devices.

    Raises:
        DeviceError: there are fewer devices than ranks.
        SettingsError: the work on the variant cannot be divided so.
        OneToAllError: loading failed in a rank.
    """

    def __init__(
        self,
        layout: RepositoryLayout,
        device: torch.device,
        dtype: torch.dtype,
        parallel: ParallelPlan,
        lora: LoraFile | None = None,
        speed: SpeedOptions = DEFAULT_SPEED,
        memory_plan: MemoryPlan | None = None,
    ) -> None:
        parallel.check_heads(layout.variant.network.num_attention_heads, layout.variant.name)
        self.layout = layout
        self.device = device
        self.dtype = dtype
        self.parallel = parallel
        self.memory_plan = memory_plan
        self._lora = lora
        self._speed = speed
        self._devices = devices_of_ranks(device, parallel)
        self._chunks_made = 0
        self.ranks = self._start()

    @property
    def precision(self) -> str:
        """What results depend on: that of the engine of one process, and the number of ranks that split tokens."""
        precision = self.ranks.precision
        return f"{precision}, context:{self.parallel.context}" if self.parallel.context > 1 else precision

    def place(self, plan: MemoryPlan) -> None:
        """Move the networks to where ``plan`` wants them, between two clips: those of rank 0, which alone ever move."""
        self.memory_plan = plan
        self.ranks.place(plan)

    def set_lora(self, lora: LoraFile | None) -> None:
        """Have all ranks use ``lora`` and no other beside FP8 weights, between two clips.

        Raises:
            ModelFilesError: there is no such file; or it is not for this network, and all ranks are ended.
        """
        if lora is not None:
            lora.identity()
        self._lora = lora
        self.ranks.set_lora(lora)

    @property
    def devices(self) -> frozenset[torch.device]:
        """The devices of all ranks."""
        return frozenset(map(torch.device, self._devices))

    def bytes_on(self, device: torch.device) -> int:
        """Calculated bytes of weights on ``device``, between two clips; 0 without a memory plan."""
        plan = self.memory_plan
        return plan.resident_bytes(str(device)) if plan is not None and self.ranks.alive else 0

    @property
    def alive(self) -> bool:
        """False after a rank has ended: the next chunk loads all networks again."""
        return self.ranks.alive

    def animate(
        self, inputs: AnimationInputs, options: SamplingOptions, chunks: ChunkStore | None = None
    ) -> Generator[AnimationEvent]:
        """Make one clip, yielding events as it is made; see :func:`animate_clip`."""
        return animate_clip(self, inputs, options, chunks)

    def chunk_maker(self, inputs: AnimationInputs, options: SamplingOptions) -> ChunkMaker:
        """Return what makes the chunks of one clip, in the ranks.

        Raises:
            InputError: the quality asked for does not work where ranks split tokens.
        """
        if options.approximation.block_cache_threshold is not None:
            self.parallel.check_block_cache()
        return _Clip(self, inputs, options).make_chunk

    def release_memory(self) -> None:
        """Release memory that no clip uses on all devices; the networks stay, unless a rank had failed."""
        gc.collect()
        if self.ranks.alive:
            self.ranks.release_memory()

    def close(self) -> None:
        """End the ranks, which frees their devices. Happens automatically when the engine is garbage-collected."""
        self.ranks.end()

    def next_chunk_number(self) -> int:
        """Count one more chunk, after starting the ranks again if they had ended."""
        if not self.ranks.alive:
            self.ranks.end()
            self.ranks = self._start()
        self._chunks_made += 1
        return self._chunks_made

    def _start(self) -> Ranks:
        folder = new_folder()
        threads = None
        if self.device.type == "cpu":
            threads = max(1, torch.get_num_threads() // self.parallel.ranks)
        setups = [
            RankSetup(
                rank,
                self.parallel,
                self.layout,
                device,
                str(self.dtype).removeprefix("torch."),
                self._lora,
                self._speed,
                threads,
                folder / "store",
                self.memory_plan,
            )
            for rank, device in enumerate(self._devices)
        ]
        ranks = Ranks.start(setups, folder)
        weakref.finalize(self, ranks.end)
        return ranks


class _Clip:
    """One clip that is being made; its pictures go to the ranks with the first chunk."""

    def __init__(self, engine: ParallelEngine, inputs: AnimationInputs, options: SamplingOptions) -> None:
        self.engine = engine
        self.inputs = inputs
        self.options = options
        self._known_to: Ranks | None = None

    def make_chunk(self, chunk: Chunk, previous: np.ndarray | None) -> Iterator[StepFinished | np.ndarray]:
        """See ``long_video.MakeChunk``."""
        inputs, number = self.inputs, self.engine.next_chunk_number()
        ranks = self.engine.ranks
        clip = None
        if self._known_to is not ranks:
            clip = ClipStart(inputs.image, inputs.mask, inputs.reference_pose, inputs.frame_count, self.options)
            self._known_to = ranks
        poses = chunk_poses(inputs, chunk)
        try:
            yield from ranks.make_chunk(MakeChunk(number, clip, chunk, poses, previous))
        except DeviceOutOfMemoryError as error:
            raise torch.OutOfMemoryError(str(error)) from error  # the engine says what to change


def devices_of_ranks(first: torch.device, parallel: ParallelPlan) -> list[str]:
    """Name the device of each rank: neighbours from ``first`` on, or the CPU for all of them.

    Raises:
        DeviceError: this process sees too few.
    """
    if first.type == "cpu":
        return ["cpu"] * parallel.ranks
    start, count = first.index or 0, torch.cuda.device_count()
    if start + parallel.ranks > count:
        raise DeviceError(
            f"{SETTING}={parallel} needs {parallel.ranks} CUDA devices from {first} on, and this process sees {count}: "
            "give the worker more (CUDA_VISIBLE_DEVICES, `--gpu 0,1,2`), or divide the work among fewer"
        )
    return [f"cuda:{index}" for index in range(start, start + parallel.ranks)]
