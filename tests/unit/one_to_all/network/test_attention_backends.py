"""Back-ends are taken for working only when they work, in the order of the device's capability."""

import pytest
import torch
from diffusers.models.attention_dispatch import _AttentionBackendRegistry

from libs.errors import DeviceError, SettingsError
from libs.one_to_all.compilation import apply_speed
from libs.one_to_all.network import OneToAllAttention, attention_backends, candidates, choose_attention, probe_attention
from libs.one_to_all.speed_options import ATTENTION_BACKENDS, SpeedOptions

CPU, CARD = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def _probe_anew():
    probe_attention.cache_clear()
    yield
    probe_attention.cache_clear()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_native_works_everywhere(dtype: torch.dtype) -> None:
    probe = probe_attention("native", CPU, dtype)
    assert probe.usable and probe.error is not None
    assert 0 < probe.error < torch.finfo(dtype).eps * 4 + 1e-5
    assert choose_attention("auto", CPU, dtype)[0] == "native"


@pytest.mark.parametrize("name", ["flash_3", "cudnn", "flash"])
def test_back_ends_that_need_a_gpu_do_not_work_on_a_cpu(name: str) -> None:
    probe = probe_attention(name, CPU, torch.float32)
    assert not probe.usable and probe.problem
    with pytest.raises(DeviceError, match=rf"ONE_TO_ALL_ATTENTION={name} does not work on cpu.*auto"):
        choose_attention(name, CPU, torch.float32)


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ((12, 0), ["_flash_3", "_native_cudnn", "flash", "_native_flash", "native"]),
        ((9, 0), ["_flash_3", "_native_cudnn", "flash", "_native_flash", "native"]),
        ((8, 6), ["flash", "_native_flash", "_native_cudnn", "native"]),
    ],
)
def test_the_first_back_end_that_works_is_chosen(monkeypatch, capability, expected) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _device: capability)
    broken: set[str] = set()

    def probe(name, _device, _dtype):
        return attention_backends.AttentionProbe(name, None, "broken" if name in broken else None)

    monkeypatch.setattr(attention_backends, "probe_attention", probe)
    chosen = []
    for name in candidates(CARD):
        chosen.append(choose_attention("auto", CARD, torch.bfloat16)[0])
        broken.add(name)
    assert chosen == expected
    with pytest.raises(DeviceError, match="broken"):
        choose_attention("auto", CARD, torch.bfloat16)


@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda answer: answer * 0.9, "off by 1.0e-01"),
        (lambda answer: answer * 1.0001, "off by 1.0e-04"),
        (lambda answer: answer * torch.nan, "off by nan"),
        (lambda answer: answer[:, :, :1], "gave shape [1, 77, 1, 128]"),
    ],
)
def test_a_back_end_with_wrong_results_is_not_usable(monkeypatch, spoil, problem) -> None:
    dispatch = attention_backends.dispatch_attention_fn
    monkeypatch.setattr(attention_backends, "dispatch_attention_fn", lambda *states: spoil(dispatch(*states)))
    probe = probe_attention("native", CPU, torch.float32)
    assert not probe.usable and problem in str(probe.problem)


def test_every_attention_uses_the_chosen_back_end(small_transformer) -> None:
    transformer = small_transformer()
    lines = apply_speed(transformer, SpeedOptions(attention="native_flash"), CPU, torch.float32)
    processors = [module.processor for module in transformer.modules() if isinstance(module, OneToAllAttention)]
    assert {processor._attention_backend.value for processor in processors} == {"_native_flash"}
    assert "_native_flash" in lines[0]
    assert _AttentionBackendRegistry.get_active_backend()[0].value == "native"  # other networks keep what they have
    apply_speed(transformer, SpeedOptions(), CPU, torch.float32)
    assert {processor._attention_backend.value for processor in processors} == {"native"}


def test_unknown_names_are_refused() -> None:
    with pytest.raises(SettingsError, match="ONE_TO_ALL_ATTENTION='sage' must be auto or one of flash_3"):
        SpeedOptions(attention="sage")
    assert "sage" not in ATTENTION_BACKENDS


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED")]
)
def test_a_full_device_is_not_taken_for_a_broken_back_end(monkeypatch, error) -> None:
    dispatch = attention_backends.dispatch_attention_fn

    def full(*_):
        raise error

    monkeypatch.setattr(attention_backends, "dispatch_attention_fn", full)
    with pytest.raises(type(error)):
        choose_attention("auto", CPU, torch.float32)
    monkeypatch.setattr(attention_backends, "dispatch_attention_fn", dispatch)
    assert choose_attention("auto", CPU, torch.float32)[0] == "native"
