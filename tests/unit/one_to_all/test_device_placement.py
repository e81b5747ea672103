"""Device errors found without a device: everything a clip runs, on tensors that say they are on CUDA and hold nothing.

torch's fake tensors raise where an operation mixes devices, and where a value is needed on the host. So a tensor made
on the CPU by mistake fails here, and so does a hidden wait for the device. What is not seen: kernels, streams, numbers.
"""

import ctypes
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch._C._autograd import DeviceType
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from libs.model_repo.files.parameters import TensorInfo, is_quantized, scale_name
from libs.one_to_all.engine import AnimationEngine
from libs.one_to_all.events import StepFinished
from libs.one_to_all.network import OneToAllTransformer3DModel
from libs.one_to_all.options import SamplingOptions
from libs.one_to_all.sampling.approximation import EXACT, Approximation
from libs.one_to_all.sampling.chunk_plan import Chunk
from libs.one_to_all.sampling.prompts import PromptEncoder
from libs.one_to_all.weights.fp8 import Fp8Linear, hold_weights_in_fp8, scaled_linear
from libs.one_to_all.weights.loading import LoadedNetworks
from libs.one_to_all.weights.lora import LoraDelta

CUDA = torch.device("cuda:0")
CHUNK = Chunk(0, 0, 5)
STEPS = 4


class Crossings(TorchDispatchMode):
    """Notes each copy from one device to another; single numbers from the host go along with the operation itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        before = {one.device.type for one in args if isinstance(one, torch.Tensor)}
        mixed = func is torch.ops.aten.copy_.default and len(before) > 1
        if isinstance(result, torch.Tensor) and (mixed or (before and result.device.type not in before)):
            self.found.append(f"{func} to {result.device.type}")
        return result


class RealTokenizer:
    """A tokenizer's answer made beforehand: making it is no business of a device."""

    def __init__(self, answer: dict[str, list[list[int]]]) -> None:
        self.answer = answer

    def __call__(self, *_: object, **__: object) -> dict[str, list[list[int]]]:
        return self.answer


def _fake_twin(model: torch.nn.Module) -> torch.nn.Module:
    """The same module with fake parameters on CUDA; no value is there, so no fault can hide behind one."""
    for module in model.modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:
                    moved = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device=CUDA)
                    tensors[name] = torch.nn.Parameter(moved, False) if tensors is module._parameters else moved
    return model


@pytest.fixture(scope="module")
def _device_guard() -> Iterator[None]:
    """Where torch was built without CUDA: some operations switch to their tensors' device before they are looked at.

    torch's table of how to switch has no entry for CUDA then; that of tensors without data does nothing, and is lent.
    """
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    table = (ctypes.c_void_p * 20).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")
    cuda, no_data = DeviceType.CUDA.value, DeviceType.Meta.value
    before = table[cuda]
    if before is None:
        table[cuda] = table[no_data]
    yield
    table[cuda] = before


@pytest.fixture
def fake(_device_guard) -> Iterator[FakeTensorMode]:
    with FakeTensorMode(allow_non_fake_inputs=True) as mode, torch.no_grad():
        yield mode


@pytest.fixture
def looks(monkeypatch) -> list[torch.Tensor]:
    """The latents of which the engine asked whether they are finite, a wait for the device; fakes cannot answer."""
    looked: list[torch.Tensor] = []

    def is_finite(latents: torch.Tensor) -> bool:
        looked.append(latents)
        return True

    monkeypatch.setattr("libs.one_to_all.engine.is_finite", is_finite)
    return looked


@pytest.fixture
def engine(repository, fake, looks, monkeypatch) -> AnimationEngine:
    """The engine of the tiny repository, in bfloat16, on a card that is not there."""
    with torch.utils._python_dispatch._disable_current_modes():
        loaded = AnimationEngine.load(repository, "cpu", torch.bfloat16).networks
        tokens = loaded.prompt_encoder.tokenizer(["a dancer"], padding="max_length", max_length=512)
    encoder = PromptEncoder(RealTokenizer(dict(tokens)), _fake_twin(loaded.prompt_encoder.text_encoder))
    networks = LoadedNetworks(_fake_twin(loaded.transformer), _fake_twin(loaded.vae), encoder, loaded.scheduler)
    loaded.transformer.rope._tables.clear()

    def host_array(tensor: torch.Tensor) -> np.ndarray:
        assert tensor.device.type == "cpu", "numpy reads the host's memory only"
        return np.zeros(tensor.shape, np.uint8)

    monkeypatch.setattr(FakeTensor, "numpy", host_array)
    return AnimationEngine(networks, CUDA, torch.bfloat16)


def _options(approximation: Approximation = EXACT, **changes) -> SamplingOptions:
    return SamplingOptions("a dancer", "blurred", STEPS, 2.0, 1.5, approximation=approximation, **changes)


