"""Free memory of this machine, its containers and its devices, and what weights take once they are loaded."""

import pytest
import torch

from libs.one_to_all.memory.choice import DeviceMemory, bytes_when_loaded, device_memory, host_memory

GIGABYTE = 10**9


def test_the_estimate_is_what_the_networks_take(repository, engine):
    networks = engine.networks
    loaded = sum(
        parameter.numel() * parameter.element_size()
        for network in (networks.transformer, networks.vae, networks.prompt_encoder.text_encoder)
        for parameter in network.parameters()
    )
    estimated = bytes_when_loaded(repository, torch.float32)
    assert loaded <= estimated < loaded * 1.2  # indices, tokenizer and configurations count, too
    weights = estimated - bytes_when_loaded(repository, torch.bfloat16)
    assert weights * 2 == pytest.approx(loaded, rel=0.05)


def test_memory_of_the_machine_and_of_a_gpu(monkeypatch):
    machine = device_memory(torch.device("cpu"))
    assert 0 < machine.free < machine.total
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (30 * GIGABYTE, 80 * GIGABYTE))
    assert device_memory(torch.device("cuda:1")) == (30 * GIGABYTE, 80 * GIGABYTE)


def test_a_container_has_no_more_than_its_limit(tmp_path):
    """A limit of 60 MB, 10 MB of it in use and 20 MB read from files; one around it of 45 MB, unused."""

    def free() -> DeviceMemory:
        return host_memory(tmp_path / "own", tmp_path)

    group, mega = tmp_path / "pods" / "worker", 10**6

    def limit(folder, most, current, inactive, active):
        (folder / "memory.max").write_text(f"{most}\n")
        (folder / "memory.current").write_text(f"{current}\n")
        (folder / "memory.stat").write_text(f"anon 5\ninactive_file {inactive}\nactive_file {active}\n")

    group.mkdir(parents=True)
    machine = free()  # as where there are no control groups
    assert machine.free > 60 * mega
    (tmp_path / "own").write_text("4:memory:/old\n0::/pods/worker\n")
    limit(group, 60 * mega, 30 * mega, 15 * mega, 5 * mega)
    assert free() == (50 * mega, 60 * mega)
    limit(group.parent, 45 * mega, 0, 0, 0)
    assert free() == (45 * mega, 45 * mega)
    limit(group, "max", 0, 0, 0)
    limit(group.parent, 45 * mega, 99 * mega, 0, 0)
    assert free() == (0, 45 * mega)


def test_a_container_of_control_groups_version_1(tmp_path):
    """The group's own path is that of the host, which a container does not see: its limit is the root's."""

    def free() -> DeviceMemory:
        return host_memory(tmp_path / "own", tmp_path)

    group, mega = tmp_path / "memory", 10**6
    group.mkdir()
    (tmp_path / "own").write_text("9:name=systemd:/\n4:cpu,memory:/docker/0123\n0::/\n")
    without = free()
    (group / "memory.usage_in_bytes").write_text(f"{30 * mega}\n")
    pages = f"inactive_file 1\nactive_file 1\ntotal_inactive_file {15 * mega}\ntotal_active_file {5 * mega}\n"
    (group / "memory.stat").write_text(pages)
    (group / "memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert free().total == without.total
    (group / "memory.limit_in_bytes").write_text(f"{60 * mega}\n")
    assert free() == (50 * mega, 60 * mega)
    inner = group / "docker" / "0123"
    inner.mkdir(parents=True)
    (inner / "memory.usage_in_bytes").write_text("0\n")
    (inner / "memory.stat").write_text("total_inactive_file 0\ntotal_active_file 0\n")
    (inner / "memory.limit_in_bytes").write_text(f"{45 * mega}\n")
    assert free() == (45 * mega, 45 * mega)
