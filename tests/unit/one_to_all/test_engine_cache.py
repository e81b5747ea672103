"""The engine cache: engines are reused, replaced when outdated, evicted when memory is short."""

import os
import weakref
from dataclasses import replace

import pytest
import torch

from libs.errors import DeviceOutOfMemoryError, ModelFilesError
from libs.model_repo.layout import RepositoryLayout
from libs.one_to_all.engine_cache import CLIP_RESERVE, CacheKey, EngineCache, EngineSpec, load_engine
from libs.one_to_all.memory import offload as block_offload
from libs.one_to_all.memory.choice import DeviceMemory, bytes_when_loaded
from libs.one_to_all.memory.options import MemoryOptions
from libs.one_to_all.speed_options import SpeedOptions
from libs.one_to_all.weights.loading import weight_files

GIGABYTE = 10**9


def test_other_speed_options_mean_a_new_engine(own_repository, cache):
    first, _ = cache.get_or_load(EngineSpec(own_repository, "cpu"))
    other = SpeedOptions(attention="native_flash")
    second, load = cache.get_or_load(EngineSpec(own_repository, "cpu", speed=other))
    assert load.cold and second is not first
    processors = [module.processor for module in second.networks.transformer.modules() if hasattr(module, "processor")]
    assert {processor._attention_backend.value for processor in processors} == {"_native_flash"}
    assert cache.get_or_load(EngineSpec(own_repository, "cpu", speed=other))[0] is second


def test_a_second_request_finds_the_engine(own_repository, cache):
    first, load = cache.get_or_load(EngineSpec(own_repository, "cpu"))
    assert load.cold
    assert load.seconds > 0
    second, again = cache.get_or_load(EngineSpec(own_repository, "cpu"))
    assert second is first
    assert not again.cold
    assert again.seconds < load.seconds


