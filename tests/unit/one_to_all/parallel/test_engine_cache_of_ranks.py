"""The engine cache with several ranks and cards: what is kept, evicted, moved and refused. Engines are played."""

import shutil
from dataclasses import replace

import pytest
import torch

from libs.errors import DeviceError, InputError, SettingsError
from libs.model_repo.layout import RepositoryLayout
from libs.model_repo.variants import VARIANTS
from libs.one_to_all.engine import AnimationEngine
from libs.one_to_all.engine_cache import CacheKey, EngineCache, EngineSpec, load_engine
from libs.one_to_all.memory.choice import DeviceMemory
from libs.one_to_all.memory.options import ClipSize, MemoryOptions
from libs.one_to_all.memory.plan import GB
from libs.one_to_all.parallel import engine as engine_module
from libs.one_to_all.parallel.engine import ParallelEngine, devices_of_ranks
from libs.one_to_all.parallel.plan import ONE_PROCESS, ParallelPlan
from libs.one_to_all.sampling.approximation import Approximation
from libs.one_to_all.weights.lora_file import LoraFile

SIZE = ClipSize(480, 832, 81)
TWO, THREE = ParallelPlan(guidance=2), ParallelPlan(guidance=3)
CPU = torch.device("cpu")


class PlayedEngine:
    """Knows what it was made of, which plans and LoRAs it was given, and how much of each device it holds."""

    def __init__(self, spec: EngineSpec, plan) -> None:
        self.spec, self.device, self.alive = spec, spec.first_device, True
        self.memory_plan, self.loras = plan, [spec.lora]
        self.devices = frozenset(map(torch.device, devices_of_ranks(self.device, spec.parallel)))
        self.held_for_the_next_clip = 0

    def place(self, plan):
        self.memory_plan = plan

    def set_lora(self, lora):
        self.loras.append(lora)

    def bytes_on(self, device):
        return 0 if self.memory_plan is None else self.memory_plan.resident_bytes(str(device))

    def release_memory(self):
        self.held_for_the_next_clip = 0


class Cards:
    """Three cards and a cache on them; ``sizes`` are their memories, and that of the machine."""

    def __init__(self) -> None:
        self.sizes = {torch.device("cuda", index): 80 * GB for index in range(3)} | {CPU: 1000 * GB}
        self.cache = EngineCache(PlayedEngine, self._memory)

    def _memory(self, device: torch.device) -> DeviceMemory:
        engines = self.cache.engines.values()
        held = sum(engine.bytes_on(device) + engine.held_for_the_next_clip for engine in engines)
        return DeviceMemory(self.sizes[device] - held, self.sizes[device])

    def resize(self, byte_count: int) -> None:
        self.sizes = dict.fromkeys(self.sizes, byte_count)

    def load(self, layout: RepositoryLayout, device: str = "cuda", **options):
        return self.cache.get_or_load(EngineSpec(layout, device, **options), SIZE)

    @property
    def kept(self) -> list[tuple[str, str]]:
        return [(key.name, str(key.device)) for key in self.cache.engines]


@pytest.fixture
def cards(monkeypatch) -> Cards:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    return Cards()


@pytest.fixture
def played() -> EngineCache:
    return EngineCache(PlayedEngine)


def other_variant(layout: RepositoryLayout, name: str = "other") -> RepositoryLayout:
    """The same size under another name."""
    return replace(layout, variant=replace(layout.variant, name=name))


def test_an_engine_of_ranks_stays_until_the_division_changes(own_repository, played):
    first, load = played.get_or_load(EngineSpec(own_repository, "cpu", parallel=TWO))
    assert load.cold
    assert first.spec.parallel == TWO
    again, load = played.get_or_load(EngineSpec(own_repository, "cpu", parallel=TWO))
    assert again is first
    assert not load.cold
    three, load = played.get_or_load(EngineSpec(own_repository, "cpu", parallel=THREE))
    assert load.cold
    assert three is not first


def test_one_process_loads_a_single_process_engine(own_repository):
    assert type(load_engine(EngineSpec(own_repository, "cpu", parallel=ONE_PROCESS), None)) is AnimationEngine


def test_lost_ranks_are_a_cold_load(own_repository, played):
    first, _ = played.get_or_load(EngineSpec(own_repository, "cpu", parallel=TWO))
    first.alive = False
    second, load = played.get_or_load(EngineSpec(own_repository, "cpu", parallel=TWO))
    assert load.cold
    assert second is not first


