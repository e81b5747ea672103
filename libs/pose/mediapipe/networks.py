"""The six networks, opened from their ``.tflite`` files and run on one CPU core.

What their inputs and outputs mean stands where they are used. Where the files come from:
``libs.model_repo.hubs.wheel``.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from libs.errors import ModelFilesError

_WAY_OUT = "fetch it with `one-to-all models download mediapipe`"


class Network:
    """One ``.tflite`` file with one picture as input."""

    def __init__(self, path: Path, outputs: Sequence[int], threads: int = 1) -> None:
        """Open the file.

        Args:
            path: the file.
            outputs: how many numbers each of its outputs holds, in order; more outputs may follow.
            threads: CPU threads for one run.

        Raises:
            ModelFilesError: the file is missing, damaged or another network.
        """
        if not path.is_file():
            raise ModelFilesError(f"{path}: the network is missing; {_WAY_OUT}")
        from ai_edge_litert.interpreter import Interpreter  # noqa: PLC0415 - loaded where a network is really run

        try:
            self._interpreter: Any = Interpreter(model_content=path.read_bytes(), num_threads=threads)
            self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise ModelFilesError(f"{path}: is no network that can be run ({error}); {_WAY_OUT}") from None
        details = self._interpreter.get_output_details()
        found = [int(np.prod(detail["shape"])) for detail in details]
        if found[: len(outputs)] != list(outputs):
            raise ModelFilesError(f"{path}: has outputs of {found} numbers, expected {list(outputs)}; {_WAY_OUT}")
        self._outputs = [detail["index"] for detail in details[: len(outputs)]]
        self._input = self._interpreter.get_input_details()[0]["index"]

    def run(self, picture: np.ndarray) -> list[np.ndarray]:
        """The outputs for ``picture`` [side, side, 3] float32."""
        self._interpreter.set_tensor(self._input, picture[None])
        self._interpreter.invoke()
        return [self._interpreter.get_tensor(index) for index in self._outputs]


_FILES: dict[str, tuple[int, ...]] = {
    "pose_detection": (2254 * 12, 2254),
    "pose_landmark_full": (195, 1, 256 * 256, 64 * 64 * 39),
    "hand_recrop": (4,),
    "hand_landmark_full": (63, 1),
    "face_detection_short_range": (896 * 16, 896),
    "face_landmark": (1404, 1),
}

NETWORK_FILES = tuple(f"{name}.tflite" for name in _FILES)


@dataclass(frozen=True)
class Networks:
    """All six, in the order in which a frame goes through them."""

    pose_detection: Network
    pose_landmark_full: Network
    hand_recrop: Network
    hand_landmark_full: Network
    face_detection_short_range: Network
    face_landmark: Network

    @classmethod
    def open(cls, folder: Path, threads: int = 1) -> Self:
        """Open the files in ``folder``.

        Raises:
            ModelFilesError: one is missing, damaged or another network.
        """
        return cls(**{name: Network(folder / f"{name}.tflite", outputs, threads) for name, outputs in _FILES.items()})


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Logits as parts of one."""
    return 1 / (1 + np.exp(-logits.astype(np.float64)))
