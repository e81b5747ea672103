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
from libs.one_to_all.memory.offload import BlockOffload, SlotPool, block_lists
from libs.one_to_all.network import ActivationCache
from libs.one_to_all.sampling.denoise import ChunkConditions, ChunkTask, ClipConditions, denoise, draw_noise
from libs.one_to_all.sampling.guidance import plan_guidance
from libs.one_to_all.sampling.schedule import build_scheduler
from libs.one_to_all.weights.fp8 import hold_weights_in_fp8

CPU = torch.device("cpu")
STEPS, FRAMES, SIZE = 2, 9, 32
LATENT = SIZE // 8
NETWORK = {"num_layers": 4, "num_control_layers": 2, "num_reference_layers": 2}


def _random(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


def _denoise(transformer, intermediate="without_image", activations=None, steps=STEPS, previous=True):
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
    states = denoise(transformer, build_scheduler(), ChunkTask(guidance, clip, chunk, noise, steps), activations)
    return [state.latents for state in states]


@pytest.fixture
def transformer(small_transformer):
    return small_transformer(**NETWORK)


class ObservedPool(SlotPool):
    """Notes what happens to blocks, and spoils a block's copy after the block has computed: every bit set, NaN."""

    def __init__(self, device=CPU) -> None:
        super().__init__(device)
        self.memory: list[StorageWeakRef] = []
        """Every piece of device memory that was ever allocated."""
        self.acquired, self.waited_for, self.copied = [], [], []

    def allocate(self, slot_bytes):
        super().allocate(slot_bytes)
        self.memory += [StorageWeakRef(slot.buffer.untyped_storage()) for slot in self.slots]

    def acquire(self, block):
        self.acquired.append(block.module)
        if self.slot_of(block) is None:
            self.waited_for.append(block.module)
        return super().acquire(block)

    def copy(self, block, beside=None):
        self.copied.append(block.module)
        return super().copy(block, beside)

    def release(self, block):
        slot = self.slot_of(block)
        super().release(block)
        slot.buffer.fill_(0xFF)


@pytest.fixture
def pool() -> ObservedPool:
    return ObservedPool()


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
        BlockOffload(transformer, CPU, ObservedPool())
    assert moves.found == others


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("intermediate", ["without_image", "without_pose"])
def test_the_same_bits(transformer, pool, intermediate, dtype):
    transformer.to(dtype)
    expected = _denoise(transformer, intermediate)
    offload = BlockOffload(transformer, CPU, pool)
    offloaded = _denoise(transformer, intermediate)
    offload.remove()
    for results in (offloaded, _denoise(transformer, intermediate)):
        assert all(torch.equal(*pair) for pair in zip(results, expected, strict=True))
        assert torch.isfinite(results[-1]).all()


def test_the_same_bits_with_weights_in_fp8(small_transformer, pool):
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
    BlockOffload(model, CPU, pool)
    assert model.blocks[0].attn1.to_q.weight.dtype == torch.float8_e4m3fn
    assert torch.equal(_denoise(model)[-1], expected[-1])


def test_room_for_two_blocks_and_none_after_a_pass(transformer, pool):
    """The activation cache lives on; it must hold results only, no weights."""
    offload, activations = BlockOffload(transformer, CPU, pool), ActivationCache()
    largest = max(sum(tensor.nbytes for tensor in block.parameters()) for block in transformer.blocks)
    seen = []

    def look(block, *_):
        seen.append((offload.bytes_on_device, sum(not one.expired() for one in pool.memory)))
        buffers = {slot.buffer.untyped_storage().data_ptr() for slot in pool.slots}
        assert {tensor.untyped_storage().data_ptr() for tensor in block.parameters()} < buffers, "computes from a copy"

    transformer.blocks[2].ffn.register_forward_hook(lambda *_: look(transformer.blocks[2]))
    _denoise(transformer, activations=activations)
    assert {count for _, count in seen} == {2}
    assert all(2 * largest <= held < 2.1 * largest for held, _ in seen)
    assert offload.bytes_on_device == 0
    assert pool.memory
    assert all(one.expired() for one in pool.memory), "something still uses a block's copy"
    held = {tensor.untyped_storage().data_ptr() for tensor in transformer.blocks[0].parameters()}
    assert len(held) == 1, "a block is one piece of memory on the host"


def test_the_next_block_is_prefetched(transformer, pool):
    """After the first step, blocks are waited for only where passes differ: at most once each."""
    offload = BlockOffload(transformer, CPU, pool)
    _denoise(transformer, steps=1)
    pool.waited_for.clear()
    pool.copied.clear()
    _denoise(transformer, steps=3)
    passes = 9
    # main blocks in every pass, control in two of three, reference for the two pictures of a step
    computed = passes * 4 + 6 * 2 + 6 * 2
    assert len(pool.waited_for) <= passes
    assert computed <= len(pool.copied) <= computed + 2 * passes
    assert offload.bytes_on_device == 0


def test_a_block_that_computes_is_never_overwritten(pool):
    """Whatever comes next, and however wrong the guess: the orders of these passes foretell nothing."""
    torch.manual_seed(0)
    model = nn.Module()
    model.blocks = nn.ModuleList(nn.Linear(4, 4) for _ in range(5)).requires_grad_(False)
    model.forward = lambda states, order: [states := torch.tanh(model.blocks[index](states)) for index in order][-1]
    orders = [torch.randint(0, 5, (9,)).tolist() for _ in range(20)]
    expected = [model(torch.ones(4), order=order) for order in orders]
    BlockOffload(model, CPU, pool)
    assert all(torch.equal(model(torch.ones(4), order=order), one) for order, one in zip(orders, expected, strict=True))


def test_blocks_that_a_cache_skips_are_not_copied(transformer, pool):
    BlockOffload(transformer, CPU, pool)
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
        pool.acquired.clear()
        with transformer.cache_context("unconditional"):
            results.append(transformer(**inputs).sample)
    assert [block for block in pool.acquired if block in set(transformer.blocks)] == [transformer.blocks[0]]
    assert torch.equal(results[0], expected)
    assert (results[1] - expected).abs().max() < 1e-4
    transformer.disable_cache()
    assert torch.equal(transformer(**inputs).sample, expected)


def test_a_pass_that_fails_leaves_nothing_behind(transformer, pool):
    expected = _denoise(transformer)
    offload = BlockOffload(transformer, CPU, pool)

    def fail(*_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    handle = transformer.blocks[1].ffn.register_forward_hook(fail)
    with pytest.raises(torch.OutOfMemoryError):
        _denoise(transformer)
    handle.remove()
    assert offload.bytes_on_device == 0
    assert all(one.expired() for one in pool.memory)
    assert torch.equal(_denoise(transformer)[-1], expected[-1])


def test_removing_the_offload_gives_every_tensor_separate_memory(transformer, pool):
    before = {name: tensor.clone() for name, tensor in transformer.state_dict().items()}
    BlockOffload(transformer, CPU, pool).remove()
    after = transformer.state_dict()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    storages = [tensor.untyped_storage().data_ptr() for tensor in transformer.blocks[0].parameters()]
    assert len(set(storages)) == len(storages)
