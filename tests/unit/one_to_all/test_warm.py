"""Engines that stay loaded: found again, replaced when outdated, dropped when memory is short."""

import os
import weakref
from dataclasses import replace

import pytest
import torch

from libs.errors import DeviceOutOfMemoryError, ModelFilesError
from libs.model_repo.layout import RepositoryLayout
from libs.one_to_all import engine_cache as warm
from libs.one_to_all.engine import AnimationEngine
from libs.one_to_all.memory import device_memory as memory
from libs.one_to_all.memory import offload as block_offload
from libs.one_to_all.memory.options import MemoryOptions
from libs.one_to_all.speed_options import SpeedOptions
from libs.one_to_all.weights.loading import weight_files

GIGABYTE = 10**9


@pytest.fixture(autouse=True)
def _start_cold():
    warm.release_engines()
    yield
    warm.release_engines()


def test_other_speed_options_mean_a_new_engine(own_repository):
    first, _ = warm.warm_engine(own_repository, "cpu")
    other = SpeedOptions(attention="native_flash")
    second, load = warm.warm_engine(own_repository, "cpu", speed=other)
    assert load.cold and second is not first
    processors = [module.processor for module in second.networks.transformer.modules() if hasattr(module, "processor")]
    assert {processor._attention_backend.value for processor in processors} == {"_native_flash"}
    assert warm.warm_engine(own_repository, "cpu", speed=other)[0] is second


def test_a_second_request_finds_the_engine(own_repository):
    first, load = warm.warm_engine(own_repository, "cpu")
    assert load.cold
    assert load.seconds > 0
    second, again = warm.warm_engine(own_repository, "cpu")
    assert second is first
    assert not again.cold
    assert again.seconds < load.seconds


