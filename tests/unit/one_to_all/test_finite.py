"""The fast look at weights never misses a value that is not finite, and never refuses weights that are."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from libs.one_to_all.finite import is_finite, may_not_be_finite

FP8 = [torch.float8_e4m3fn, torch.float8_e5m2]
PLAIN = [torch.bfloat16, torch.float16, torch.float32, torch.float64]


@pytest.mark.parametrize("dtype", FP8)
def test_every_bit_pattern_of_fp8_is_judged_as_torch_judges_it(dtype):
    for value in range(256):
        tensor = torch.tensor([0, value, 0x80], dtype=torch.uint8).view(dtype)
        expected = bool(torch.isfinite(tensor.float()).all())
        assert is_finite(tensor) == expected
        assert bool(may_not_be_finite(tensor)) != expected


@given(
    st.sampled_from(PLAIN),
    st.lists(st.sampled_from([float("nan"), float("inf"), -float("inf")]), max_size=3),
    st.integers(1, 5000),
    st.integers(0, 10**6),
    st.floats(-4, 4),
)
def test_any_value_anywhere(dtype, bad, count, seed, offset):
    generator = torch.Generator().manual_seed(seed)
    tensor = (torch.randn(count, generator=generator) + offset).to(dtype)
    for value in bad:
        tensor[torch.randint(count, (), generator=generator)] = value
    assert is_finite(tensor) == (not bad)


@pytest.mark.parametrize("dtype", PLAIN)
def test_a_sum_that_is_infinite_is_looked_into(dtype):
    largest = torch.full((1000,), torch.finfo(dtype).max, dtype=dtype)
    assert may_not_be_finite(largest)
    assert is_finite(largest)


@pytest.mark.parametrize("dtype", [*FP8, *PLAIN])
def test_nothing_is_finite(dtype):
    assert is_finite(torch.empty((0, 4), dtype=dtype))
