"""Choosing a device, with errors that name the setting."""

import pytest
import torch

from libs.errors import DeviceError
from libs.one_to_all.device import default_dtype, resolve_device
from libs.one_to_all.engine import AnimationEngine


@pytest.fixture
def two_gpus(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_without_a_gpu(no_gpu):
    assert resolve_device("auto") == torch.device("cpu")
    assert resolve_device("cpu") == torch.device("cpu")


def test_with_gpus(two_gpus):
    assert resolve_device("auto") == torch.device("cuda", 0)
    assert resolve_device("cuda") == torch.device("cuda", 0)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    assert resolve_device("cpu") == torch.device("cpu")
    with pytest.raises(DeviceError, match=r"ONE_TO_ALL_DEVICE=cuda:2 .*there are 2"):
        resolve_device("cuda:2")


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7"])
def test_a_gpu_that_is_not_there(no_gpu, repository, name):
    with pytest.raises(DeviceError, match=rf"ONE_TO_ALL_DEVICE={name} .*set ONE_TO_ALL_DEVICE=cpu"):
        AnimationEngine.load(repository, name)


@pytest.mark.parametrize("name", ["", "gpu", "cuda:", "cuda:x", "cuda:-1", "CPU", "cpu:0"])
def test_names_that_are_no_device(name):
    with pytest.raises(DeviceError, match="must be auto, cpu, cuda or cuda:N"):
        resolve_device(name)


def test_bfloat16_on_a_gpu_and_float32_on_a_cpu():
    assert default_dtype(torch.device("cpu")) == torch.float32
    assert default_dtype(torch.device("cuda")) == torch.bfloat16
