"""The attention of networks whose tokens are split: one that works on the device, and that can exchange."""

import pytest
import torch

from libs.errors import DeviceError, SettingsError
from libs.one_to_all.parallel import context_parallel
from libs.one_to_all.parallel.context_parallel import attention_for_context_parallel

CPU = torch.device("cpu")


def test_on_a_cpu():
    assert attention_for_context_parallel("auto", CPU, torch.float32) == "native"
    with pytest.raises(DeviceError, match="ONE_TO_ALL_ATTENTION=cudnn does not work on cpu"):
        attention_for_context_parallel("cudnn", CPU, torch.float32)


def test_what_cannot_exchange_is_passed_over(monkeypatch):
    """As on a card for which FlashAttention 3 is installed: diffusers cannot exchange around it."""
    works = {"flash_3": "_flash_3", "cudnn": "_native_cudnn"}

    def choose(name, _device, _dtype):
        if name not in works:
            raise DeviceError(name)
        return works[name], []

    monkeypatch.setattr(context_parallel, "candidates", lambda _device: ("flash_3", "flash", "cudnn", "native"))
    monkeypatch.setattr(context_parallel, "choose_attention", choose)
    assert attention_for_context_parallel("auto", CPU, torch.bfloat16) == "cudnn"
    with pytest.raises(SettingsError, match="ONE_TO_ALL_ATTENTION=flash_3 does not work where ranks split tokens"):
        attention_for_context_parallel("flash_3", CPU, torch.bfloat16)
