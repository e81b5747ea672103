"""The worker's side alone: whatever a rank says or does, there is one clear error, and nothing is left running.

The ranks played here are processes that sleep, and this test says what they would say.
"""

import os
import signal
import subprocess
import sys
from multiprocessing.connection import Connection, Pipe

import numpy as np
import pytest

from libs.errors import DeviceOutOfMemoryError, InputError, ModelFilesError, OneToAllError, RankError
from libs.one_to_all.events import StepFinished
from libs.one_to_all.parallel import rank_process
from libs.one_to_all.parallel import ranks as ranks_module
from libs.one_to_all.parallel.messages import (
    ChunkMade,
    Failed,
    Idle,
    JoinChunk,
    MakeChunk,
    Ready,
    ReleaseMemory,
    SetLora,
    StopChunk,
)
from libs.one_to_all.parallel.ranks import Ranks, new_folder
from libs.one_to_all.sampling.chunk_plan import Chunk

CHUNK = MakeChunk(7, None, Chunk(0, 0, 5), np.zeros((5, 16, 16, 3), np.uint8), None)
FRAMES = np.ones((5, 16, 16, 3), np.uint8)


class PlayedRanks:
    """Two processes, and the ends of their connections."""

    def __init__(self) -> None:
        self.folder = new_folder()
        pipes = [Pipe() for _ in range(2)]
        self.processes = [
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1800)"]) for _ in range(len(pipes))
        ]
        self.theirs: list[Connection] = [theirs for _, theirs in pipes]
        self.ours: list[Connection] = [ours for ours, _ in pipes]
        self.ranks = Ranks(self.processes, self.ours, self.folder)

    def kill(self, rank: int) -> None:
        self.processes[rank].kill()
        self.theirs[rank].close()

    def assert_nothing_is_left(self) -> None:
        assert not self.ranks.alive
        assert all(process.returncode is not None for process in self.processes)
        assert all(connection.closed for connection in self.ours)
        assert not self.folder.exists()


@pytest.fixture
def played(monkeypatch):
    monkeypatch.setattr(ranks_module, "GATHER_SECONDS", 0.2)
    monkeypatch.setattr(ranks_module, "STOP_SECONDS", 0.3)
    played = PlayedRanks()
    yield played
    played.ranks.end()


def test_a_chunk_is_done_when_all_ranks_are_idle(played):
    leader, other = played.theirs
    results = played.ranks.make_chunk(CHUNK)
    for message in (StepFinished(0, 1, 1), ChunkMade(FRAMES), Idle()):
        leader.send(message)
    assert next(results) == StepFinished(0, 1, 1)
    assert next(results) is not None
    other.send(Idle())
    assert list(results) == []
    assert isinstance(leader.recv(), MakeChunk)
    assert isinstance(other.recv(), JoinChunk)
    assert played.ranks.alive


def test_a_chunk_that_is_left_is_stopped(played):
    leader, other = played.theirs
    results = played.ranks.make_chunk(CHUNK)
    leader.send(StepFinished(0, 1, 2))
    next(results)
    for rank in (leader, other):
        rank.send(Idle())
    results.close()
    leader.recv()
    assert leader.recv() == StopChunk(7)
    assert played.ranks.alive
    for rank in (leader, other):
        rank.send(Ready(""))
    played.ranks.release_memory()
    assert isinstance(leader.recv(), ReleaseMemory)


def test_what_all_are_told_is_done_when_all_are_ready(played):
    leader, other = played.theirs
    leader.send(Ready("torch.bfloat16, weights in FP8"))
    other.send(Ready(""))
    played.ranks.set_lora(None)
    assert [rank.recv() for rank in (leader, other)] == [SetLora(None)] * 2
    assert played.ranks.precision == "torch.bfloat16, weights in FP8"
    assert played.ranks.alive


def test_a_rank_that_cannot_do_what_it_is_told_ends_all(played):
    leader, other = played.theirs
    leader.send(Ready(""))
    other.send(Failed("ModelFilesError", "distilled.safetensors: holds no tensors", ""))
    with pytest.raises(ModelFilesError, match=r"rank 1: distilled\.safetensors"):
        played.ranks.set_lora(None)
    played.assert_nothing_is_left()


def test_ranks_that_do_not_stop_are_ended(played):
    results = played.ranks.make_chunk(CHUNK)
    played.theirs[0].send(StepFinished(0, 1, 2))
    next(results)
    results.close()
    played.assert_nothing_is_left()
    played.ranks.release_memory()  # nothing is there that could give any back


def test_what_was_interrupted_inside_a_message_cannot_go_on(played):
    results = played.ranks.make_chunk(CHUNK)
    played.theirs[0].send(StepFinished(0, 1, 2))
    next(results)
    played.ranks._inside_message = True
    for rank in played.theirs:  # as if all were well
        rank.send(Idle())
    results.close()
    played.assert_nothing_is_left()


