"""``PoseTrack``: the key-points of one clip (or one picture) as data, and its file format.

Light on purpose (numpy only), so that anything may read a track without a pose stack. See
``libs.pose.networks.estimator`` for finding key-points, ``record`` for making drawable records of them.

Source: docs/specification.md#key-points.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import numpy as np

from libs.errors import PoseError
from libs.pose import keypoints
from libs.pose.array_files import read_arrays, write_arrays

_FORMAT = "pose-track-1"

NO_BODY_AT_START = (
    "no body key-point was found in the first frame (frame 0): start the clip, or choose a picture, where the person "
    "can be seen"
)


def frames_without_body(body: np.ndarray) -> np.ndarray:
    """For each frame of ``body`` [T, 20, 3], whether every point of it has a negative coordinate: [T] bool."""
    return np.all(np.min(body[..., :2], axis=-1) < 0, axis=-1)


@dataclass(frozen=True, eq=False)
class PoseTrack:
    """Key-points of T frames of ``width`` x ``height`` pixels.

    Every key-point is a float32 triple (x / width, y / height, score); undefined points have negative coordinates.
    Scores are raw heatmap maxima: mostly 0..1, at times a little above 1 or below 0.

    Attributes:
        body: [T, 20, 3]; joints as in ``keypoints``.
        left_hand, right_hand: [T, 21, 3].
        face: [T, 69, 3]; row 0 is the right heel, rows 1..68 are the face.
        boxes: [T, 5] float32; the person's box x1, y1, x2, y2 in pixels and the detector's score, -1 where nobody was
            found and the whole frame was used.
    """

    width: int
    height: int
    body: np.ndarray
    left_hand: np.ndarray
    right_hand: np.ndarray
    face: np.ndarray
    boxes: np.ndarray

    def __post_init__(self) -> None:
        if self.width < 1 or self.height < 1:
            raise ValueError(f"frame size {self.width} x {self.height} must be positive")
        frames = len(self.body)
        for name, tail in _ARRAY_TAILS.items():
            array = getattr(self, name)
            if array.shape != (frames, *tail) or array.dtype != np.float32:
                expected = f"float32 of shape {(frames, *tail)}"
                raise ValueError(f"{name}: expected {expected}, found {array.dtype} of shape {array.shape}")

    def __len__(self) -> int:
        return len(self.body)

    def __getitem__(self, frames: int | slice) -> "PoseTrack":
        """The track of some frames; an integer gives a track of one frame.

        Raises:
            IndexError: an integer outside the track.
        """
        if isinstance(frames, slice):
            chosen = frames
        else:
            index = range(len(self))[frames]
            chosen = slice(index, index + 1)
        return PoseTrack(self.width, self.height, **{name: getattr(self, name)[chosen] for name in _ARRAY_TAILS})

    @classmethod
    def from_wholebody(
        cls,
        points: np.ndarray,
        width: int,
        height: int,
        boxes: np.ndarray | None = None,
        *,
        lost_start_allowed: bool = False,
    ) -> Self:
        """The track of COCO-WholeBody key-points, with the lost-frame rule applied.

        Where every body point of a frame has a negative coordinate, the body (not hands or face) of the frame before
        is used again.

        Args:
            points: [T, 133, 3] float32, x and y in pixels, score.
            width: width in pixels of the first frame; every x is divided by it.
            height: likewise for y.
            boxes: [T, 5]; zeros if left out.
            lost_start_allowed: leave the body undefined until it is first seen, as only a part of the track may be
                used; ``person_check.require_body_at_start`` asks then.

        Raises:
            PoseError: the first frame has no body at all, so there is nothing to go on from.
        """
        normalised = points.astype(np.float32, copy=True)
        normalised[..., 0] /= np.float32(width)
        normalised[..., 1] /= np.float32(height)
        first = normalised[:, keypoints.BODY_FIRST_SOURCE]
        second = normalised[:, keypoints.BODY_SECOND_SOURCE]
        body = (first + second) / np.float32(2)
        lost = frames_without_body(body)
        if len(lost) and lost[0] and not lost_start_allowed:
            raise PoseError(NO_BODY_AT_START)
        last_seen = np.maximum.accumulate(np.where(lost, 0, np.arange(len(lost))))
        return cls(
            width=width,
            height=height,
            body=body[last_seen],
            left_hand=normalised[:, keypoints.LEFT_HAND_SLICE],
            right_hand=normalised[:, keypoints.RIGHT_HAND_SLICE],
            face=normalised[:, keypoints.FACE_SLICE],
            boxes=np.zeros((len(points), 5), np.float32) if boxes is None else boxes.astype(np.float32),
        )

    def save(self, path: Path) -> None:
        """Write an ``.npz`` without pickles; the same track always gives the same bytes."""
        arrays = {name: getattr(self, name) for name in _ARRAY_TAILS}
        write_arrays(path, _FORMAT, {**arrays, "size": np.array([self.width, self.height])})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what ``save`` wrote.

        Raises:
            PoseError: the file is missing, damaged, or not a pose track.
        """
        arrays: Mapping[str, np.ndarray] = read_arrays(path, _FORMAT)
        try:
            width, height = (int(side) for side in arrays["size"])
            return cls(width, height, **{name: arrays[name] for name in _ARRAY_TAILS})
        except (KeyError, ValueError) as error:
            raise PoseError(f"{path}: is not a complete pose track ({error}); estimate the poses again") from None


_ARRAY_TAILS: dict[str, tuple[int, int] | tuple[int]] = {
    "body": (keypoints.BODY_COUNT, 3),
    "left_hand": (keypoints.HAND_COUNT, 3),
    "right_hand": (keypoints.HAND_COUNT, 3),
    "face": (keypoints.FACE_COUNT + 1, 3),
    "boxes": (5,),
}
