"""Blocks that come to the device one by one: the same bits, all three lists, and nothing that stays behind.

Host and device are both the CPU here, but a block that computes does so from a copy: what was copied, how much of it is
there at a time, and whether anything goes on using it can be seen.
"""

import pytest
import torch
from diffusers import FirstBlockCacheConfig
from torch import nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode

from libs.model_repo.files.parameters import TensorInfo
from libs.model_repo.operations.quantize import quantize_weight
from libs.one_to_all.memory import offload as block_offload
from libs.one_to_all.memory.offload import BlockOffload, block_lists
from libs.one_to_all.network.activation_cache import ForwardMemo
from libs.one_to_all.sampling.denoise import ChunkConditions, ClipConditions, denoise, draw_noise
from libs.one_to_all.sampling.guidance import plan_guidance
from libs.one_to_all.sampling.schedule import build_scheduler
from libs.one_to_all.weights.fp8 import hold_weights_in_fp8

CPU = torch.device("cpu")
STEPS, FRAMES, SIZE = 2, 9, 32
LATENT = SIZE // 8
NETWORK = {"num_layers": 4, "num_control_layers": 2, "num_reference_layers": 2}


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def _denoise(transformer, intermediate="without_image", memo=None, steps=STEPS, previous=True):
    text_dim, dtype = transformer.config.text_dim, transformer.proj_out.weight.dtype
    clip = ClipConditions(
        prompt=_random(1, 7, text_dim).to(dtype),
        negative_prompt=_random(1, 9, text_dim).to(dtype),
        image_latents=_random(1, 32, 1, LATENT, LATENT).to(dtype),
        black_latents=(_random(1, 32, 1, LATENT, LATENT) * 0.5).to(dtype),
        reference_pose=_random(1, 3, 1, SIZE, SIZE).to(dtype),
    )
    known = _random(1, 16, 2, LATENT, LATENT).to(dtype) if previous else None
    chunk = ChunkConditions(_random(1, 3, FRAMES, SIZE, SIZE).to(dtype), known)
    noise = draw_noise((1, 16, 3, LATENT, LATENT), 42, CPU, dtype)
    guidance = plan_guidance(2.0, 1.5, 0.8, intermediate)
    states = denoise(transformer, build_scheduler(), guidance, clip, chunk, noise, steps, memo)
    return [state.latents for state in states]


@pytest.fixture
def transformer(small_transformer):
    return small_transformer(**NETWORK)


@pytest.fixture(autouse=True)
def _used_copies_are_spoilt(monkeypatch):
    """What uses a block's copy after the block has computed gets NaN (every bit set)."""
    give_back = BlockOffload.give_back

    def spoil(self, block):
        slot = self._slot_of(block)
        give_back(self, block)
        slot.buffer.fill_(0xFF)

    monkeypatch.setattr(BlockOffload, "give_back", spoil)


@pytest.fixture
def copies(monkeypatch):
    """Every piece of device memory that is ever taken for blocks."""
    taken = []
    make = block_offload._Slot.__init__

    def remembered(slot, *arguments):
        make(slot, *arguments)
        taken.append(StorageWeakRef(slot.buffer.untyped_storage()))

    monkeypatch.setattr(block_offload._Slot, "__init__", remembered)
    return taken


def test_all_three_lists_take_part(transformer):
    lists = block_lists(transformer)
    assert lists.keys() == {"blocks", "controlnet.blocks", "refextractor.blocks"}
    blocks = {block for blocks in lists.values() for block in blocks}
    kinds = transformer._no_split_modules
    assert blocks == {module for module in transformer.modules() if type(module).__name__ in kinds}