@pytest.mark.parametrize(("intermediate", "goes_on"), [("without_image", True), ("without_pose", False)])
def test_a_chunk_from_pixels_to_frames_copies_only_before_and_behind_the_steps(
    engine, looks, make_inputs, intermediate, goes_on
) -> None:
    previous = np.zeros((5, 32, 32, 3), np.uint8) if goes_on else None
    chunk, options = Chunk(0, 0, 9), _options(intermediate_pass=intermediate)
    with Crossings() as crossings:
        results = engine.chunk_maker(make_inputs(9), options)(chunk, previous)
        assert isinstance(next(results), StepFinished)
        assert crossings.found  # the pictures, the noise, the timesteps
        crossings.found.clear()
        assert len(looks) == 1
        for step in range(2, STEPS + 1):
            assert isinstance(next(results), StepFinished)
            assert crossings.found == []  # each would wait for all that the device has been given to do
            assert len(looks) == (2 if step == STEPS else 1)  # so would this
        (frames,) = results
        assert any("to cpu" in one for one in crossings.found)
    assert frames.shape == (9, 32, 32, 3)


def test_a_block_cache_is_the_only_step_that_reads_on_the_host(engine, make_inputs) -> None:
    with pytest.raises(DataDependentOutputException, match="_local_scalar_dense"):
        list(engine.chunk_maker(make_inputs(5), _options(Approximation(block_cache_threshold=0.1)))(CHUNK, None))


def test_the_text_encoder_reads_nothing_back(engine) -> None:
    with Crossings() as crossings:
        embeddings = engine.networks.prompt_encoder.encode("another one", CUDA, torch.bfloat16)
    assert embeddings.device == CUDA
    assert not any("to cpu" in one for one in crossings.found)


def test_fp8_weights_of_the_whole_network(engine, make_inputs) -> None:
    transformer = engine.networks.transformer
    infos, state = {}, {}
    for name, tensor in transformer.state_dict().items():
        dtype = torch.float8_e4m3fn if is_quantized(name, tuple(tensor.shape)) else tensor.dtype
        state[name] = torch.empty(tensor.shape, dtype=dtype, device=CUDA)
        infos[name] = TensorInfo("F8_E4M3" if dtype == torch.float8_e4m3fn else "BF16", tuple(tensor.shape))
        if dtype == torch.float8_e4m3fn:
            scale = torch.empty(tensor.shape[0], 1, dtype=torch.float16, device=CUDA)
            state[scale_name(name)], infos[scale_name(name)] = scale, TensorInfo("F16", tuple(scale.shape))
    with torch.device("meta"):
        in_fp8 = OneToAllTransformer3DModel(**dict(transformer.config))
    hold_weights_in_fp8(in_fp8, infos)
    in_fp8.load_state_dict(state, assign=True)
    for layer in in_fp8.blocks[0].modules():  # one block forms its products in FP8, the others de-quantize
        if isinstance(layer, Fp8Linear):
            layer.computes_in_fp8 = True
    networks = replace(engine.networks, transformer=in_fp8.eval())
    first = next(AnimationEngine(networks, CUDA, torch.bfloat16).chunk_maker(make_inputs(5), _options())(CHUNK, None))
    assert isinstance(first, StepFinished)


def test_fp8_products_want_rows_side_by_side(fake) -> None:
    """The check of torch itself for its kernels: row-major times column-major, scales per row and column."""
    weight, scale = torch.empty(32, 64, dtype=torch.float8_e4m3fn, device=CUDA), torch.empty(1, 32, device=CUDA)
    states, bias = (torch.empty(*shape, device=CUDA, dtype=torch.bfloat16) for shape in ((1, 64, 48), (32,)))
    products = scaled_linear(states.transpose(1, 2), weight, scale, bias)
    assert (products.shape, products.dtype, products.device) == ((1, 48, 32), torch.bfloat16, CUDA)
    with pytest.raises(RuntimeError, match="16"):
        scaled_linear(states.transpose(1, 2), weight[:31], scale[:, :31], None)


def test_a_lora_meets_weights_on_the_device(fake) -> None:
    weight = torch.empty(32, 16, device=CUDA, dtype=torch.bfloat16)
    delta = LoraDelta({"down": torch.empty(4, 16), "up": torch.empty(32, 4), "up bias": torch.empty(32)}, 0.5)
    assert delta.weight_delta(weight.shape, weight.device).device == CUDA
    assert delta.bias_delta(weight.device).device == CUDA


def test_a_tensor_left_on_the_host_is_found(engine, make_inputs, monkeypatch) -> None:
    """That this page can fail: one table of the network is left behind."""
    block = engine.networks.transformer.blocks[1]
    block.scale_shift_table = torch.nn.Parameter(torch.empty(block.scale_shift_table.shape, device="cpu"), False)
    with pytest.raises(RuntimeError, match=r"device"):
        list(engine.chunk_maker(make_inputs(5), _options())(CHUNK, None))
