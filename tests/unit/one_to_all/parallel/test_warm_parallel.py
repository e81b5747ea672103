"""The warm engine of a parallel plan: kept, replaced, and loaded again after it was lost. Played is the engine only."""

import shutil

import pytest
import torch

from libs.errors import DeviceError, InputError, SettingsError
from libs.one_to_all import engine_cache as warm
from libs.one_to_all.memory.options import ClipSize
from libs.one_to_all.network.approximation import Approximation
from libs.one_to_all.parallel import engine as engine_module
from libs.one_to_all.parallel.engine import ParallelEngine, devices_of_ranks
from libs.one_to_all.parallel.plan import ONE_PROCESS, ParallelPlan

TWO = ParallelPlan(guidance=2)


class PlayedEngine:
    """Knows what it was made of."""

    def __init__(self, layout, device, dtype, plan, lora, speed, memory_plan):
        self.device, self.devices, self.plan, self.alive = device, frozenset({device}), plan, True

    def bytes_on(self, device):
        return 0

    def release_memory(self):
        pass


@pytest.fixture(autouse=True)
def _played(monkeypatch):
    monkeypatch.setattr(warm, "ParallelEngine", PlayedEngine)
    warm.release_engines()
    yield
    warm.release_engines()


def test_it_stays_until_the_plan_changes(own_repository):
    first, load = warm.warm_engine(own_repository, "cpu", parallel=TWO)
    assert load.cold
    assert first.plan == TWO
    again, load = warm.warm_engine(own_repository, "cpu", parallel=TWO)
    assert again is first
    assert not load.cold
    three, load = warm.warm_engine(own_repository, "cpu", parallel=ParallelPlan(guidance=3))
    assert load.cold
    assert three is not first
    alone, _ = warm.warm_engine(own_repository, "cpu", parallel=ONE_PROCESS)
    assert type(alone) is warm.AnimationEngine


def test_lost_ranks_are_a_cold_start(own_repository):
    first, _ = warm.warm_engine(own_repository, "cpu", parallel=TWO)
    first.alive = False
    second, load = warm.warm_engine(own_repository, "cpu", parallel=TWO)
    assert load.cold
    assert second is not first


def test_the_devices_of_ranks(monkeypatch):
    plan = ParallelPlan(guidance=3, context=2)
    assert devices_of_ranks(torch.device("cpu"), TWO) == ["cpu", "cpu"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 7)
    assert devices_of_ranks(torch.device("cuda", 1), plan) == [f"cuda:{index}" for index in range(1, 7)]
    with pytest.raises(DeviceError, match=r"guidance:3,context:2 needs 6 CUDA devices from cuda:2 on.*sees 7"):
        devices_of_ranks(torch.device("cuda", 2), plan)


def test_a_plan_that_does_not_suit_the_variant_starts_nothing(repository):
    with pytest.raises(SettingsError, match="2 ranks cannot share the 1 attention heads of sandbox"):
        ParallelEngine(repository, torch.device("cpu"), torch.float32, ParallelPlan(context=2))


def test_a_block_cache_is_refused_where_tokens_are_divided(repository, make_inputs, make_options):
    engine = object.__new__(ParallelEngine)  # without processes
    options = make_options(approximation=Approximation(block_cache_threshold=0.1))
    engine.plan = ParallelPlan(context=2)
    with pytest.raises(InputError, match="ask for quality: exact"):
        engine.chunk_maker(make_inputs(5), options)
    engine.plan = TWO
    engine.chunk_maker(make_inputs(5), options)
    with pytest.raises(InputError, match="ask for quality: exact"):  # and before anything is loaded
        warm.warm_engine(
            repository, "cpu", parallel=ParallelPlan(context=2), clip=ClipSize(32, 32, 5, block_cache=True)
        )
    assert not warm._kept


def test_lost_ranks_are_started_again_for_the_next_chunk(repository, monkeypatch):
    class PlayedRanks:
        alive = True
        precision = "torch.float32"

        def __init__(self, folder):
            self.folder = folder

        def end(self):
            self.alive = False
            shutil.rmtree(self.folder, ignore_errors=True)

    started = []

    def start(_setups, folder):
        started.append(PlayedRanks(folder))
        return started[-1]

    monkeypatch.setattr(engine_module.Ranks, "start", start)
    engine = ParallelEngine(repository, torch.device("cpu"), torch.float32, TWO)
    assert [engine.next_chunk_number() for _ in range(2)] == [1, 2]
    started[0].end()
    assert not engine.alive
    engine.release_memory()  # after memory ran out: nothing is left to give back
    assert engine.next_chunk_number() == 3
    assert engine.alive
    assert len(started) == 2
    del engine
    assert not started[1].alive, "ranks end when nothing refers to their engine"
