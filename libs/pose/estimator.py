"""What finds key-points: the interface that the rest of the pose stage knows, and the better of two.

Implementations: ``libs.pose.networks.estimator`` (ViTPose, and the sandbox's networks of the same form) and
``libs.pose.mediapipe.estimator``.
"""

from collections.abc import Callable, Iterable, Iterator
from queue import Queue
from threading import Thread
from typing import Protocol

import numpy as np

from libs.errors import PoseError
from libs.pose.person_check import FoundJoints
from libs.pose.track import PoseTrack


class PoseEstimator(Protocol):
    """Frames in, key-points out."""

    def estimate(
        self,
        frames: Iterable[np.ndarray],
        subject: str = "video",
        progress: Callable[[int], None] | None = None,
        *,
        lost_start_allowed: bool = False,
    ) -> PoseTrack:
        """The track of one clip, or of one picture.

        Args:
            frames: uint8 RGB [H, W, 3], all of one size; consumed as a stream.
            subject: what the frames are, for messages.
            progress: called with the number of frames done so far.

        Raises:
            PoseError: no frames, frames of different sizes, or no person found.
        """

    def keypoints(self, frames: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Boxes [B, 5] and COCO-WholeBody key-points [B, 133, 3] (pixels, score) of single frames."""


class BetterEstimator:
    """Two estimators for the same frames; the track that shows more of a person is used.

    ``found`` tells, for each subject, how much either found.
    """

    def __init__(self, first: tuple[str, PoseEstimator], second: tuple[str, PoseEstimator]) -> None:
        """Use two named estimators; of equally good tracks the first one's is taken."""
        self._first, self._second = first, second
        self.found: dict[str, str] = {}

    def estimate(
        self,
        frames: Iterable[np.ndarray],
        subject: str = "video",
        progress: Callable[[int], None] | None = None,
        *,
        lost_start_allowed: bool = False,
    ) -> PoseTrack:
        """Estimate with both; an error of one estimator is raised only if the other fails as well."""
        waiting: Queue[np.ndarray | None] = Queue(1)
        results: dict[str, PoseTrack | BaseException] = {}

        def find_with_second() -> None:
            ended = False

            def given() -> Iterator[np.ndarray]:
                nonlocal ended
                while (frame := waiting.get()) is not None:
                    yield frame
                ended = True

            results["second"] = _track_or_error(self._second[1], given(), subject, None, lost_start_allowed)
            while not ended:  # it stopped early: whoever gives it frames must not wait
                ended = waiting.get() is None

        def shared() -> Iterator[np.ndarray]:
            for frame in frames:
                waiting.put(frame)
                yield frame

        stream = shared()
        other = Thread(target=find_with_second, name="second-estimator", daemon=True)
        other.start()
        try:
            first = _track_or_error(self._first[1], stream, subject, progress, lost_start_allowed)
            if isinstance(first, PoseError):  # it may have stopped early, and the other wants the rest
                for _ in stream:
                    pass
        finally:
            waiting.put(None)
            other.join()
        return self._better(first, results["second"], subject)

    def keypoints(self, frames: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """The key-points of the estimator whose bodies score higher on average."""
        both = [estimator.keypoints(frames) for _, estimator in (self._first, self._second)]
        return max(both, key=lambda found: float(found[1][:, :17, 2].mean()))

    def _better(self, first: object, second: object, subject: str) -> PoseTrack:
        named = ((self._first[0], first), (self._second[0], second))
        tracks = [(name, result) for name, result in named if isinstance(result, PoseTrack)]
        for _, result in named:
            if isinstance(result, BaseException) and (not tracks or not isinstance(result, PoseError)):
                raise result
        measured = [(_merit(track), name, track) for name, track in tracks]
        _, chosen, best = max(measured, key=lambda one: one[0])
        scores = ", ".join(f"{name} {merit:.2f}" for merit, name, _ in measured)
        self.found[subject] = f"{chosen} (mean score over frames with a figure: {scores})"
        return best


def _merit(track: PoseTrack) -> float:
    """How much of a person a track shows, 0 to about 1."""
    joints = FoundJoints.of(track)
    return joints.mean_score * joints.good_share


def _track_or_error(
    estimator: PoseEstimator,
    frames: Iterable[np.ndarray],
    subject: str,
    progress: Callable[[int], None] | None,
    lost_start_allowed: bool,
) -> PoseTrack | BaseException:
    try:
        return estimator.estimate(frames, subject, progress, lost_start_allowed=lost_start_allowed)
    except Exception as error:  # judged together with the other's result
        return error
