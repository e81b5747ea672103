"""``OnnxPoseEstimator``: frames -> boxes -> key-points, in batches, streamed.

Holds the two networks. Three steps overlap, each with a thread of its own: frames are decoded and sized, people are
detected, key-points are found. Memory is bounded by five batches of frames (640 MiB, or five frames) and the networks'
inputs, which are kept from batch to batch; a track holds key-points only. See ``libs.pose.person_check`` for judging
what was found.

Source: docs/specification.md#detector to #key-points.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path

import numpy as np

from libs.errors import ModelFilesError, PoseError
from libs.pose.frame_stream import checked_frames
from libs.pose.keypoints import WHOLEBODY_COUNT
from libs.pose.networks.crop import INPUT_HEIGHT, INPUT_WIDTH, crop_geometry, pose_network_input
from libs.pose.networks.detector import INPUT_SIZE, detections_of, detector_input, select_person
from libs.pose.networks.heatmaps import HEATMAP_HEIGHT, HEATMAP_WIDTH, decode_heatmaps
from libs.pose.networks.input_buffer import InputBuffer
from libs.pose.networks.prefetch import prefetched
from libs.pose.networks.sessions import NetworkSession
from libs.pose.track import PoseTrack

BATCH_BYTES = 2**27
"""Of the frames of a batch: they have the reference picture's size, which may be a camera's."""
_HEATMAPS = (WHOLEBODY_COUNT, HEATMAP_HEIGHT, HEATMAP_WIDTH)


class OnnxPoseEstimator:
    """The detector and the whole-body pose network, loaded once and used for any number of clips."""

    def __init__(self, detector: Path, pose_network: Path, device: str = "cpu", batch_size: int = 8) -> None:
        """Load both networks.

        Args:
            detector: YOLOv10 ONNX file.
            pose_network: ViTPose whole-body ONNX file.
            device: ``cpu``, ``cuda`` or ``cuda:N``.
            batch_size: frames per network run, where the graphs' batch axes are free; else frames run one by one. Fewer
                where so many frames would take more than 128 MiB.

        Raises:
            ModelFilesError: a file is missing or is not the network it should be.
            DeviceError: CUDA was asked for and is not really used.
        """
        if batch_size < 1:
            raise ValueError(f"batch_size={batch_size} must be at least 1")
        self.detector = NetworkSession(detector, (INPUT_SIZE, INPUT_SIZE), device)
        self.pose_network = NetworkSession(pose_network, (INPUT_HEIGHT, INPUT_WIDTH), device)
        self._batch_size = batch_size

    def estimate(
        self,
        frames: Iterable[np.ndarray],
        subject: str = "video",
        progress: Callable[[int], None] | None = None,
        *,
        lost_start_allowed: bool = False,
    ) -> PoseTrack:
        """The track of one clip (or of one picture: a list of one frame).

        Args:
            frames: uint8 RGB [H, W, 3], all of one size; consumed as a stream.
            subject: what the frames are, for messages (``reference``, ``driver``).
            progress: called after each batch with the number of frames done so far.
            lost_start_allowed: leave the body undefined until it is first seen.

        Raises:
            PoseError: no frames, frames of different sizes, or no body in the first frame.
        """
        boxes, points = [], []
        size: tuple[int, int] | None = None
        done = 0
        batches = prefetched(_batches(checked_frames(frames, subject), self._batch_size))
        crops = InputBuffer((3, INPUT_HEIGHT, INPUT_WIDTH))
        for batch, batch_boxes in prefetched(self._detected(batches)):
            size = size or (batch[0].shape[1], batch[0].shape[0])
            boxes.append(batch_boxes)
            points.append(self._points(batch, batch_boxes, crops))
            done += len(batch)
            if progress:
                progress(done)
        if size is None:
            raise PoseError(f"{subject}: there are no frames; choose a clip with at least one frame")
        try:
            return PoseTrack.from_wholebody(
                np.concatenate(points),
                *size,
                boxes=np.concatenate(boxes),
                lost_start_allowed=lost_start_allowed,
            )
        except PoseError as error:
            raise PoseError(f"{subject}: {error}") from None

    def keypoints(self, frames: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Boxes [B, 5] float64 and COCO-WholeBody key-points [B, 133, 3] float32 (pixels, score) of one batch.

        Raises:
            ModelFilesError: a network's output has another shape than its kind has.
            PoseError: a network gives values that are not numbers, or an absurd box.
        """
        boxes = self._boxes(frames, InputBuffer((3, INPUT_SIZE, INPUT_SIZE)))
        return boxes, self._points(frames, boxes, InputBuffer((3, INPUT_HEIGHT, INPUT_WIDTH)))

    def _detected(
        self, batches: Generator[list[np.ndarray], None, None]
    ) -> Iterator[tuple[list[np.ndarray], np.ndarray]]:
        """The batches with the boxes of their people; the batches are closed with it."""
        inputs = InputBuffer((3, INPUT_SIZE, INPUT_SIZE))
        with closing(batches):
            for batch in batches:
                yield batch, self._boxes(batch, inputs)

    def _boxes(self, frames: list[np.ndarray], inputs: InputBuffer) -> np.ndarray:
        height, width = frames[0].shape[:2]
        outputs = self.detector.run(inputs.filled(detector_input, [(frame,) for frame in frames]))
        try:
            detections = [detections_of(output, width, height) for output in outputs]
        except ModelFilesError as error:
            raise ModelFilesError(f"{self.detector.path}: {error}") from None
        return np.stack([select_person(found, width, height) for found in detections])

    def _points(self, frames: list[np.ndarray], boxes: np.ndarray, crops: InputBuffer) -> np.ndarray:
        height, width = frames[0].shape[:2]
        geometries = [crop_geometry(box, width, height) for box in boxes]
        heatmaps = self.pose_network.run(crops.filled(pose_network_input, zip(frames, geometries, strict=True)))
        if heatmaps.shape[1:] != _HEATMAPS:
            raise ModelFilesError(
                f"{self.pose_network.path}: gives heatmaps of shape {heatmaps.shape[1:]}; expected {_HEATMAPS}: this "
                "is not the whole-body pose network"
            )
        if not np.isfinite(heatmaps).all():
            raise PoseError(f"{self.pose_network.path.name} gives values that are not numbers; verify the model files")
        centres = np.stack([geometry.centre for geometry in geometries])
        sizes = np.stack([geometry.size for geometry in geometries])
        return decode_heatmaps(heatmaps, centres, sizes)


def _batches(frames: Iterable[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    """At most ``size`` frames each, fewer where frames are large: one at a time when they are a camera's."""
    iterator = iter(frames)
    for first in iterator:
        fitting = max(1, min(size, BATCH_BYTES // first.nbytes))
        yield [first, *islice(iterator, fitting - 1)]
