"""A memory plan per rank: what each holds, the same weights for all, and this machine's memory counted once for all."""

from dataclasses import replace

import pytest
import torch

from libs.errors import DeviceError
from libs.model_repo.layout import RepositoryLayout
from libs.model_repo.variants import VARIANTS
from libs.one_to_all import engine_cache as warm
from libs.one_to_all.memory import plan as memory_plan
from libs.one_to_all.memory.device_memory import DeviceMemory
from libs.one_to_all.memory.estimates import WorkShare
from libs.one_to_all.memory.options import ClipSize, MemoryOptions
from libs.one_to_all.memory.plan import GB
from libs.one_to_all.parallel.engine import devices_of_ranks
from libs.one_to_all.parallel.plan import ONE_PROCESS, ParallelPlan
from libs.one_to_all.parallel.rank_plans import RankPlans, plan_ranks, work_share

SIZE = ClipSize(480, 832, 81)
THREE = ParallelPlan(guidance=3)


@pytest.fixture
def layout(tmp_path, monkeypatch) -> RepositoryLayout:
    """Of the 14B, with an FP8 repository beside it; plans count its real text encoder and VAE."""
    choose = memory_plan.plan_memory

    def plan(*arguments, text_encoder_bytes, vae_bytes, **options):
        return choose(*arguments, **options)

    monkeypatch.setattr("libs.one_to_all.memory.plan_choice.plan_memory", plan)
    variant = VARIANTS["14b"]
    fp8 = tmp_path / VARIANTS["14b-fp8"].folder
    fp8.mkdir()
    (fp8 / "model.safetensors.index.json").write_text("{}")
    root = tmp_path / variant.folder
    return RepositoryLayout(variant, root, root / "pretrained_models", root / "pretrained_models" / variant.wan_folder)


def _plans(layout, free: list[float], parallel=THREE, host=None, **options):
    devices = [f"cuda:{rank}" for rank in range(len(free))]
    free_bytes = [round(count * GB) for count in free]
    memory = MemoryOptions(**options)
    return plan_ranks(layout, torch.bfloat16, parallel, devices, free_bytes, memory, SIZE, host_free_bytes=host)


def test_what_ranks_compute():
    assert [work_share(THREE, rank) for rank in range(3)] == [
        WorkShare(leads=rank == 0, passes=1, context=1) for rank in range(3)
    ]
    two = ParallelPlan(guidance=2, context=2)
    assert [work_share(two, rank).passes for rank in range(4)] == [1, 1, 2, 2]
    assert {work_share(two, rank).context for rank in range(4)} == {2}
    assert work_share(ParallelPlan(context=4), 0) == WorkShare(passes=3, context=4)


def test_each_rank_follows_what_its_own_device_has_free(layout):
    """One pass of the 14B needs 47 GB beside the text encoder's 11.4; only rank 0 holds that, and the VAE."""
    ranks = _plans(layout, [54, 54, 24])
    assert ranks.name == (
        "rank 0: 14b: transformer resident, text encoder dropped after the prompt; rank 1: 14b: transformer resident; "
        "rank 2: 14b: transformer offloaded"
    )
    assert ranks.plans[0].peak_bytes > ranks.plans[1].peak_bytes
    assert ranks.resting_bytes(torch.device("cuda:1")) == ranks.plans[1].phases["sampling"]["transformer"]
    assert ranks.resting_bytes(torch.device("cpu")) == ranks.host_bytes == ranks.plans[2].host["blocks"] > 0
    text = ranks.describe()
    for rank in range(3):
        assert f"rank {rank} on cuda:{rank}: 14b: transformer" in text
    assert list(ranks.summary()) == [f"rank {rank} on cuda:{rank}" for rank in range(3)]


def test_neighbours_that_do_the_same_are_named_together(layout):
    assert _plans(layout, [80, 80, 80]).name == (
        "rank 0: 14b: transformer resident, text encoder resident; ranks 1 to 2: 14b: transformer resident"
    )


def test_all_ranks_take_the_same_weights(layout):
    assert {plan.variant for plan in _plans(layout, [80, 80, 40]).plans} == {"14b"}
    taken = _plans(layout, [80, 80, 40], allow_fp8=True)
    assert {plan.variant for plan in taken.plans} == {"14b-fp8"}
    assert {plan.transformer for plan in taken.plans} == {"resident"}
    assert taken.changes == ("weights of 14b-fp8",)
    exact = _plans(layout, [80, 80, 80], allow_fp8=True)
    assert exact.changes == ()
    assert exact.variant == "14b"
    still_offloaded = _plans(layout, [80, 80, 16], allow_fp8=True)
    assert still_offloaded.changes == (), "what would not help is not done"


