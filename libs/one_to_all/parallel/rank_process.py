"""One rank: ``python -m libs.one_to_all.parallel.rank_process FD``, started by the worker (``ranks``) and ended by it.

The leader holds all networks and makes chunks as the engine of one process does, but for denoising, in which all take
part; the others hold the transformer only. A rank never recovers from an error: it says what happened and ends, and so
do the others, since they wait for it in the midst of an exchange. What does not belong here: what the worker does about
it (``ranks``), and what ranks tell each other (``shared_denoising``).
"""

import os
import queue
import shutil
import signal
import sys
import threading
import traceback
from dataclasses import replace
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from libs.one_to_all.engine import AnimationEngine
from libs.one_to_all.events import AnimationInputs
from libs.one_to_all.loading import load_transformer
from libs.one_to_all.long_video import MakeChunk as ChunkMaker
from libs.one_to_all.parallel.messages import (
    LEADER,
    OUT_OF_MEMORY,
    ChunkMade,
    ClipStart,
    Failed,
    Idle,
    JoinChunk,
    MakeChunk,
    RankSetup,
    Ready,
    ReleaseMemory,
    StopChunk,
)
from libs.one_to_all.parallel.shared_denoising import SharedDenoising
from libs.one_to_all.parallel.shared_passes import SharedPasses
from libs.one_to_all.parallel.shared_tokens import SharedTokens, attention_for_shared_tokens
from libs.one_to_all.scheduler import build_scheduler

EXCHANGE_TIMEOUT = timedelta(minutes=10)
"""Longer than a rank ever waits for another one: the leader's encoding, or a step."""

_WORKER_LOOK_SECONDS = 1.0


class Inbox:
    """What the worker says, read by a thread of its own, so that a stop is heard during a step.

    The process ends at once when the worker is gone, and with it ``folder``, which the worker can no longer remove.
    """

    def __init__(self, connection: Connection, folder: Path) -> None:
        self._connection = connection
        self._folder = folder
        self._worker = os.getppid()
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._stopped_chunk = -1
        threading.Thread(target=self._read, name="inbox", daemon=True).start()

    def next(self) -> Any:
        """The next message, waited for."""
        return self._messages.get()

    def is_stopped(self, chunk_number: int) -> bool:
        """True once the worker wants this chunk to be left unfinished."""
        return self._stopped_chunk >= chunk_number

    def _read(self) -> None:
        while True:
            try:
                # The connection may outlive the worker in a process that it forked.
                while not self._connection.poll(_WORKER_LOOK_SECONDS):
                    if os.getppid() != self._worker:
                        self._end()
                message = self._connection.recv()
            except (EOFError, OSError):
                self._end()
            if isinstance(message, StopChunk):
                self._stopped_chunk = message.number
            else:
                self._messages.put(message)

    def _end(self) -> NoReturn:
        shutil.rmtree(self._folder, ignore_errors=True)
        os._exit(1)


class Leader:
    """The rank that makes chunks."""

    def __init__(self, engine: AnimationEngine, denoising: SharedDenoising, connection: Connection) -> None:
        self._engine = engine
        self._denoising = denoising
        self._connection = connection
        self._make_chunk: ChunkMaker | None = None
        self._poses = np.empty(0, np.uint8)
        engine.denoise = denoising.lead

    def make(self, message: MakeChunk, inbox: Inbox) -> None:
        """Make the chunk, sending steps and frames, unless it is stopped."""
        if message.clip is not None:
            self._make_chunk = self._engine.chunk_maker(self._inputs(message.clip), message.clip.options)
        assert self._make_chunk is not None
        self._poses = message.poses
        results = self._make_chunk(message.chunk, message.previous)
        for result in results:
            self._connection.send(ChunkMade(result) if isinstance(result, np.ndarray) else result)
            if inbox.is_stopped(message.number):
                results.close()  # type: ignore[attr-defined]  # a generator; tells the other ranks
                break

    def release_memory(self) -> None:
        """Forget the latest clip."""
        self._make_chunk = None
        self._denoising.forget_clip()
        self._engine.release_memory()

    def _inputs(self, clip: ClipStart) -> AnimationInputs:
        def poses(start: int, stop: int) -> np.ndarray:
            return self._poses[: stop - start]  # of the chunk that is being made

        return AnimationInputs(clip.image, clip.mask, clip.reference_pose, clip.frame_count, poses)


def join_ranks(setup: RankSetup, device: torch.device) -> DeviceMesh:
    """Meet the other ranks; a mesh of rows that share passes and columns that share tokens."""
    backend = "gloo"
    if device.type == "cuda":
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(device)
        torch.cuda.init()  # or the mesh would choose a device of its own
    dist.init_process_group(
        backend,
        init_method=f"file://{setup.store}",
        rank=setup.rank,
        world_size=setup.plan.ranks,
        timeout=EXCHANGE_TIMEOUT,
    )
    shape = (setup.plan.guidance, 1, setup.plan.context)
    return init_device_mesh(device.type, shape, mesh_dim_names=("guidance", "ring", "ulysses"))


def serve(connection: Connection) -> None:
    """Load, and take part in chunks until the worker is gone."""
    setup: RankSetup = connection.recv()
    inbox = Inbox(connection, setup.store.parent)
    if setup.threads is not None:
        torch.set_num_threads(setup.threads)
    device, dtype = torch.device(setup.device), getattr(torch, setup.dtype)
    mesh = join_ranks(setup, device)

    speed, engine = setup.speed, None
    if setup.plan.context > 1:
        speed = replace(speed, attention=attention_for_shared_tokens(speed.attention, device, dtype))
    if setup.rank == LEADER:
        engine = AnimationEngine.load(setup.layout, setup.device, dtype, lora=setup.lora, speed=speed)
        transformer, scheduler = engine.networks.transformer, engine.networks.scheduler
    else:
        transformer = load_transformer(setup.layout, device, dtype, setup.lora, speed)
        scheduler = build_scheduler()
    denoising = SharedDenoising(
        device,
        SharedPasses(mesh.get_group("guidance")) if setup.plan.guidance > 1 else None,
        SharedTokens(transformer, mesh) if setup.plan.context > 1 else None,
    )
    leader = None if engine is None else Leader(engine, denoising, connection)
    connection.send(Ready("" if engine is None else engine.precision))
    while True:
        message = inbox.next()
        match message:
            case MakeChunk():
                assert leader is not None
                leader.make(message, inbox)
                connection.send(Idle())
            case JoinChunk():
                denoising.follow(transformer, scheduler)
                connection.send(Idle())
            case ReleaseMemory() if leader is not None:
                leader.release_memory()
            case ReleaseMemory():
                denoising.forget_clip()
                torch.cuda.empty_cache()
        del message


def main() -> NoReturn:
    """Serve on the connection whose file descriptor is the first argument."""
    for to_all in (signal.SIGINT, signal.SIGTERM):  # of the worker's terminal or session: they are for the worker,
        signal.signal(to_all, signal.SIG_IGN)  # which ends its ranks, or is gone
    connection = Connection(int(sys.argv[1]))
    try:
        serve(connection)
    except BaseException as error:
        kind = OUT_OF_MEMORY if isinstance(error, torch.OutOfMemoryError) else type(error).__name__
        connection.send(Failed(kind, str(error), traceback.format_exc()))
    # The others may wait for this rank inside a driver: nothing is left to them in good order.
    os._exit(1)


if __name__ == "__main__":
    main()
