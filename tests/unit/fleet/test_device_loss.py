"""A process notices that its GPU refuses every call; what the worker makes of it: ``test_lost_workers``."""

import sys
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from orchestration.fleet.gpus.device_loss import device_loss

ANSWER = "CUDA error: an illegal memory access was encountered\nCUDA kernel errors might be reported later\n"


def pretend_cuda(
    patch: pytest.MonkeyPatch, answer: Callable[[int], None], reserved: tuple[int, ...], *, by_torch: bool = True
) -> None:
    cuda = SimpleNamespace(
        is_initialized=lambda: by_torch,
        is_available=lambda: True,
        device_count=lambda: len(reserved),
        memory_reserved=lambda index: reserved[index],
        current_device=lambda: 0,
        synchronize=answer,
    )
    patch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))


def test_a_process_that_used_no_gpu_has_lost_none(monkeypatch: pytest.MonkeyPatch) -> None:
    assert device_loss() is None
    monkeypatch.delitem(sys.modules, "torch")
    assert device_loss() is None
    assert "torch" not in sys.modules, "a process for CPU work loads no torch"


def test_a_gpu_that_refuses_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(index: int) -> None:
        raise torch.AcceleratorError(ANSWER)

    pretend_cuda(monkeypatch, refuse, (1 << 30,))
    assert device_loss() == "CUDA error: an illegal memory access was encountered"


def test_a_gpu_that_only_the_pose_networks_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(index: int) -> None:
        raise RuntimeError("CUDA driver initialization failed")

    pretend_cuda(monkeypatch, refuse, (0,), by_torch=False)
    monkeypatch.setitem(sys.modules, "onnxruntime", SimpleNamespace())
    assert device_loss() == "CUDA driver initialization failed"
    monkeypatch.delitem(sys.modules, "onnxruntime")
    assert device_loss() is None, "nobody used it"


@pytest.mark.parametrize(("reserved", "asked"), [((0, 5, 0), [1]), ((0, 0), [0])])
def test_only_devices_in_use_are_asked(
    reserved: tuple[int, ...], asked: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []
    pretend_cuda(monkeypatch, found.append, reserved)
    assert device_loss() is None
    assert found == asked
