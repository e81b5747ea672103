"""The process of one rank: ``python -m libs.one_to_all.parallel.rank_process FD FOLDER``, which the worker starts.

A rank never recovers from an error: it says what happened and ends, and so do the others, since they wait for it in the
midst of an exchange. See ``roles`` for what a rank holds and does, and ``denoising`` for what ranks send to each other.
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

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh

from libs.errors import is_out_of_memory
from libs.one_to_all.parallel.context_parallel import attention_for_context_parallel
from libs.one_to_all.parallel.messages import (
    LEADER,
    OUT_OF_MEMORY,
    Failed,
    Idle,
    JoinChunk,
    MakeChunk,
    PlaceNetworks,
    RankSetup,
    Ready,
    ReleaseMemory,
    SetLora,
    StopChunk,
)
from libs.one_to_all.parallel.roles import Follower, Leader

EXCHANGE_TIMEOUT = timedelta(minutes=10)
"""Longer than a rank ever waits for another one: the leader's encoding, or a step."""

_WORKER_POLL_SECONDS = 1.0


class WorkerMessages:
    """Messages of the worker, read by a thread of its own, so that a stop is heard during a step.

    The process ends at once when the worker is gone, and with it ``folder``, which the worker can no longer remove.
    """

    def __init__(self, connection: Connection, folder: Path) -> None:
        self._connection = connection
        self._folder = folder
        self._worker = os.getppid()
        self._messages: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._stopped_chunk = -1
        threading.Thread(target=self._read, name="worker messages", daemon=True).start()

    def next(self) -> Any:
        """Wait for the next message."""
        return self._messages.get()

    def is_stopped(self, chunk_number: int) -> bool:
        """Whether the worker wants this chunk to be left unfinished."""
        return self._stopped_chunk >= chunk_number

    def _read(self) -> None:
        while True:
            try:
                # The connection may outlive the worker in a process that it forked.
                while not self._connection.poll(_WORKER_POLL_SECONDS):
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


def join_ranks(setup: RankSetup, device: torch.device) -> DeviceMesh:
    """Meet the other ranks, in a mesh of rows that divide passes and columns that split tokens."""
    backend = "gloo"
    if device.type == "cuda":
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(device)
        torch.cuda.init()  # or the mesh would choose a device of its own
    dist.init_process_group(
        backend,
        init_method=f"file://{setup.store}",
        rank=setup.rank,
        world_size=setup.parallel.ranks,
        timeout=EXCHANGE_TIMEOUT,
    )
    shape = (setup.parallel.guidance, 1, setup.parallel.context)
    return init_device_mesh(device.type, shape, mesh_dim_names=("guidance", "ring", "ulysses"))


def serve(connection: Connection, folder: Path) -> None:
    """Load, and take part in chunks until the worker is gone, and with it ``folder``."""
    setup: RankSetup = connection.recv()
    messages = WorkerMessages(connection, folder)
    if setup.threads is not None:
        torch.set_num_threads(setup.threads)
    device, dtype = torch.device(setup.device), getattr(torch, setup.dtype)
    mesh = join_ranks(setup, device)

    if setup.parallel.context > 1:
        attention = attention_for_context_parallel(setup.speed.attention, device, dtype)
        setup = replace(setup, speed=replace(setup.speed, attention=attention))
    role = (Leader if setup.rank == LEADER else Follower)(setup, device, dtype, mesh, connection)
    connection.send(Ready(role.precision))
    while True:
        message = messages.next()
        match message:
            case MakeChunk() | JoinChunk():
                role.make(message, messages.is_stopped)
                connection.send(Idle())
            case PlaceNetworks():
                role.place(message.plan)
                connection.send(Ready(role.precision))
            case SetLora():
                role.set_lora(message.lora)
                connection.send(Ready(role.precision))
            case ReleaseMemory():
                role.release_memory()
                connection.send(Ready(role.precision))
        del message


def main() -> NoReturn:
    """Serve on the connection whose file descriptor is the first argument; the second is the ranks' folder."""
    for to_all in (signal.SIGINT, signal.SIGTERM):  # of the worker's terminal or session: they are for the worker,
        signal.signal(to_all, signal.SIG_IGN)  # which ends its ranks, or is gone
    connection, folder, worker = Connection(int(sys.argv[1])), Path(sys.argv[2]), os.getppid()
    try:
        serve(connection, folder)
    except BaseException as error:
        kind = OUT_OF_MEMORY if is_out_of_memory(error) else type(error).__name__
        try:
            connection.send(Failed(kind, str(error), traceback.format_exc()))
            worker_is_gone = os.getppid() != worker
        except OSError:
            worker_is_gone = True
        if worker_is_gone:  # most likely this rank fails for want of another one, which heard of it first
            shutil.rmtree(folder, ignore_errors=True)
    # The others may wait for this rank inside a driver: nothing is left to them in good order.
    os._exit(1)


if __name__ == "__main__":
    main()