def test_auto_and_its_device_are_the_same(own_repository, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    first, _ = warm.warm_engine(own_repository, "auto")
    assert warm.warm_engine(own_repository, "cpu")[0] is first


def test_a_changed_file_means_a_new_engine(own_repository):
    first, _ = warm.warm_engine(own_repository, "cpu")
    shard = sorted(own_repository.root.glob("*.safetensors"))[0]
    os.utime(shard, ns=(1, 1))
    second, load = warm.warm_engine(own_repository, "cpu")
    assert load.cold
    assert second is not first


def test_an_outdated_engine_is_gone_before_its_successor_is_loaded(own_repository, monkeypatch):
    outdated = weakref.ref(warm.warm_engine(own_repository, "cpu")[0])
    load, there = AnimationEngine.load, []

    def load_and_look(*arguments, **options):
        there.append(outdated())
        return load(*arguments, **options)

    monkeypatch.setattr(AnimationEngine, "load", load_and_look)
    assert warm.warm_engine(own_repository, "cpu", torch.bfloat16)[1].cold
    assert there == [None], "both at a time may not fit"
    latest = weakref.ref(warm.warm_engine(own_repository, "cpu", torch.bfloat16)[0])
    warm.release_engines()
    assert latest() is None


def test_files_that_do_not_matter_do_not_cool_it(own_repository):
    first, _ = warm.warm_engine(own_repository, "cpu")
    (own_repository.root / "one-to-all.lock.json").write_text("{}")
    (own_repository.wan_part("vae") / ".lock").touch()
    assert own_repository.index in weight_files(own_repository)
    assert warm.warm_engine(own_repository, "cpu")[0] is first


def test_another_dtype_takes_its_place(own_repository):
    first, _ = warm.warm_engine(own_repository, "cpu")
    second, load = warm.warm_engine(own_repository, "cpu", torch.bfloat16)
    assert load.cold
    assert second is not first
    assert len(warm._kept) == 1


def named(layout: RepositoryLayout, name: str) -> RepositoryLayout:
    """The same files under the name of another variant."""
    return replace(layout, variant=replace(layout.variant, name=name))


class FakeMemory:
    """A device on which each kept engine takes as much as is estimated for it."""

    def __init__(self, monkeypatch, layout: RepositoryLayout, engines_that_fit: float) -> None:
        self.size = memory.bytes_when_loaded(layout, torch.float32)
        # A quarter of it is kept for clips.
        self.total = round(engines_that_fit * self.size / (1 - warm.CLIP_SHARE))
        monkeypatch.setattr(warm, "device_memory", self.read)

    def read(self, device: torch.device) -> memory.DeviceMemory:
        return memory.DeviceMemory(self.total - self.size * len(warm._kept), self.total)


def is_cold(layout: RepositoryLayout) -> bool:
    return warm.warm_engine(layout, "cpu")[1].cold


def test_several_variants_stay_while_they_fit(own_repository, monkeypatch):
    FakeMemory(monkeypatch, own_repository, engines_that_fit=3.1)
    variants = [named(own_repository, name) for name in "abc"]
    assert [is_cold(layout) for layout in variants] == [True, True, True]
    assert [is_cold(layout) for layout in variants] == [False, False, False]


def test_what_was_used_longest_ago_makes_room(own_repository, monkeypatch):
    FakeMemory(monkeypatch, own_repository, engines_that_fit=2.1)
    first, second, third = (named(own_repository, name) for name in "abc")
    assert is_cold(first)
    assert is_cold(second)
    assert not is_cold(first)  # now the second is the oldest
    assert is_cold(third)
    assert not is_cold(first)
    assert not is_cold(third)
    assert is_cold(second)


def test_only_as_many_are_dropped_as_it_takes(own_repository, monkeypatch):
    fake = FakeMemory(monkeypatch, own_repository, engines_that_fit=3.1)
    for name in "abc":
        warm.warm_engine(named(own_repository, name), "cpu")
    fake.total = round(2.1 / 3.1 * fake.total)
    warm.warm_engine(named(own_repository, "d"), "cpu")
    assert [name for name, _ in warm._kept] == ["c", "d"]


def test_a_variant_that_never_fits_is_tried_on_an_empty_device(own_repository, monkeypatch):
    FakeMemory(monkeypatch, own_repository, engines_that_fit=0.5)
    for name in "abc":
        assert is_cold(named(own_repository, name))
        assert [kept for kept, _ in warm._kept] == [name]


class OnACard:
    """Stands for an engine of a device that this machine does not have."""

    devices = frozenset({torch.device("cuda:0")})

    def bytes_on(self, device: torch.device) -> int:
        return GIGABYTE if device in self.devices else 0


def move_to_a_card(name: str) -> tuple[str, torch.device]:
    """Play that the engine of this name lies there."""
    place = (name, torch.device("cuda:0"))
    warm._kept[place] = replace(warm._kept.pop((name, torch.device("cpu"))), engine=OnACard())
    return place


def test_engines_of_another_device_are_left_alone(own_repository, monkeypatch):
    FakeMemory(monkeypatch, own_repository, engines_that_fit=0.5)
    warm.warm_engine(named(own_repository, "a"), "cpu")
    elsewhere = move_to_a_card("a")
    warm.warm_engine(named(own_repository, "b"), "cpu")
    assert elsewhere in warm._kept


def test_the_others_of_a_device_are_dropped_for_a_clip_that_did_not_fit(own_repository, monkeypatch):
    FakeMemory(monkeypatch, own_repository, engines_that_fit=9)
    for name in ("a", "b", "elsewhere"):
        warm.warm_engine(named(own_repository, name), "cpu")
    elsewhere = move_to_a_card("elsewhere")
    in_use, _ = warm.warm_engine(named(own_repository, "c"), "cpu")
    assert warm.release_other_engines(in_use) == ["a", "b"]
    assert list(warm._kept) == [elsewhere, ("c", torch.device("cpu"))]
    assert warm.release_other_engines(in_use) == []
    assert warm.warm_engine(named(own_repository, "c"), "cpu")[0] is in_use


def test_a_model_that_cannot_be_loaded_is_not_kept(own_repository):
    assert is_cold(own_repository)
    shard = sorted(own_repository.root.glob("*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ModelFilesError, match=shard.name):
        warm.warm_engine(own_repository, "cpu")
    assert not warm._kept


def test_an_engine_that_cannot_be_moved_is_not_kept(own_repository, monkeypatch):
    engine, _ = warm.warm_engine(own_repository, "cpu", memory=MemoryOptions(keyword="offload"))

    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(block_offload.BlockOffload, "remove", full)
    with pytest.raises(DeviceOutOfMemoryError, match="the weights do not fit into the memory of cpu"):
        warm.warm_engine(own_repository, "cpu", memory=MemoryOptions(keyword="resident"))
    assert not warm._kept
    monkeypatch.undo()
    again, load = warm.warm_engine(own_repository, "cpu", memory=MemoryOptions(keyword="resident"))
    assert load.cold and again is not engine


def test_the_estimate_is_what_the_networks_take(own_repository):
    engine, _ = warm.warm_engine(own_repository, "cpu")
    networks = engine.networks
    loaded = sum(
        parameter.numel() * parameter.element_size()
        for network in (networks.transformer, networks.vae, networks.prompt_encoder.text_encoder)
        for parameter in network.parameters()
    )
    estimated = memory.bytes_when_loaded(own_repository, torch.float32)
    assert loaded <= estimated < loaded * 1.2  # indices, tokenizer and configurations count, too
    weights = estimated - memory.bytes_when_loaded(own_repository, torch.bfloat16)
    assert weights * 2 == pytest.approx(loaded, rel=0.05)


def test_memory_of_the_machine_and_of_a_gpu(monkeypatch):
    machine = memory.device_memory(torch.device("cpu"))
    assert 0 < machine.free < machine.total
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (30 * GIGABYTE, 80 * GIGABYTE))
    assert memory.device_memory(torch.device("cuda:1")) == (30 * GIGABYTE, 80 * GIGABYTE)


def test_a_container_has_no_more_than_its_limit(tmp_path, monkeypatch):
    """A limit of 60 MB, 10 MB of it in use and 20 MB read from files; one around it of 45 MB, unused."""
    monkeypatch.setattr(memory, "_GROUPS", tmp_path)
    monkeypatch.setattr(memory, "_OWN_GROUPS", tmp_path / "own")
    group, mega = tmp_path / "pods" / "worker", 10**6

    def limit(folder, most, current, inactive, active):
        (folder / "memory.max").write_text(f"{most}\n")
        (folder / "memory.current").write_text(f"{current}\n")
        (folder / "memory.stat").write_text(f"anon 5\ninactive_file {inactive}\nactive_file {active}\n")

    group.mkdir(parents=True)
    machine = memory.device_memory(torch.device("cpu"))  # as where there are no control groups
    assert machine.free > 60 * mega
    (tmp_path / "own").write_text("4:memory:/old\n0::/pods/worker\n")
    limit(group, 60 * mega, 30 * mega, 15 * mega, 5 * mega)
    assert memory.device_memory(torch.device("cpu")) == (50 * mega, 60 * mega)
    limit(group.parent, 45 * mega, 0, 0, 0)
    assert memory.device_memory(torch.device("cpu")) == (45 * mega, 45 * mega)
    limit(group, "max", 0, 0, 0)
    limit(group.parent, 45 * mega, 99 * mega, 0, 0)
    assert memory.device_memory(torch.device("cpu")) == (0, 45 * mega)


def test_a_container_of_control_groups_version_1(tmp_path, monkeypatch):
    """The group's own path is that of the host, which a container does not see: its limit is the root's."""
    monkeypatch.setattr(memory, "_GROUPS", tmp_path)
    monkeypatch.setattr(memory, "_OWN_GROUPS", tmp_path / "own")
    group, mega = tmp_path / "memory", 10**6
    group.mkdir()
    (tmp_path / "own").write_text("9:name=systemd:/\n4:cpu,memory:/docker/0123\n0::/\n")
    without = memory.device_memory(torch.device("cpu"))
    (group / "memory.usage_in_bytes").write_text(f"{30 * mega}\n")
    pages = f"inactive_file 1\nactive_file 1\ntotal_inactive_file {15 * mega}\ntotal_active_file {5 * mega}\n"
    (group / "memory.stat").write_text(pages)
    (group / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert memory.device_memory(torch.device("cpu")).total == without.total
    (group / "memory.limit_in_bytes").write_text(f"{60 * mega}\n")
    assert memory.device_memory(torch.device("cpu")) == (50 * mega, 60 * mega)
    inner = group / "docker" / "0123"
    inner.mkdir(parents=True)
    (inner / "memory.usage_in_bytes").write_text("0\n")
    (inner / "memory.stat").write_text("total_inactive_file 0\ntotal_active_file 0\n")
    (inner / "memory.limit_in_bytes").write_text(f"{45 * mega}\n")
    assert memory.device_memory(torch.device("cpu")) == (45 * mega, 45 * mega)