def test_auto_and_its_device_are_the_same(own_repository, cache, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    first, _ = cache.get_or_load(EngineSpec(own_repository, "auto"))
    assert cache.get_or_load(EngineSpec(own_repository, "cpu"))[0] is first


def test_a_changed_file_means_a_new_engine(own_repository, cache):
    first, _ = cache.get_or_load(EngineSpec(own_repository, "cpu"))
    shard = sorted(own_repository.root.glob("*.safetensors"))[0]
    os.utime(shard, ns=(1, 1))
    second, load = cache.get_or_load(EngineSpec(own_repository, "cpu"))
    assert load.cold
    assert second is not first


def test_an_outdated_engine_is_gone_before_its_successor_is_loaded(own_repository):
    engines, there = [], []

    def load_and_inspect(spec, plan):
        there.append([engine() for engine in engines])
        engine = load_engine(spec, plan)
        engines.append(weakref.ref(engine))
        return engine

    cache = EngineCache(load_and_inspect)
    cache.get_or_load(EngineSpec(own_repository, "cpu"))
    assert cache.get_or_load(EngineSpec(own_repository, "cpu", torch.bfloat16))[1].cold
    assert there == [[], [None]], "both at a time may not fit"
    latest = weakref.ref(cache.get_or_load(EngineSpec(own_repository, "cpu", torch.bfloat16))[0])
    cache.clear()
    assert latest() is None


def test_files_that_do_not_matter_do_not_cool_it(own_repository, cache):
    first, _ = cache.get_or_load(EngineSpec(own_repository, "cpu"))
    (own_repository.root / "one-to-all.lock.json").write_text("{}")
    (own_repository.wan_part("vae") / ".lock").touch()
    assert own_repository.index in weight_files(own_repository)
    assert cache.get_or_load(EngineSpec(own_repository, "cpu"))[0] is first


def test_another_dtype_takes_its_place(own_repository, cache):
    first, _ = cache.get_or_load(EngineSpec(own_repository, "cpu"))
    second, load = cache.get_or_load(EngineSpec(own_repository, "cpu", torch.bfloat16))
    assert load.cold
    assert second is not first
    assert len(cache.engines) == 1


def named(layout: RepositoryLayout, name: str) -> RepositoryLayout:
    """The same files under the name of another variant."""
    return replace(layout, variant=replace(layout.variant, name=name))


class SmallDevice:
    """A cache on a device on which each engine takes as much as is estimated for it."""

    def __init__(self, layout: RepositoryLayout, engines_that_fit: float, load=load_engine) -> None:
        self.size = bytes_when_loaded(layout, torch.float32)
        self.total = round(engines_that_fit * self.size / (1 - CLIP_RESERVE))  # a quarter of it is kept for clips
        self.cache = EngineCache(load, self._memory)

    def _memory(self, _device: torch.device) -> DeviceMemory:
        return DeviceMemory(self.total - self.size * len(self.cache.engines), self.total)

    def is_cold(self, layout: RepositoryLayout, device: str = "cpu") -> bool:
        return self.cache.get_or_load(EngineSpec(layout, device))[1].cold

    @property
    def names(self) -> list[str]:
        return [key.name for key in self.cache.engines]


def test_several_variants_stay_while_they_fit(own_repository):
    device = SmallDevice(own_repository, engines_that_fit=3.1)
    variants = [named(own_repository, name) for name in "abc"]
    assert [device.is_cold(layout) for layout in variants] == [True, True, True]
    assert [device.is_cold(layout) for layout in variants] == [False, False, False]


def test_the_least_recently_used_is_evicted(own_repository):
    device = SmallDevice(own_repository, engines_that_fit=2.1)
    first, second, third = (named(own_repository, name) for name in "abc")
    assert device.is_cold(first)
    assert device.is_cold(second)
    assert not device.is_cold(first)  # now the second is the least recently used
    assert device.is_cold(third)
    assert not device.is_cold(first)
    assert not device.is_cold(third)
    assert device.is_cold(second)


def test_only_as_many_are_evicted_as_it_takes(own_repository):
    device = SmallDevice(own_repository, engines_that_fit=3.1)
    for name in "abc":
        device.is_cold(named(own_repository, name))
    device.total = round(2.1 / 3.1 * device.total)
    device.is_cold(named(own_repository, "d"))
    assert device.names == ["c", "d"]


def test_a_variant_that_never_fits_is_tried_on_an_empty_device(own_repository):
    device = SmallDevice(own_repository, engines_that_fit=0.5)
    for name in "abc":
        assert device.is_cold(named(own_repository, name))
        assert device.names == [name]


class OnACard:
    """Stands for an engine of a device that this machine does not have."""

    devices = frozenset({torch.device("cuda:0")})

    def bytes_on(self, device: torch.device) -> int:
        return GIGABYTE if device in self.devices else 0


def load_elsewhere(spec, plan):
    """Load engines, but for those called "elsewhere", which are on a card."""
    return OnACard() if spec.layout.variant.name == "elsewhere" else load_engine(spec, plan)


def test_engines_of_another_device_are_left_alone(own_repository):
    device = SmallDevice(own_repository, engines_that_fit=0.5, load=load_elsewhere)
    device.is_cold(named(own_repository, "elsewhere"))
    device.is_cold(named(own_repository, "b"))
    assert device.names == ["elsewhere", "b"]


def test_the_others_of_a_device_are_evicted_for_a_clip_that_did_not_fit(own_repository):
    device = SmallDevice(own_repository, engines_that_fit=9, load=load_elsewhere)
    cache = device.cache
    for name in ("a", "b", "elsewhere"):
        device.is_cold(named(own_repository, name))
    in_use, _ = cache.get_or_load(EngineSpec(named(own_repository, "c"), "cpu"))
    assert cache.evict_others(in_use) == ["a", "b"]
    assert list(cache.engines) == [CacheKey(name, torch.device("cpu")) for name in ("elsewhere", "c")]
    assert cache.evict_others(in_use) == []
    assert cache.get_or_load(EngineSpec(named(own_repository, "c"), "cpu"))[0] is in_use


def test_a_model_that_cannot_be_loaded_is_not_kept(own_repository, cache):
    cache.get_or_load(EngineSpec(own_repository, "cpu"))
    shard = sorted(own_repository.root.glob("*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ModelFilesError, match=shard.name):
        cache.get_or_load(EngineSpec(own_repository, "cpu"))
    assert not cache.engines


def test_an_engine_that_cannot_be_moved_is_not_kept(own_repository, cache, monkeypatch):
    engine, _ = cache.get_or_load(EngineSpec(own_repository, "cpu", memory=MemoryOptions(keyword="offload")))

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(block_offload.BlockOffload, "remove", full)
    with pytest.raises(DeviceOutOfMemoryError, match="the weights do not fit into the memory of cpu"):
        cache.get_or_load(EngineSpec(own_repository, "cpu", memory=MemoryOptions(keyword="resident")))
    assert not cache.engines
    monkeypatch.undo()
    again, load = cache.get_or_load(EngineSpec(own_repository, "cpu", memory=MemoryOptions(keyword="resident")))
    assert load.cold and again is not engine
