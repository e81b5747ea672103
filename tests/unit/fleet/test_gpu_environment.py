"""What is set for CUDA's memory and compiled kernels, and that an operator's own settings stay."""

from pathlib import Path

import pytest

from orchestration.fleet.gpus.gpu_environment import prepare_gpu_environment


def test_memory_comes_back_in_pieces_and_compiled_kernels_stay() -> None:
    environment: dict[str, str] = {}
    prepare_gpu_environment(environment, Path("/data"))
    assert environment == {
        "PYTORCH_ALLOC_CONF": "expandable_segments:True",
        "TORCHINDUCTOR_CACHE_DIR": "/data/compiled/inductor",
        "TRITON_CACHE_DIR": "/data/compiled/triton",
    }


@pytest.mark.parametrize("name", ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"])
def test_what_the_operator_has_set_stays(name: str) -> None:
    environment = {name: "max_split_size_mb:512", "TRITON_CACHE_DIR": "/fast/triton"}
    prepare_gpu_environment(environment, Path("/data"))
    assert environment.pop("TORCHINDUCTOR_CACHE_DIR") == "/data/compiled/inductor"
    assert environment == {name: "max_split_size_mb:512", "TRITON_CACHE_DIR": "/fast/triton"}
