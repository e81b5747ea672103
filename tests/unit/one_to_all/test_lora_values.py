"""The numbers of a LoRA file are looked at before anything is computed, in bounded memory, and once."""

import tracemalloc

import pytest
import torch
from safetensors.torch import save_file

from libs.errors import ModelFilesError
from libs.model_repo.digests import DigestCache
from libs.one_to_all import lora_values
from libs.one_to_all.lora_values import CHECKED_VALUES_CACHE, check_values

NAME = "blocks.0.ffn.2.lora_A.weight"
FLOATS = [torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]


@pytest.fixture
def cache(tmp_path) -> DigestCache:
    return DigestCache(tmp_path / CHECKED_VALUES_CACHE)


def _written(path, tensor):
    save_file({"a": torch.ones(3), NAME: tensor, "z.alpha": torch.tensor(8)}, path)
    return path


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("place", [0, -1])
def test_what_is_not_finite_is_named(tmp_path, cache, dtype, value, place):
    tensor = torch.linspace(-3, 3, 64).to(dtype)
    check_values(_written(tmp_path / "good.safetensors", tensor), cache)
    tensor[place] = value
    if not tensor.float().isfinite().all():  # float8_e4m3fn has no infinity
        with pytest.raises(ModelFilesError, match=rf"bad\.safetensors: {NAME} holds values that are not finite"):
            check_values(_written(tmp_path / "bad.safetensors", tensor), cache)


@pytest.mark.parametrize(("dtype", "value"), [(torch.float64, 1e300), (torch.float32, -3e38), (torch.bfloat16, 1e30)])
def test_what_leaves_no_product_finite_is_named(tmp_path, cache, dtype, value):
    path = _written(tmp_path / "bad.safetensors", torch.tensor([1.0, value, 0.0], dtype=dtype))
    with pytest.raises(ModelFilesError, match=rf"{NAME} holds the value .*e\+.*, and usual are below 10"):
        check_values(path, cache)


def test_a_file_is_read_once_in_bounded_memory(tmp_path, cache, monkeypatch):
    path = _written(tmp_path / "large.safetensors", torch.ones(6_000_000))
    tracemalloc.start()
    try:
        check_values(path, cache)
        assert tracemalloc.get_traced_memory()[1] < 3 * lora_values._BLOCK_BYTES
    finally:
        tracemalloc.stop()
    monkeypatch.setattr(lora_values, "_check_tensor", lambda *_: pytest.fail("read again"))
    check_values(path, DigestCache(tmp_path / CHECKED_VALUES_CACHE))
    monkeypatch.undo()
    _written(path, torch.full((4,), torch.nan))
    with pytest.raises(ModelFilesError, match="not finite"):
        check_values(path, DigestCache(tmp_path / CHECKED_VALUES_CACHE))