OUT_OF_MEMORY = Failed("OutOfMemoryError", "CUDA out of memory. Tried to allocate 2 GiB", "Traceback ...")
CONSEQUENCE = Failed("RuntimeError", "Connection closed by peer", "Traceback ...")


@pytest.mark.parametrize(
    ("said", "error", "message"),
    [
        ({1: OUT_OF_MEMORY}, DeviceOutOfMemoryError, "rank 1: CUDA out of memory"),
        ({0: CONSEQUENCE, 1: OUT_OF_MEMORY}, DeviceOutOfMemoryError, "rank 1: CUDA out of memory"),
        ({0: CONSEQUENCE, 1: Failed("InputError", "no such thing", "")}, InputError, "rank 1: no such thing"),
        ({0: CONSEQUENCE}, RankError, "rank 0 failed with RuntimeError: Connection closed by peer"),
    ],
)
def test_an_error_of_one_rank_ends_all(played, said, error, message):
    results = played.ranks.make_chunk(CHUNK)
    for rank, failed in said.items():
        played.theirs[rank].send(failed)
    with pytest.raises(OneToAllError, match=message) as caught:
        next(results)
    assert type(caught.value) is error
    played.assert_nothing_is_left()


@pytest.mark.parametrize("killed", [0, 1])
def test_a_killed_rank_is_named_rather_than_what_follows_from_it(played, killed):
    played.ranks.log_file(killed).write_text("what it printed last")
    results = played.ranks.make_chunk(CHUNK)
    played.theirs[1 - killed].send(CONSEQUENCE)
    played.kill(killed)
    with pytest.raises(RankError, match=rf"rank {killed} ended with signal 9.*\n.*printed last") as caught:
        next(results)
    assert caught.value.retryable
    played.assert_nothing_is_left()


def test_a_rank_that_ended_between_chunks(played):
    played.kill(1)
    played.processes[1].wait()
    assert not played.ranks.alive
    with pytest.raises(RankError, match="rank 1 ended with signal 9"):
        list(played.ranks.make_chunk(CHUNK))
    played.assert_nothing_is_left()


class Interrupted(BaseException):
    pass


def test_an_interrupt_while_waiting_stops_the_chunk(played, monkeypatch):
    """As a cancel comes: a signal whose handler raises."""

    def handle(*_):
        raise Interrupted

    previous = signal.signal(signal.SIGALRM, handle)
    try:
        played.theirs[1].send(Idle())
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        with pytest.raises(Interrupted):
            next(played.ranks.make_chunk(CHUNK))
    finally:
        signal.signal(signal.SIGALRM, previous)
    played.assert_nothing_is_left()  # this leader did not answer the stop


@pytest.mark.parametrize("during", ["stopping a chunk", "telling"])
def test_an_interrupt_that_leaves_answers_behind_ends_all(played, monkeypatch, during):
    def interrupted(*_):
        raise Interrupted

    results = played.ranks.make_chunk(CHUNK)
    if during == "stopping a chunk":
        played.theirs[0].send(StepFinished(0, 1, 2))
        next(results)
    monkeypatch.setattr(played.ranks, "_next_message", interrupted)
    with pytest.raises(Interrupted):
        if during == "telling":
            played.ranks.set_lora(None)
        else:
            results.close()
    played.assert_nothing_is_left()


def test_a_forked_process_does_not_end_them(played):
    child = os.fork()
    if child == 0:
        played.ranks.end()
        os._exit(0)
    os.waitpid(child, 0)
    assert played.ranks.alive
    assert played.folder.is_dir()


def test_an_interrupted_end_is_ended_by_whoever_ends_them_next(played, monkeypatch):
    def interrupt(*_, **__):
        monkeypatch.undo()
        raise Interrupted

    monkeypatch.setattr(ranks_module.shutil, "rmtree", interrupt)
    with pytest.raises(Interrupted):
        played.ranks.end()
    played.ranks.end()
    played.assert_nothing_is_left()


class Exited(BaseException):
    pass


@pytest.mark.parametrize("worker_listens", [True, False])
def test_a_rank_that_fails_removes_the_folder_if_its_worker_cannot(tmp_path, monkeypatch, worker_listens):
    """It fails because another rank ended, which noticed first that the worker is gone."""
    folder = tmp_path / "ranks"
    folder.mkdir()
    ours, theirs = Pipe()

    def fail(*_):
        if not worker_listens:
            ours.close()
        raise RuntimeError("Connection closed by peer")

    def leave(_code):
        raise Exited

    monkeypatch.setattr(rank_process, "serve", fail)
    monkeypatch.setattr(rank_process.signal, "signal", lambda *_: None)
    monkeypatch.setattr(rank_process.os, "_exit", leave)
    monkeypatch.setattr(sys, "argv", ["rank_process", str(os.dup(theirs.fileno())), str(folder)])
    with theirs, ours, pytest.raises(Exited):
        rank_process.main()
    assert folder.exists() == worker_listens
