"""ONNX Runtime sessions: opened on the device that was asked for, run in the batch size the graph allows.

onnxruntime falls back to the CPU without a word when CUDA cannot be used; here that is an error. See ``detector`` and
``estimator`` for what the networks' inputs and outputs mean, ``io_binding`` for copies to a device.
"""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

from libs.errors import DeviceError, DeviceOutOfMemoryError, ModelFilesError, is_out_of_memory
from libs.pose.networks.io_binding import BoundNetwork

_log = logging.getLogger(__name__)
_CUDA = "CUDAExecutionProvider"
_CPU = "CPUExecutionProvider"
_ONLY_ERRORS = 3
_INPUT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}


class NetworkSession:
    """One ONNX graph with one image input [B, 3, H, W] and, as its first output, one array per item of the batch."""

    def __init__(self, path: Path, input_size: tuple[int, int], device: str = "cpu", bind: bool | None = None) -> None:
        """Open the graph.

        Args:
            path: the ``.onnx`` file.
            input_size: height and width in pixels its input must take.
            device: ``cpu``, ``cuda`` or ``cuda:N``.
            bind: keep input and output on the device (``io_binding``); on CUDA when left out.

        Raises:
            ModelFilesError: the file is missing or is not a graph of this kind.
            DeviceError: CUDA was asked for and is not really used.
        """
        self.path = path
        self._session = _open(path, device)
        self._input = self._session.get_inputs()[0]
        shape = self._input.shape
        wanted = (3, *input_size)
        fits = len(shape) == 4 and all(
            found == side for found, side in zip(shape[1:], wanted, strict=True) if isinstance(found, int)
        )
        if len(self._session.get_inputs()) != 1 or not fits or self._input.type not in _INPUT_TYPES:
            raise ModelFilesError(
                f"{path}: expected one image input [batch, {', '.join(map(str, wanted))}], found {self._input.type} "
                f"{shape}: this is not the network its name says; fetch the pose models again"
            )
        self._dtype = _INPUT_TYPES[self._input.type]
        on_cuda = self.provider == _CUDA
        self._bound = BoundNetwork(self._session, device) if (on_cuda if bind is None else bind) else None
        self._output_name = self._session.get_outputs()[0].name
        # A symbolic or absent batch axis means any batch size; exported detectors often say 1.
        self.fixed_batch: int | None = shape[0] if isinstance(shape[0], int) else None

    @property
    def provider(self) -> str:
        """The execution provider in use."""
        return str(self._session.get_providers()[0])

    def run(self, images: np.ndarray) -> np.ndarray:
        """The first output for images [B, 3, H, W] float32, as float32 [B, ...], whatever batch the graph takes."""
        step = self.fixed_batch or len(images)
        try:
            parts = [self._run_batch(images[start : start + step], step) for start in range(0, len(images), step)]
        except Exception as error:
            if not _is_runtime_failure(error):
                raise
            if self.fixed_batch is None and step > 1:
                # Some exports declare a free batch axis and have batch 1 built in, or memory is short.
                _log.warning("%s cannot take a batch of %d (%s); frames go one by one", self.path.name, step, error)
                self.fixed_batch = 1
                return self.run(images)
            if is_out_of_memory(error):
                raise DeviceOutOfMemoryError(f"{self.path.name}: no memory is left to run it ({error})") from None
            raise ModelFilesError(f"{self.path}: cannot be run ({error}); fetch it again") from None
        return np.concatenate(parts) if len(parts) > 1 else parts[0]

    def _run_batch(self, images: np.ndarray, step: int) -> np.ndarray:
        missing = step - len(images)
        if missing:  # a graph of fixed batch size > 1: fill up, cut off afterwards
            images = np.concatenate([images, np.repeat(images[-1:], missing, axis=0)])
        images = images.astype(self._dtype, copy=False)
        if self._bound is not None:
            output = self._bound.run(images)
        else:
            output = self._session.run([self._output_name], {self._input.name: images})[0]
        result = np.asarray(output, dtype=np.float32)
        if len(result) != len(images):
            raise ModelFilesError(f"{self.path}: gave {len(result)} results for a batch of {len(images)}")
        return result[: step - missing]


def _is_runtime_failure(error: Exception) -> bool:
    # memory on a device is asked for through functions that raise Python's own RuntimeError
    return type(error).__module__.startswith("onnxruntime") or type(error) is RuntimeError


def _open(path: Path, device: str) -> Any:
    if not path.is_file():
        raise ModelFilesError(f"{path}: is missing; fetch the pose models of this variant first")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ONLY_ERRORS
    kind, _, index = device.partition(":")
    providers: list[Any] = [_CPU]
    if kind == "cuda":
        prepare_cuda(device)
        # TF32 would shift heatmap peaks; the specification's numbers are those of full float32. The default search for
        # convolutions times every algorithm, and does so again for each new batch size, a clip's last one included.
        options_of_cuda = {"device_id": int(index or 0), "use_tf32": 0, "cudnn_conv_algo_search": "HEURISTIC"}
        providers = [(_CUDA, options_of_cuda), _CPU]
    elif device != "cpu":
        raise DeviceError(f"pose networks run on cpu, cuda or cuda:N, not on {device!r}; change ONE_TO_ALL_DEVICE")
    try:
        session = onnxruntime.InferenceSession(str(path), sess_options=options, providers=providers)
    except Exception as error:
        if not _is_runtime_failure(error):
            raise
        if kind == "cuda" and "CUDA" in str(error):
            raise DeviceError(f"{path.name} cannot be opened on {device}: {error}; check ONE_TO_ALL_DEVICE") from None
        raise ModelFilesError(f"{path}: cannot be opened as an ONNX graph ({error}); fetch it again") from None
    if kind == "cuda" and session.get_providers()[0] != _CUDA:
        raise DeviceError(
            f"onnxruntime opened {path.name} on {session.get_providers()[0]} although {device} was asked for: install "
            "onnxruntime-gpu with a matching CUDA, or set ONE_TO_ALL_DEVICE=cpu"
        )
    return session


def prepare_cuda(device: str) -> None:
    """Make CUDA's libraries findable: torch's wheel carries them, and importing torch loads them.

    Raises:
        DeviceError: onnxruntime or torch is an installation for the CPU, or sees no device.
    """
    import torch  # noqa: PLC0415  # heavy, and only needed on this path

    if _CUDA not in onnxruntime.get_available_providers() or not torch.cuda.is_available():
        raise DeviceError(
            f"{device} was asked for, but this machine offers no CUDA to onnxruntime ({onnxruntime.__version__}) and "
            f"torch ({torch.__version__}): install the CUDA builds, or set ONE_TO_ALL_DEVICE=cpu"
        )
    onnxruntime.preload_dlls()