def test_an_engine_of_ranks_is_moved_as_memory_changes(layout_14b, cards, caplog):
    with caplog.at_level("INFO"):
        first, load = cards.load(layout_14b, parallel=THREE)
    assert load.cold
    assert first.memory_plan.placement.keyword == "resident"
    assert "rank 2 on cuda:2: 14b: transformer resident" in caplog.text
    first.held_for_the_next_clip = 20 * GB
    again, load = cards.load(layout_14b, parallel=THREE)
    assert again is first
    assert not load.cold
    assert first.memory_plan.placement.keyword == "resident", "what it holds is its own"
    cards.sizes[torch.device("cuda:0")] = 49 * GB
    moved, load = cards.load(layout_14b, parallel=THREE)
    assert moved is first
    assert not load.cold
    assert first.memory_plan.placement.keyword == "text-encoder-on-host"
    cards.sizes[CPU] = first.memory_plan.host_bytes
    assert not cards.load(layout_14b, parallel=THREE)[1].cold, "what it keeps on the host is its own, too"
    cards.sizes[torch.device("cuda:1")] = 40 * GB
    fp8, load = cards.load(layout_14b, parallel=THREE, memory=MemoryOptions(allow_fp8=True))
    assert load.cold
    assert fp8.spec.layout.variant.name == "14b-fp8"
    assert cards.kept == [("14b-fp8", "cuda:0")], "the other one made room on all cards"


@pytest.mark.parametrize(("card", "common"), [("cuda:1", True), ("cuda:2", False)])
def test_what_lies_on_a_card_of_any_rank_makes_room(layout_14b, cards, card, common):
    cards.load(other_variant(layout_14b), card)
    cards.load(layout_14b, parallel=TWO)
    expected = [] if common else [("other", card)]
    assert cards.kept == [*expected, ("14b", "cuda:0")]


def test_ranks_make_room_for_an_engine_on_the_card_of_any_of_them(layout_14b, cards):
    cards.load(layout_14b, parallel=TWO)
    cards.load(other_variant(layout_14b), "cuda:2")
    assert cards.kept == [("14b", "cuda:0"), ("other", "cuda:2")]
    cards.load(other_variant(layout_14b, "third"), "cuda:1")
    assert cards.kept == [("other", "cuda:2"), ("third", "cuda:1")]


def test_what_lies_on_the_host_for_another_card_makes_room(layout_14b, cards):
    """Each keeps 48 GB there, and there are 60."""
    cards.resize(24 * GB)
    cards.sizes[CPU] = 60 * GB
    cards.load(other_variant(layout_14b), "cuda:1")
    cards.load(layout_14b, "cuda:0")
    assert cards.kept == [("14b", "cuda:0")]


