"""One copy of the blocks for several processes: filled once, read by all, and gone when nobody's blocks lie there.

Two networks of this process stand for two processes; real ones are in ``parallel/test_parallel_engine.py``.
"""

import os
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from libs.errors import DeviceError, ModelFilesError
from libs.one_to_all import shared_host_memory
from libs.one_to_all.memory.offload import BlockOffload, constant_names_in_blocks
from libs.one_to_all.shared_host_memory import SharedHostMemory, can_share_host_memory, open_shared_memory
from libs.one_to_all.weights.loading import load_transformer
from libs.one_to_all.weights.lora_branches import LoraBranches
from libs.one_to_all.weights.lora_file import LoraFile

pytestmark = pytest.mark.skipif(not can_share_host_memory(), reason="this system has no memory without a file")
CPU = torch.device("cpu")


@pytest.fixture
def descriptor():
    opened = open_shared_memory()
    yield opened
    os.close(opened)


@pytest.fixture
def views(descriptor, tmp_path) -> list[SharedHostMemory]:
    return [SharedHostMemory(descriptor, tmp_path / "turn", page_locked=False) for _ in range(2)]


def test_the_second_reads_no_blocks_and_computes_the_same(repository, views, velocity):
    expected = velocity(load_transformer(repository, CPU, torch.float32))
    networks = []
    for number, view in enumerate(views):
        with view.turn:
            assert view.filled == bool(number)
            network = load_transformer(repository, CPU, torch.float32, home=CPU, without_blocks=view.filled)
            in_blocks = {name for name, _ in network.named_parameters() if ".blocks." in f".{name}"}
            assert set(constant_names_in_blocks(network)) == in_blocks
            for name, parameter in network.named_parameters():
                assert bool(parameter.isnan().all()) == (number == 1 and name in in_blocks)
            BlockOffload(network, CPU, view)
        assert torch.equal(velocity(network), expected)
        networks.append(network)
    first, second = (network.blocks[0].ffn.net[2].bias for network in networks)
    assert first.data_ptr() != second.data_ptr()
    first.data[0] = 7.0
    assert second[0] == 7.0, "it is the same memory"


def test_a_lora_is_fused_once(repository, views, velocity, tmp_path):
    plain = load_transformer(repository, CPU, torch.float32)
    changes = {"blocks.1.ffn.net.2": plain.blocks[1].ffn.net[2], "proj_out": plain.proj_out}
    path = tmp_path / "style.safetensors"
    tensors = {f"{name}.diff": torch.full_like(layer.weight, 0.05) for name, layer in changes.items()}
    save_file(tensors | {"blocks.1.scale_shift_table.diff": torch.ones_like(plain.blocks[1].scale_shift_table)}, path)
    lora = LoraFile(path)
    expected = velocity(load_transformer(repository, CPU, torch.float32, lora))
    assert not torch.equal(expected, velocity(plain))
    for view in views:
        with view.turn:
            network = load_transformer(repository, CPU, torch.float32, lora, home=CPU, without_blocks=view.filled)
            BlockOffload(network, CPU, view)
        assert torch.equal(velocity(network), expected)


def test_fp8_weights_are_one_and_what_a_lora_changes_is_each_networks_own(fp8_repository, views, velocity, tmp_path):
    plain = load_transformer(fp8_repository, CPU, torch.float32)
    layer, table = plain.blocks[1].ffn.net[2], plain.blocks[1].scale_shift_table
    path = tmp_path / "style.safetensors"
    tensors = {
        "blocks.1.ffn.net.2.lora_A.weight": torch.ones(2, layer.in_features),
        "blocks.1.ffn.net.2.lora_B.weight": torch.full((layer.out_features, 2), 0.05),
        "blocks.1.ffn.net.2.diff_b": torch.full_like(layer.bias, 0.05),
        "blocks.1.scale_shift_table.diff": torch.ones_like(table),
    }
    save_file(tensors, path)
    lora = LoraFile(path)
    expected = {None: velocity(plain)}
    LoraBranches(plain, torch.float32).use(lora)
    expected[lora] = velocity(plain)
    assert not torch.equal(*expected.values())

    placed = []
    for number, (view, used) in enumerate(zip(views, (lora, None), strict=True)):
        network = load_transformer(fp8_repository, CPU, torch.float32, home=CPU, without_blocks=view.filled)
        constant = set(constant_names_in_blocks(network))
        assert {name.rpartition(".")[2] for name in constant} == {"weight", "scale_weight"}
        for name, tensor in network.state_dict().items():
            assert bool(tensor.float().isnan().all()) == (number == 1 and name in constant)
        branches = LoraBranches(network, torch.float32)
        branches.use(used)
        placed.append((network, branches, BlockOffload(network, CPU, view)))
    shared, own = (network.blocks[1].ffn.net[2] for network, _, _ in placed)
    assert shared.weight.data_ptr() != own.weight.data_ptr()
    assert os.fstat(views[0]._descriptor).st_size < 2 * sum(plain.state_dict()[name].nbytes for name in constant)

    for first, second in ((lora, None), (None, lora), (lora, lora)):
        for (_, branches, offload), used in zip(placed, (first, second), strict=True):
            if branches.use(used):
                offload.repack()
        for (network, _, _), used in zip(placed, (first, second), strict=True):
            assert torch.equal(velocity(network), expected[used])
    for network, _, offload in placed:
        offload.remove()
        assert torch.equal(velocity(network), expected[lora])
    assert not views[0].filled