@pytest.mark.parametrize(("keyword", "others"), [("drop-text-encoder", "resident"), ("tiles", "offloaded")])
def test_a_plan_that_is_named_holds_for_all(layout, keyword, others):
    ranks = _plans(layout, [80, 80, 80], keyword=keyword)
    assert ranks.plans[0].keyword == keyword
    assert {plan.transformer for plan in ranks.plans} == {others}
    assert ranks.changes == (("VAE in tiles",) if keyword == "tiles" else ())


def test_ranks_that_share_tokens_need_less(layout):
    shared = _plans(layout, [80, 80], parallel=ParallelPlan(context=2))
    alone = _plans(layout, [80, 80], parallel=ParallelPlan(guidance=2))
    assert shared.plans[1].peak_bytes < alone.plans[1].peak_bytes


class PlayedEngine:
    """Knows which plans it was given, and how much of each device it holds."""

    def __init__(self, layout, device, dtype, plan, lora, speed, memory_plan):
        self.layout, self.device, self.alive = layout, device, True
        self.memory_plan, self.loras, self.moves = memory_plan, [lora], 0
        self.devices = frozenset(map(torch.device, devices_of_ranks(device, plan)))
        self.held_for_the_next_clip = 0

    @classmethod
    def load(cls, layout, device, dtype, *, lora, speed, plan):
        return cls(layout, torch.device(device), dtype, ONE_PROCESS, lora, speed, plan)

    def follow(self, plan):
        self.memory_plan, self.moves = plan, self.moves + 1

    def use_lora(self, lora):
        self.loras.append(lora)

    def bytes_on(self, device):
        if isinstance(self.memory_plan, RankPlans):
            return self.memory_plan.resting_bytes(device)
        plan = self.memory_plan
        return plan.resting_bytes if device == self.device else plan.host_bytes if device.type == "cpu" else 0

    def release_memory(self):
        self.held_for_the_next_clip = 0


@pytest.fixture
def cards(monkeypatch):
    """Three cards whose free memory is that of ``cards``, less what engines hold."""
    free = dict.fromkeys((torch.device("cuda", index) for index in range(3)), 80 * GB)
    free[torch.device("cpu")] = 1000 * GB

    def memory(device):
        engines = [kept.engine for kept in warm._kept.values()]
        held = sum(engine.bytes_on(device) + engine.held_for_the_next_clip for engine in engines)
        return DeviceMemory(free[device] - held, free[device])

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: None)
    monkeypatch.setattr(warm, "device_memory", memory)
    monkeypatch.setattr(warm, "weight_files", lambda layout: [])
    monkeypatch.setattr(warm, "ParallelEngine", PlayedEngine)
    monkeypatch.setattr(warm, "AnimationEngine", PlayedEngine)
    warm.release_engines()
    yield free
    warm.release_engines()


def test_the_warm_engine_of_ranks_is_moved_as_memory_changes(layout, cards, caplog):
    def engine(**options):
        return warm.warm_engine(layout, "cuda", parallel=THREE, clip=SIZE, **options)

    with caplog.at_level("INFO"):
        first, load = engine()
    assert load.cold
    assert [plan.transformer for plan in first.memory_plan.plans] == ["resident"] * 3
    assert "rank 2 on cuda:2: 14b: transformer resident" in caplog.text
    first.held_for_the_next_clip = 20 * GB
    again, load = engine()
    assert again is first
    assert not load.cold
    assert [plan.transformer for plan in first.memory_plan.plans] == ["resident"] * 3, "what it holds is its own"
    cards[torch.device("cuda:1")] = 30 * GB
    moved, load = engine()
    assert moved is first
    assert not load.cold
    assert [plan.transformer for plan in first.memory_plan.plans] == ["resident", "offloaded", "resident"]
    cards[torch.device("cpu")] = first.memory_plan.host_bytes
    assert not engine()[1].cold, "what it keeps on the host is its own, too"
    fp8, load = engine(memory=MemoryOptions(allow_fp8=True))
    assert load.cold
    assert fp8.layout.variant.name == "14b-fp8"
    assert list(warm._kept) == [("14b-fp8", torch.device("cuda:0"))], "the other one made room on all cards"


def kept_places() -> list[tuple[str, str]]:
    return [(name, str(device)) for name, device in warm._kept]


def other_variant(layout: RepositoryLayout) -> RepositoryLayout:
    """The same size under another name."""
    return replace(layout, variant=replace(layout.variant, name="other"))


