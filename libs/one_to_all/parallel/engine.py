"""The engine whose work is done by ranks: the same clips, events and errors as the engine of one process.

Chunks are planned, stored and handed out by the worker; poses are drawn there. A rank that fails ends all of them; the
next chunk starts them again. What does not belong here: processes (``ranks``), dividing the work (``shared_*``).
"""

import gc
import weakref
from collections.abc import Iterator

import numpy as np
import torch

from libs.errors import DeviceError, DeviceOutOfMemoryError
from libs.model_repo.layout import RepositoryLayout
from libs.one_to_all.engine import AnimationEngine
from libs.one_to_all.events import AnimationInputs, StepFinished
from libs.one_to_all.memory.plan import MemoryPlan
from libs.one_to_all.options import SamplingOptions
from libs.one_to_all.parallel.messages import ClipStart, FollowPlan, MakeChunk, RankSetup, UseLora
from libs.one_to_all.parallel.plan import SETTING, ParallelPlan
from libs.one_to_all.parallel.rank_plans import RankPlans
from libs.one_to_all.parallel.ranks import Ranks, new_folder
from libs.one_to_all.sampling.chunk_plan import Chunk
from libs.one_to_all.sampling.long_video import MakeChunk as ChunkMaker
from libs.one_to_all.sampling.long_video import chunk_poses
from libs.one_to_all.speed_options import DEFAULT_SPEED, SpeedOptions
from libs.one_to_all.weights.lora_file import LoraFile


class ParallelEngine(AnimationEngine):
    """Ranks that make one clip after the other, each on a device of its own.

    Args:
        layout: the model repository, read by every rank.
        device: of rank 0; rank r has the r-th CUDA device after it, or the CPU.
        dtype: of all networks.
        plan: how the work is divided.
        lora: of the transformer.
        speed: how the transformer computes.
        memory_plan: where each rank's networks lie; for the variant of ``layout``. None for all on the devices.

    Raises:
        DeviceError: there are fewer devices than ranks.
        SettingsError: the plan does not suit the variant.
        OneToAllError: loading failed in a rank.
    """

    def __init__(
        self,
        layout: RepositoryLayout,
        device: torch.device,
        dtype: torch.dtype,
        plan: ParallelPlan,
        lora: LoraFile | None = None,
        speed: SpeedOptions = DEFAULT_SPEED,
        memory_plan: RankPlans | None = None,
    ) -> None:
        plan.check_heads(layout.variant.network.num_attention_heads, layout.variant.name)
        self.layout = layout
        self.device = device
        self.dtype = dtype
        self.plan = plan
        self.memory_plan = memory_plan
        self._lora = lora
        self._speed = speed
        self._devices = devices_of_ranks(device, plan)
        self._chunks_made = 0
        self.ranks = self._start()

    @property
    def precision(self) -> str:
        """What results depend on: that of the engine of one process, and whether tokens are divided."""
        precision = self.ranks.precision
        return f"{precision}, context:{self.plan.context}" if self.plan.context > 1 else precision

    def follow(self, plan: MemoryPlan | RankPlans) -> None:
        """Have each rank move its networks to where its plan wants them, between two clips."""
        if not isinstance(plan, RankPlans):
            raise ValueError("the plan of one process is for the engine of one")
        self.memory_plan = plan
        self.ranks.tell([FollowPlan(one) for one in plan.plans])

    def use_lora(self, lora: LoraFile | None) -> None:
        """Have all ranks use ``lora`` and no other beside FP8 weights, between two clips.

        Raises:
            ModelFilesError: there is no such file; or it is not for this network, and all ranks are ended.
        """
        if lora is not None:
            lora.identity()
        self._lora = lora
        self.ranks.tell([UseLora(lora)] * self.plan.ranks)

    @property
    def devices(self) -> frozenset[torch.device]:
        """Those of all ranks."""
        return frozenset(map(torch.device, self._devices))

    def bytes_on(self, device: torch.device) -> int:
        """Calculated bytes of weights on ``device``, between two clips; 0 where no plan is followed."""
        plan = self.memory_plan
        return plan.resting_bytes(device) if isinstance(plan, RankPlans) and self.ranks.alive else 0

    @property
    def alive(self) -> bool:  # type: ignore[override]  # read only here
        """False after a rank has ended: the next chunk loads all networks again."""
        return self.ranks.alive

    def chunk_maker(self, inputs: AnimationInputs, options: SamplingOptions) -> ChunkMaker:
        """Makes the chunks of one clip, in the ranks.

        Raises:
            InputError: the quality asked for does not work with tokens that are divided.
        """
        if options.approximation.block_cache_threshold is not None:
            self.plan.check_block_cache()
        return _Clip(self, inputs, options).make_chunk

    def release_memory(self) -> None:
        """Give all devices back what no clip uses any more; the networks stay, unless a rank had failed."""
        gc.collect()
        if self.ranks.alive:
            self.ranks.release_memory()

    def close(self) -> None:
        """End the ranks; their devices are free. Happens by itself when nothing refers to the engine any more."""
        self.ranks.end()

    def next_chunk_number(self) -> int:
        """Counts the chunks that were asked for, with ranks that are loaded: they are started again if need be."""
        if not self.ranks.alive:
            self.ranks.end()
            self.ranks = self._start()
        self._chunks_made += 1
        return self._chunks_made

    def _start(self) -> Ranks:
        folder = new_folder()
        threads = None
        if self.device.type == "cpu":
            threads = max(1, torch.get_num_threads() // self.plan.ranks)
        plans = self.memory_plan.plans if isinstance(self.memory_plan, RankPlans) else None
        setups = [
            RankSetup(
                rank,
                self.plan,
                self.layout,
                device,
                str(self.dtype).removeprefix("torch."),
                self._lora,
                self._speed,
                threads,
                folder / "store",
                plans[rank] if plans else None,
            )
            for rank, device in enumerate(self._devices)
        ]
        ranks = Ranks.start(setups, folder)
        weakref.finalize(self, ranks.end)
        return ranks


class _Clip:
    """One clip being made: its pictures go to the ranks with the first chunk."""

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


def devices_of_ranks(first: torch.device, plan: ParallelPlan) -> list[str]:
    """The device of each rank: neighbours from ``first`` on, or the CPU for all of them.

    Raises:
        DeviceError: this process sees too few.
    """
    if first.type == "cpu":
        return ["cpu"] * plan.ranks
    start, count = first.index or 0, torch.cuda.device_count()
    if start + plan.ranks > count:
        raise DeviceError(
            f"{SETTING}={plan} needs {plan.ranks} CUDA devices from {first} on, and this process sees {count}: give "
            "the worker more (CUDA_VISIBLE_DEVICES, `--gpu 0,1,2`), or divide the work among fewer"
        )
    return [f"cuda:{index}" for index in range(start, start + plan.ranks)]
