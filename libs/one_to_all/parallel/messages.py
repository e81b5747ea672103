"""Messages between the worker and its ranks, over one connection for each rank. Light: numpy, no torch.

Rank 0 leads: it alone is sent pictures, and it alone sends steps and frames. See ``denoising`` for what ranks send to
each other.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from libs.model_repo.layout import RepositoryLayout
from libs.one_to_all.memory.plan import MemoryPlan
from libs.one_to_all.options import SamplingOptions
from libs.one_to_all.parallel.plan import ParallelPlan
from libs.one_to_all.sampling.chunk_plan import Chunk
from libs.one_to_all.speed_options import SpeedOptions
from libs.one_to_all.weights.lora_file import LoraFile

LEADER = 0

OUT_OF_MEMORY = "OutOfMemoryError"
"""The kind of a ``Failed`` whose device was full."""


@dataclass(frozen=True)
class RankSetup:
    """The first message to a rank: what it is, and what it loads.

    Args:
        rank: from 0.
        parallel: how the work is divided among all ranks.
        layout: the model repository.
        device: of this rank, e.g. ``cuda:1``.
        dtype: of all networks, e.g. ``bfloat16``.
        lora: of the transformer.
        speed: how the transformer computes.
        threads: of arithmetic on the CPU; None leaves it to torch.
        store: a file through which the ranks find each other.
        memory_plan: of all ranks; None for all networks on the devices.
    """

    rank: int
    parallel: ParallelPlan
    layout: RepositoryLayout
    device: str
    dtype: str
    lora: LoraFile | None
    speed: SpeedOptions
    threads: int | None
    store: Path
    memory_plan: MemoryPlan | None = None


@dataclass(frozen=True)
class ClipStart:
    """The pictures of a new clip, as in ``AnimationInputs``, and its options."""

    image: np.ndarray
    mask: np.ndarray
    reference_pose: np.ndarray
    frame_count: int
    options: SamplingOptions


@dataclass(frozen=True)
class MakeChunk:
    """To the leader: make this chunk, with the others; ``number`` counts the chunks of these ranks.

    ``clip`` is None where the chunk belongs to the same clip as the one before. ``poses`` are uint8
    [n, H, W, 3], one per frame of the chunk; ``previous`` the frames to go on from, or None.
    """

    number: int
    clip: ClipStart | None
    chunk: Chunk
    poses: np.ndarray
    previous: np.ndarray | None


@dataclass(frozen=True)
class JoinChunk:
    """To the others: the leader is about to make a chunk."""


@dataclass(frozen=True)
class StopChunk:
    """To the leader: leave chunk ``number`` unfinished, after the step at hand."""

    number: int


@dataclass(frozen=True)
class ReleaseMemory:
    """To all ranks, between two clips: release memory that no clip needs."""


@dataclass(frozen=True)
class PlaceNetworks:
    """To the leader, between two clips: move the networks to where the memory plan wants them."""

    plan: MemoryPlan


@dataclass(frozen=True)
class SetLora:
    """To all, between two clips: use this LoRA and no other beside FP8 weights, or none."""

    lora: LoraFile | None


@dataclass(frozen=True)
class Ready:
    """From a rank: its networks are loaded, or what it was told is done; ``precision`` is the engine's.

    It is empty but for the leader.
    """

    precision: str


@dataclass(frozen=True)
class ChunkMade:
    """From the leader: the frames, uint8 [n, H, W, 3]."""

    frames: np.ndarray


@dataclass(frozen=True)
class Idle:
    """From a rank: its part of the chunk is done, or was stopped."""


@dataclass(frozen=True)
class Failed:
    """From a rank, its last message: the class of the error, what it says, and where it happened."""

    kind: str
    message: str
    traceback: str
