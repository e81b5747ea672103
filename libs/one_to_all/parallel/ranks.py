"""The worker's side of its ranks: starts them, has them make chunks, notices when one fails, ends all.

The worker itself is not a rank: so it can always answer a cancel, and the end of one rank leaves nothing hanging. See
``rank_process`` for the other side.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from multiprocessing.connection import Connection, Pipe, wait
from pathlib import Path
from typing import Any

import numpy as np

from libs.errors import OneToAllError
from libs.one_to_all.events import StepFinished
from libs.one_to_all.memory.plan import MemoryPlan
from libs.one_to_all.parallel.failures import STOP_SECONDS, error_of_ranks, exit_code
from libs.one_to_all.parallel.messages import (
    LEADER,
    ChunkMade,
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
from libs.one_to_all.weights.lora_file import LoraFile

GATHER_SECONDS = 1.0
"""When one rank fails, others fail for want of it: so long their messages are waited for, to tell which was first."""

_REPOSITORY_ROOT = Path(__file__).resolve().parents[3]
_LAST_CHARACTERS = 1500


class Ranks:
    """Running ranks, loaded and idle; :meth:`start` makes them. Whatever goes wrong, all of them are ended."""

    def __init__(self, processes: Sequence[subprocess.Popen[bytes]], connections: Sequence[Connection], folder: Path):
        self._processes = processes
        self._connections = connections
        self.folder = folder
        self._owner = os.getpid()
        self.precision = ""
        """The precision of the leader's engine."""
        self._busy: set[int] = set()
        self._chunk_number = 0
        self._inside_message = False
        self._ended = False
        self._nothing_is_left = False

    @classmethod
    def start(cls, setups: Sequence[RankSetup], folder: Path) -> "Ranks":
        """Start one process per setup, and wait until all have loaded their networks.

        Args:
            setups: in the order of the ranks; their ``store`` lies in ``folder``.
            folder: a new one, which goes when the ranks end.

        Raises:
            OneToAllError: of the class that the rank raised.
            RankError: a rank ended without a word.
        """
        processes: list[subprocess.Popen[bytes]] = []
        connections: list[Connection] = []
        ranks = cls(processes, connections, folder)
        try:
            ranks._launch_and_load(setups, processes, connections)
        except BaseException:
            ranks.end()
            raise
        return ranks

    def _launch_and_load(
        self, setups: Sequence[RankSetup], processes: list[subprocess.Popen[bytes]], connections: list[Connection]
    ) -> None:
        # On one host, so gloo needs no other interface; without this it asks for the address of the host's name.
        environment = {"GLOO_SOCKET_IFNAME": "lo", **os.environ}
        command = [sys.executable, "-m", "libs.one_to_all.parallel.rank_process"]
        for setup in setups:
            ours, theirs = Pipe()
            # A log of its own: the worker's output at this moment may belong to one run, and the ranks outlive it.
            with theirs, self.log_file(setup.rank).open("wb") as log:
                processes.append(
                    subprocess.Popen(
                        [*command, str(theirs.fileno()), str(self.folder)],
                        pass_fds=[theirs.fileno()],
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        cwd=_REPOSITORY_ROOT,
                        env=environment,
                    )
                )
            connections.append(ours)
            self._send(setup.rank, setup)
        self._wait_until_ready(range(len(setups)))

    @property
    def process_ids(self) -> list[int]:
        """Process ids in the order of the ranks."""
        return [process.pid for process in self._processes]

    @property
    def alive(self) -> bool:
        """Whether all ranks run."""
        return not self._ended and all(process.poll() is None for process in self._processes)

    def make_chunk(self, message: MakeChunk) -> Iterator[StepFinished | np.ndarray]:
        """Have all ranks make a chunk; yields steps, then the frames.

        Left early, the ranks stop after the step at hand and stay loaded; if they do not within 20 s, they are ended.

        Raises:
            OneToAllError: of the class that a rank raised; DeviceOutOfMemoryError where its device was full.
            RankError: a rank ended silently or with an unexpected error.
        """
        if self._busy:
            self._stop_chunk()
        ranks = range(len(self._connections))
        self._chunk_number, self._busy = message.number, set(ranks)
        try:
            for rank in ranks:
                self._send(rank, message if rank == LEADER else JoinChunk())
            while self._busy:
                rank, answer = self._next_message()
                match answer:
                    case Idle():
                        self._busy.discard(rank)
                    case StepFinished():
                        yield answer
                    case ChunkMade():
                        yield answer.frames
        finally:
            if self._busy:
                self._stop_chunk()

    def release_memory(self) -> None:
        """Have all ranks release memory that no clip needs; it is free when this returns."""
        self._tell_all(ReleaseMemory())

    def set_lora(self, lora: LoraFile | None) -> None:
        """Have all ranks use this LoRA and no other beside FP8 weights, between two clips."""
        self._tell_all(SetLora(lora))

    def place(self, plan: MemoryPlan) -> None:
        """Have the leader move its networks, between two clips; the transformers of the others never move."""
        self._tell({LEADER: PlaceNetworks(plan)})

    def _tell_all(self, message: ReleaseMemory | SetLora) -> None:
        self._tell(dict.fromkeys(range(len(self._connections)), message))

    def _tell(self, messages: Mapping[int, PlaceNetworks | SetLora | ReleaseMemory]) -> None:
        """Have ranks do what their messages say, between two clips; returns when they have done so.

        Raises:
            OneToAllError, RankError: see :meth:`make_chunk`; all ranks are ended then.
        """
        if self._busy:
            self._stop_chunk()
        if self._ended:
            return
        try:
            for rank, message in messages.items():
                self._send(rank, message)
            self._wait_until_ready(messages)
        except BaseException:
            self.end()
            raise

    def end(self) -> None:
        """Kill all ranks, wait for them, and remove their folder. They hold nothing that must be saved."""
        if self._nothing_is_left or os.getpid() != self._owner:  # a process that the worker forked has no part in them
            return
        self._ended = True
        self._busy, self._inside_message = set(), False
        for process in self._processes:
            process.kill()
        for process in self._processes:
            process.wait()
        for connection in self._connections:
            connection.close()
        shutil.rmtree(self.folder, ignore_errors=True)
        self._nothing_is_left = True  # else, after an interrupt, whoever ends them next does the rest

    def _wait_until_ready(self, ranks: Iterable[int]) -> None:
        waited_for = set(ranks)
        while waited_for:
            rank, message = self._next_message()
            assert isinstance(message, Ready), message
            self.precision = message.precision or self.precision
            waited_for.discard(rank)

    def _stop_chunk(self) -> None:
        """Leave the chunk at hand, and wait until all ranks are idle; end them if that does not work."""
        if self._ended:
            return
        if self._inside_message:  # the rest of a message is still in a connection: nothing after it can be read
            self.end()
            return
        try:
            self._send(LEADER, StopChunk(self._chunk_number))
            deadline = time.monotonic() + STOP_SECONDS
            while self._busy:
                rank, message = self._next_message(deadline)
                if isinstance(message, Idle):
                    self._busy.discard(rank)
        except OneToAllError:
            pass  # a rank failed meanwhile: all are ended, and nobody waits for this chunk
        except BaseException:
            self.end()
            raise

    def _send(self, rank: int, message: object) -> None:
        try:
            self._inside_message = True
            self._connections[rank].send(message)
            self._inside_message = False
        except BrokenPipeError:
            raise self._end_with_error({}) from None

    def _next_message(self, deadline: float | None = None) -> tuple[int, Any]:
        """(rank, message) of whichever rank says something next.

        Raises:
            OneToAllError, RankError: a rank failed or ended, or none said anything until ``deadline``; all are ended.
        """
        remaining = None if deadline is None else max(0.0, deadline - time.monotonic())
        for connection in wait(self._connections, remaining):
            rank = self._connections.index(connection)  # type: ignore[arg-type]
            message = self._receive(rank)
            if message is None or isinstance(message, Failed):
                raise self._end_with_error({rank: message})
            return rank, message
        raise self._end_with_error({})

    def _receive(self, rank: int) -> Any:
        """The next message of a rank, or None where it has ended."""
        try:
            self._inside_message = True
            message = self._connections[rank].recv()
            self._inside_message = False
        except (EOFError, OSError):
            self._inside_message = False
            return None
        return message

    def _end_with_error(self, known: dict[int, Failed | None]) -> OneToAllError:
        """End all ranks; the error that says why, from what they said of themselves.

        ``known`` holds, by rank, the ``Failed`` that was received, or None for a rank that ended without one.
        """
        ends = dict(known)
        deadline = time.monotonic() + GATHER_SECONDS
        while time.monotonic() < deadline:
            others = {rank: one for rank, one in enumerate(self._connections) if rank not in ends}
            for connection in wait(list(others.values()), max(0.0, deadline - time.monotonic())):
                rank = next(rank for rank, one in others.items() if one is connection)
                message = self._receive(rank)
                if message is None or isinstance(message, Failed):
                    ends[rank] = message
            if len(ends) == len(self._connections):
                break
        silent = [rank for rank, message in ends.items() if message is None]
        logs = {rank: self._last_lines(rank) for rank in silent}
        codes = {rank: exit_code(self._processes[rank]) for rank in silent}
        self.end()
        return error_of_ranks([(rank, message) for rank, message in ends.items() if message is not None], codes, logs)

    def log_file(self, rank: int) -> Path:
        """Return the file with the output of a rank."""
        return self.folder / f"rank-{rank}.log"

    def _last_lines(self, rank: int) -> str:
        log = self.log_file(rank)
        return log.read_text(errors="replace")[-_LAST_CHARACTERS:].strip() if log.is_file() else ""


def new_folder() -> Path:
    """Make a folder for what ranks need while they run: the file through which they meet, and their logs."""
    return Path(tempfile.mkdtemp(prefix="one-to-all-ranks-"))
