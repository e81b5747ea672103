"""One ONNX graph whose input and output stay on the device: one copy in, one copy out, and no other output fetched.

The input's memory on the device is kept from run to run while the batch size stays the same. See ``sessions`` for
opening graphs, and for batches that a graph does not take.
"""

from typing import Any

import numpy as np
import onnxruntime


class BoundNetwork:
    """Runs the first output of a session through an IO binding; for one thread at a time."""

    def __init__(self, session: Any, device: str) -> None:
        """Bind nothing yet.

        Args:
            session: an ``InferenceSession`` with one input.
            device: ``cpu``, ``cuda`` or ``cuda:N``: the one the session runs on.
        """
        self._session = session
        self._input_name = session.get_inputs()[0].name
        self._output_name = session.get_outputs()[0].name
        self._kind, _, index = device.partition(":")
        self._index = int(index or 0)
        self._binding = session.io_binding()
        self._input: Any = None

    def run(self, images: np.ndarray) -> np.ndarray:
        """The first output for ``images`` of the graph's own dtype; the caller's own array."""
        images = np.ascontiguousarray(images)
        if self._input is None or tuple(self._input.shape()) != images.shape:
            self._binding.clear_binding_inputs()
            self._input = onnxruntime.OrtValue.ortvalue_from_shape_and_type(
                images.shape, images.dtype, self._kind, self._index
            )
            self._binding.bind_ortvalue_input(self._input_name, self._input)
        self._input.update_inplace(images)
        # Anew each time: the output's shape may differ from that of the last run.
        self._binding.bind_output(self._output_name, self._kind, self._index)
        self._session.run_with_iobinding(self._binding)
        output: np.ndarray = self._binding.get_outputs()[0].numpy()
        self._binding.clear_binding_outputs()
        return output