@pytest.mark.parametrize(("card", "shared"), [("cuda:1", True), ("cuda:2", False)])
def test_what_lies_on_a_card_of_any_rank_makes_room(layout, cards, card, shared):
    warm.warm_engine(other_variant(layout), card, clip=SIZE)
    warm.warm_engine(layout, "cuda", parallel=ParallelPlan(guidance=2), clip=SIZE)
    expected = [] if shared else [("other", card)]
    assert kept_places() == [*expected, ("14b", "cuda:0")]


def test_ranks_make_room_for_an_engine_on_the_card_of_any_of_them(layout, cards):
    warm.warm_engine(layout, "cuda", parallel=ParallelPlan(guidance=2), clip=SIZE)
    warm.warm_engine(other_variant(layout), "cuda:2", clip=SIZE)
    assert kept_places() == [("14b", "cuda:0"), ("other", "cuda:2")]
    third = replace(layout, variant=replace(layout.variant, name="third"))
    warm.warm_engine(third, "cuda:1", clip=SIZE)
    assert kept_places() == [("other", "cuda:2"), ("third", "cuda:1")]


def test_what_lies_on_the_host_for_another_card_makes_room(layout, cards):
    """Each keeps 48 GB there, and there are 60."""
    cards.update(dict.fromkeys(cards, 24 * GB))
    cards[torch.device("cpu")] = 60 * GB
    warm.warm_engine(other_variant(layout), "cuda:1", clip=SIZE)
    warm.warm_engine(layout, "cuda:0", clip=SIZE)
    assert kept_places() == [("14b", "cuda:0")]


def test_ranks_on_the_cpu_divide_its_memory(layout, cards):
    named = MemoryOptions(keyword="resident")
    engine, _ = warm.warm_engine(layout, "cpu", parallel=THREE, clip=SIZE, memory=named)
    assert [plan.free_bytes for plan in engine.memory_plan.plans] == [1000 * GB // 3] * 3


def test_ranks_make_room_for_a_clip_on_the_card_of_any_of_them(layout, cards):
    cards.update(dict.fromkeys(cards, 200 * GB))
    warm.warm_engine(layout, "cuda", parallel=ParallelPlan(guidance=2), clip=SIZE)
    warm.warm_engine(layout, "cuda:2", clip=SIZE)
    engine, _ = warm.warm_engine(other_variant(layout), "cuda:1", clip=SIZE)
    assert len(warm._kept) == 3
    assert warm.release_other_engines(engine) == ["14b"]
    assert kept_places() == [("14b", "cuda:2"), ("other", "cuda:1")]


def test_too_little_memory_of_this_machine_is_said_before_anything_is_loaded(layout, cards, monkeypatch):
    cards.update(dict.fromkeys(cards, 24 * GB))  # of the machine, too
    monkeypatch.setattr(warm, "ParallelEngine", lambda *_: pytest.fail("something was loaded"))
    with pytest.raises(DeviceError, match="divide the work among fewer ranks"):
        warm.warm_engine(layout, "cuda", parallel=THREE, clip=SIZE)


def test_one_process_too_is_told_before_anything_is_loaded(layout, cards, monkeypatch):
    cards.update(dict.fromkeys(cards, 24 * GB))
    cards[torch.device("cpu")] = 48 * GB
    engine, _ = warm.warm_engine(layout, "cuda", clip=SIZE)
    assert engine.memory_plan.keyword == "offload"
    again, load = warm.warm_engine(layout, "cuda", clip=SIZE)
    assert (again, load.cold) == (engine, False), "what it keeps on the host is its own"
    warm.release_engines()
    cards[torch.device("cpu")] = 47 * GB
    monkeypatch.setattr(PlayedEngine, "load", lambda *_, **__: pytest.fail("something was loaded"))
    with pytest.raises(DeviceError, match=r"transformer offloaded.* keeps 48 GB of weights .* 47 GB are free"):
        warm.warm_engine(layout, "cuda", clip=SIZE)


def test_ranks_change_their_lora(layout, cards, tmp_path):
    lora = warm.LoraFile(tmp_path / "distilled.safetensors")
    fp8 = replace(layout, variant=VARIANTS["14b-fp8"])
    first, _ = warm.warm_engine(fp8, "cuda", parallel=THREE, clip=SIZE, lora=lora)
    again, load = warm.warm_engine(fp8, "cuda", parallel=THREE, clip=SIZE)
    assert again is first
    assert not load.cold
    assert first.loras == [lora, None]
    other, load = warm.warm_engine(layout, "cuda", parallel=THREE, clip=SIZE, lora=lora)
    assert load.cold, "fused into weights that are not FP8"
    assert other.loras == [lora]