class Moves(TorchFunctionMode):
    """Notes which tensors are asked to go to another device; here both are the CPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: set[int] = set()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.to:
            self.found.add(args[0].data_ptr())
        return func(*args, **(kwargs or {}))


def test_everything_but_the_blocks_goes_to_the_device(transformer):
    in_blocks = {id(tensor) for blocks in block_lists(transformer).values() for tensor in blocks.parameters()}
    others = {tensor.data_ptr() for tensor in transformer.parameters() if id(tensor) not in in_blocks}
    with Moves() as moves:
        BlockOffload(transformer, CPU)
    assert moves.found == others


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("intermediate", ["without_image", "without_pose"])
def test_the_same_bits(transformer, intermediate, dtype):
    transformer.to(dtype)
    expected = _denoise(transformer, intermediate)
    offload = BlockOffload(transformer, CPU)
    offloaded = _denoise(transformer, intermediate)
    offload.remove()
    for results in (offloaded, _denoise(transformer, intermediate)):
        assert all(torch.equal(*pair) for pair in zip(results, expected, strict=True))
        assert torch.isfinite(results[-1]).all()


def test_the_same_bits_with_weights_in_fp8(small_transformer):
    plain = small_transformer(**NETWORK)
    state, tensors = {}, {}
    for name, tensor in plain.state_dict().items():
        tensors[name], state[name] = TensorInfo("F32", tuple(tensor.shape)), tensor
        if name.endswith("attn1.to_q.weight"):
            state[name], scale = quantize_weight(tensor)
            state[name.replace("weight", "scale_weight")] = scale
            tensors[name] = TensorInfo("F8_E4M3", tuple(tensor.shape))
            tensors[name.replace("weight", "scale_weight")] = TensorInfo("F16", tuple(scale.shape))
    with torch.device("meta"):
        model = type(plain)(**plain.config).eval()
    hold_weights_in_fp8(model, tensors)
    model.load_state_dict(state, assign=True)
    model.requires_grad_(False)
    expected = _denoise(model)
    BlockOffload(model, CPU)
    assert model.blocks[0].attn1.to_q.weight.dtype == torch.float8_e4m3fn
    assert torch.equal(_denoise(model)[-1], expected[-1])


def test_room_for_two_blocks_and_none_after_a_pass(transformer, copies):
    """The memo lives on; it must hold results only, no weights."""
    offload, memo = BlockOffload(transformer, CPU), ForwardMemo()
    largest = max(sum(tensor.nbytes for tensor in block.parameters()) for block in transformer.blocks)
    seen = []

    def look(block, *_):
        seen.append((offload.bytes_on_device, sum(not one.expired() for one in copies)))
        buffers = {slot.buffer.untyped_storage().data_ptr() for slot in offload._slots}
        assert {tensor.untyped_storage().data_ptr() for tensor in block.parameters()} < buffers, "computes from a copy"

    transformer.blocks[2].ffn.register_forward_hook(lambda *_: look(transformer.blocks[2]))
    _denoise(transformer, memo=memo)
    assert {count for _, count in seen} == {2}
    assert all(2 * largest <= held < 2.1 * largest for held, _ in seen)
    assert offload.bytes_on_device == 0
    assert copies
    assert all(one.expired() for one in copies), "something still uses a block's copy"
    held = {tensor.untyped_storage().data_ptr() for tensor in transformer.blocks[0].parameters()}
    assert len(held) == 1, "a block is one piece of memory on the host"


def test_the_next_block_is_on_its_way(transformer, monkeypatch):
    """After the first step, blocks are waited for only where passes differ: at most once each."""
    offload, waited, copied = BlockOffload(transformer, CPU), [], []
    copy, bring = BlockOffload._copy, BlockOffload.bring

    def counted(self, block, beside=None):
        copied.append(block)
        return copy(self, block, beside)

    def looked_for(self, block):
        if self._slot_of(block) is None:
            waited.append(block)
        bring(self, block)

    monkeypatch.setattr(BlockOffload, "_copy", counted)
    monkeypatch.setattr(BlockOffload, "bring", looked_for)
    _denoise(transformer, steps=1)
    waited.clear()
    copied.clear()
    _denoise(transformer, steps=3)
    passes = 9
    # main blocks in every pass, control in two of three, reference for the two pictures of a step
    computed = passes * 4 + 6 * 2 + 6 * 2
    assert len(waited) <= passes
    assert computed <= len(copied) <= computed + 2 * passes
    assert offload.bytes_on_device == 0


def test_a_block_that_computes_is_never_overwritten():
    """Whatever comes next, and however wrong the guess: the orders of these passes foretell nothing."""
    torch.manual_seed(0)
    model = nn.Module()
    model.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(5)).requires_grad_(False)
    model.forward = lambda states, order: [states := torch.tanh(model.blocks[index](states)) for index in order][-1]
    orders = [torch.randint(0, 5, (9,)).tolist() for _ in range(20)]
    expected = [model(torch.ones(4), order=order) for order in orders]
    BlockOffload(model, CPU)
    assert all(torch.equal(model(torch.ones(4), order=order), one) for order, one in zip(orders, expected, strict=True))


def test_blocks_that_a_cache_skips_are_not_copied(transformer, monkeypatch):
    BlockOffload(transformer, CPU)
    brought = []
    bring = BlockOffload.bring

    def noted(self, block):
        brought.append(block.module)
        bring(self, block)

    monkeypatch.setattr(BlockOffload, "bring", noted)
    inputs = {
        "hidden_states": _random(1, 16, 3, LATENT, LATENT),
        "timestep": torch.tensor([500.0]),
        "encoder_hidden_states": _random(1, 7, transformer.config.text_dim),
        "controlnet_cond": None,
        "image_latents": _random(1, 32, 1, LATENT, LATENT),
        "image_pose": None,
        "conditioning_scale": 0,
    }
    expected = transformer(**inputs).sample
    transformer.enable_cache(FirstBlockCacheConfig(threshold=1e-6))
    results = []
    for _ in range(2):
        brought.clear()
        with transformer.cache_context("unconditional"):
            results.append(transformer(**inputs).sample)
    assert [block for block in brought if block in set(transformer.blocks)] == [transformer.blocks[0]]
    assert torch.equal(results[0], expected)
    assert (results[1] - expected).abs().max() < 1e-4
    transformer.disable_cache()
    assert torch.equal(transformer(**inputs).sample, expected)


def test_a_pass_that_fails_leaves_nothing_behind(transformer, copies):
    expected = _denoise(transformer)
    offload = BlockOffload(transformer, CPU)

    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    handle = transformer.blocks[1].ffn.register_forward_hook(fail)
    with pytest.raises(torch.OutOfMemoryError):
        _denoise(transformer)
    handle.remove()
    assert offload.bytes_on_device == 0
    assert all(one.expired() for one in copies)
    assert torch.equal(_denoise(transformer)[-1], expected[-1])


def test_removing_gives_every_tensor_memory_of_its_own(transformer):
    before = {name: tensor.clone() for name, tensor in transformer.state_dict().items()}
    BlockOffload(transformer, CPU).remove()
    after = transformer.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    storages = [tensor.untyped_storage().data_ptr() for tensor in transformer.blocks[0].parameters()]
    assert len(set(storages)) == len(storages)
