"""Errors: what libraries say when memory is short."""

import pytest
import torch

from libs.errors import DeviceOutOfMemoryError, InputError, is_out_of_memory


class _OnnxRuntimeError(Exception):
    """Onnxruntime's classes derive from Exception alone."""

    __module__ = "onnxruntime.capi.onnxruntime_pybind11_state"


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        torch.AcceleratorError("CUDA error: out of memory", 2),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
        RuntimeError("Triton Error [CUDA]: out of memory"),
        RuntimeError(
            "ncclUnhandledCudaError: Call to CUDA function failed. Last error: Cuda failure 2 'out of memory'"
        ),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to"),
        _OnnxRuntimeError("[ONNXRuntimeError] : 6 : RUNTIME_EXCEPTION : Failed to allocate memory for requested buf"),
        _OnnxRuntimeError("BFCArena: Available memory of 1048576 is smaller than requested bytes of 2097152"),
        _OnnxRuntimeError("CUDA failure 2: out of memory ; GPU=0 ; hostname=host"),
        MemoryError(),
    ],
    ids=lambda error: f"{type(error).__name__}: {str(error)[:40]}",
)
def test_every_library_that_has_no_memory_left_is_understood(error: Exception) -> None:
    assert is_out_of_memory(error)


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"),
        InputError("prompt: 'she ran out of memory' is too long"),
        DeviceOutOfMemoryError("a chunk does not fit: out of memory"),
        ValueError("out of memory"),
    ],
    ids=lambda error: f"{type(error).__name__}: {str(error)[:40]}",
)
def test_other_errors_are_left_alone(error: Exception) -> None:
    assert not is_out_of_memory(error)