def test_ranks_on_the_cpu_divide_its_memory(layout_14b, cards):
    engine, _ = cards.load(layout_14b, "cpu", parallel=THREE, memory=MemoryOptions(keyword="resident"))
    assert [device.free_bytes for device in engine.memory_plan.budget.devices] == [1000 * GB // 3] * 3


def test_ranks_are_evicted_for_a_clip_on_the_card_of_any_of_them(layout_14b, cards):
    cards.resize(200 * GB)
    cards.load(layout_14b, parallel=TWO)
    cards.load(layout_14b, "cuda:2")
    engine, _ = cards.load(other_variant(layout_14b), "cuda:1")
    assert len(cards.kept) == 3
    assert cards.cache.evict_others(engine) == ["14b"]
    assert list(cards.cache.engines) == [
        CacheKey("14b", torch.device("cuda:2")),
        CacheKey("other", torch.device("cuda:1")),
    ]


@pytest.mark.parametrize(
    ("memory", "error", "message"),
    [
        (MemoryOptions(), DeviceError, "leave ONE_TO_ALL_PARALLEL empty, since one process fits"),
        (
            MemoryOptions(keyword="offload"),
            SettingsError,
            "ONE_TO_ALL_MEMORY=offload .* ONE_TO_ALL_PARALLEL=guidance:3",
        ),
    ],
)
def test_what_ranks_cannot_hold_is_refused_before_anything_is_loaded(layout_14b, cards, memory, error, message):
    cards.resize(24 * GB)
    cards.sizes[CPU] = 1000 * GB
    with pytest.raises(error, match=message):
        cards.load(layout_14b, parallel=THREE, memory=memory)
    assert not cards.kept


def test_one_process_too_is_refused_before_anything_is_loaded(layout_14b, cards):
    cards.resize(24 * GB)
    cards.sizes[CPU] = 48 * GB
    engine, _ = cards.load(layout_14b)
    assert engine.memory_plan.placement.keyword == "offload"
    again, load = cards.load(layout_14b)
    assert (again, load.cold) == (engine, False), "what it keeps on the host is its own"
    cards.cache.clear()
    cards.sizes[CPU] = 47 * GB
    with pytest.raises(DeviceError, match=r"transformer offloaded.* keeps 48 GB of weights .* 47 GB are free"):
        cards.load(layout_14b)
    assert not cards.kept


def test_ranks_change_their_lora(layout_14b, cards, tmp_path):
    lora = LoraFile(tmp_path / "distilled.safetensors")
    fp8 = replace(layout_14b, variant=VARIANTS["14b-fp8"])
    first, _ = cards.load(fp8, parallel=THREE, lora=lora)
    again, load = cards.load(fp8, parallel=THREE)
    assert again is first
    assert not load.cold
    assert first.loras == [lora, None]
    other, load = cards.load(layout_14b, parallel=THREE, lora=lora)
    assert load.cold, "fused into weights that are not FP8"
    assert other.loras == [lora]


def test_the_devices_of_ranks(monkeypatch):
    parallel = ParallelPlan(guidance=3, context=2)
    assert devices_of_ranks(CPU, TWO) == ["cpu", "cpu"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 7)
    assert devices_of_ranks(torch.device("cuda", 1), parallel) == [f"cuda:{index}" for index in range(1, 7)]
    with pytest.raises(DeviceError, match=r"guidance:3,context:2 needs 6 CUDA devices from cuda:2 on.*sees 7"):
        devices_of_ranks(torch.device("cuda", 2), parallel)


def test_a_division_that_does_not_suit_the_variant_starts_nothing(repository):
    with pytest.raises(SettingsError, match="2 ranks cannot share the 1 attention heads of sandbox"):
        ParallelEngine(repository, CPU, torch.float32, ParallelPlan(context=2))


class PlayedRanks:
    """Ranks without processes."""

    started: list["PlayedRanks"]
    alive = True
    precision = "torch.float32"

    def __init__(self, folder) -> None:
        self.folder = folder

    @classmethod
    def start(cls, _setups, folder):
        cls.started.append(cls(folder))
        return cls.started[-1]

    def end(self):
        self.alive = False
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def started(monkeypatch) -> list[PlayedRanks]:
    PlayedRanks.started = []
    monkeypatch.setattr(engine_module, "Ranks", PlayedRanks)
    return PlayedRanks.started


def test_a_block_cache_is_refused_where_tokens_are_split(repository, started, make_inputs, make_options):
    heads = replace(repository.variant.network, num_attention_heads=4)
    layout = replace(repository, variant=replace(repository.variant, network=heads))
    options = make_options(approximation=Approximation(block_cache_threshold=0.1))
    split = ParallelPlan(context=2)
    with pytest.raises(InputError, match="ask for quality: exact"):
        ParallelEngine(layout, CPU, torch.float32, split).chunk_maker(make_inputs(5), options)
    ParallelEngine(layout, CPU, torch.float32, TWO).chunk_maker(make_inputs(5), options)
    cache = EngineCache()
    with pytest.raises(InputError, match="ask for quality: exact"):  # and before anything is loaded
        cache.get_or_load(EngineSpec(layout, "cpu", parallel=split), ClipSize(32, 32, 5, block_cache=True))
    assert len(started) == 2
    assert not cache.engines


def test_lost_ranks_are_started_again_for_the_next_chunk(repository, started):
    engine = ParallelEngine(repository, CPU, torch.float32, TWO)
    assert [engine.next_chunk_number() for _ in range(2)] == [1, 2]
    started[0].end()
    assert not engine.alive
    engine.release_memory()  # after memory ran out: nothing is left to give back
    assert engine.next_chunk_number() == 3
    assert engine.alive
    assert len(started) == 2
    del engine
    assert not started[1].alive, "ranks end when nothing refers to their engine"