def test_files_are_checked_for_blocks_that_are_not_read(own_repository):
    shard = sorted(own_repository.root.glob("*.safetensors"))[0]
    shard.write_bytes(shard.read_bytes()[:-1])
    with pytest.raises(ModelFilesError, match=shard.name):
        load_transformer(own_repository, CPU, torch.float32, without_blocks=True)


def test_it_is_empty_when_the_last_one_is_moved_away_and_filled_again(small_transformer, views, velocity, descriptor):
    networks = [small_transformer(), small_transformer()]
    expected = velocity(networks[0])
    empty, sizes = os.fstat(descriptor).st_size, set()
    for _ in range(2):
        offloads = [BlockOffload(network, CPU, view) for network, view in zip(networks, views, strict=True)]
        sizes.add(os.fstat(descriptor).st_size)
        assert min(sizes) > empty + sum(one.nbytes for one in networks[0].blocks.parameters())
        for offload, network in zip(offloads, networks, strict=True):
            assert views[0].filled
            offload.remove()
            assert all(torch.equal(velocity(one), expected) for one in networks), network
        assert not views[0].filled
        assert os.fstat(descriptor).st_size == empty
        views.reverse()
        networks.reverse()
    assert len(sizes) == 1, "each time from its beginning"


def test_another_network_does_not_fit(small_transformer, views):
    BlockOffload(small_transformer(), CPU, views[0])
    with pytest.raises(ValueError, match="greater than file size"):
        BlockOffload(small_transformer(num_layers=9), CPU, views[1])


class PlayedRuntime:
    """CUDA's page-locked memory: what is locked, by address."""

    def __init__(self, monkeypatch) -> None:
        self.locked: dict[int, int] = {}
        self.room = 10**12
        functions = SimpleNamespace(cudaHostRegister=self._register, cudaHostUnregister=self._unregister)
        monkeypatch.setattr(torch.cuda, "cudart", lambda: functions)

    def _register(self, address: int, byte_count: int, _flags: int) -> int:
        if sum(self.locked.values()) + byte_count > self.room:
            return 2
        self.locked[address] = byte_count
        return 0

    def _unregister(self, address: int) -> int:
        return 0 if self.locked.pop(address, None) else 1


def test_each_process_page_locks_it_while_it_is_there(small_transformer, descriptor, tmp_path, monkeypatch):
    runtime, page = PlayedRuntime(monkeypatch), shared_host_memory._PAGE
    network, view = small_transformer(), SharedHostMemory(descriptor, tmp_path / "turn", page_locked=True)
    for _ in range(2):
        offload = BlockOffload(network, CPU, view)
        assert sum(runtime.locked.values()) == os.fstat(descriptor).st_size - page
        assert all(address % page == 0 for address in runtime.locked)
        offload.remove()
        assert not runtime.locked


def test_memory_that_cannot_be_page_locked_is_an_error(small_transformer, descriptor, tmp_path, monkeypatch):
    PlayedRuntime(monkeypatch).room = 10_000
    with pytest.raises(DeviceError, match=r"cannot be page-locked \(CUDA error 2\).*ONE_TO_ALL_MEMORY"):
        BlockOffload(small_transformer(), CPU, SharedHostMemory(descriptor, tmp_path / "turn", page_locked=True))
