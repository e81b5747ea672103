"""Choosing mode and alignment for a person who asked for ``auto``, as the method's authors advise.

Same framing: mode ``ref`` with align. Different framing: mode ``pose`` without align. Another kind of skeleton (a
child, a chibi figure): mode ``ref`` with align, whatever the framing.

Measured on the reference and the driver's anchor frame, on joints scoring at least 0.4 inside the picture's lower edge:

- proportions: neck-nose and leg length over trunk length (neck to middle of hips), each where both pictures show it;
  "another skeleton" when one differs by more than a factor of 1.3;
- framing: what is shown of the body (full, to the hips, less), and the figure's size over the picture's height (trunk
  length, or shoulder width where the hips cannot be seen); "same" when both show the same and sizes differ by at most a
  factor of 1.5.

The factors are choices made here; adults drawn by different hands differ by up to 1.2.
"""

from dataclasses import dataclass

import numpy as np

from libs.pose.fitting.align_reference import BodyFlag, body_flag
from libs.pose.fitting.anchor import resolve_anchor
from libs.pose.keypoints import (
    LEFT_ANKLE,
    LEFT_HIP,
    LEFT_KNEE,
    LEFT_SHOULDER,
    NECK,
    NOSE,
    RIGHT_ANKLE,
    RIGHT_HIP,
    RIGHT_KNEE,
    RIGHT_SHOULDER,
)
from libs.pose.options import Mode
from libs.pose.track import PoseTrack

LEAST_SCORE = 0.4
SKELETON_FACTOR = 1.3
FRAMING_FACTOR = 1.5
_SHORTEST_PIXELS = 1.0

_SHOWN = {
    BodyFlag.FULL: "the whole body",
    BodyFlag.THREE_QUARTER: "the body to the hips",
    BodyFlag.HALF: "the upper body",
}


@dataclass(frozen=True)
class ModeChoice:
    """A suggestion: the two options, and one sentence on why."""

    mode: Mode
    align: bool
    reason: str


def choose_mode(reference: PoseTrack, driver: PoseTrack, anchor: int | None = 0) -> ModeChoice:
    """Suggest mode and alignment.

    Args:
        reference: a track of one frame.
        driver: the motion.
        anchor: the driver's frame to compare with; None chooses the best.

    Raises:
        PoseError: no such frame.
    """
    frame = driver[resolve_anchor(anchor, reference.body[0, :, :2], driver.body[..., :2])]
    for name, measure in (("head", _head_proportion), ("legs", _leg_proportion)):
        factor = _factor(measure(reference), measure(frame))
        if factor is not None and factor > SKELETON_FACTOR:
            return ModeChoice(
                "ref", True, f"Another skeleton: the proportion of {name} to trunk differs by a factor of {factor:.1f}."
            )
    flags = body_flag(reference), body_flag(frame)
    if flags[0] is not flags[1]:
        return ModeChoice(
            "pose", False, f"Different framing: the reference shows {_SHOWN[flags[0]]}, the driver {_SHOWN[flags[1]]}."
        )
    factor = _factor(_size_in_picture(reference), _size_in_picture(frame))
    if factor is not None and factor > FRAMING_FACTOR:
        return ModeChoice("pose", False, f"Different framing: the figures' sizes differ by a factor of {factor:.1f}.")
    return ModeChoice("ref", True, f"Same framing: both show {_SHOWN[flags[0]]} at a similar size.")


def _head_proportion(track: PoseTrack) -> float | None:
    trunk, head = _trunk(track), _length(track, NECK, NOSE)
    return None if trunk is None or head is None else head / trunk


def _leg_proportion(track: PoseTrack) -> float | None:
    """Mean length of the two legs over the trunk's."""
    bones = (
        (RIGHT_HIP, RIGHT_KNEE),
        (RIGHT_KNEE, RIGHT_ANKLE),
        (LEFT_HIP, LEFT_KNEE),
        (LEFT_KNEE, LEFT_ANKLE),
    )
    lengths = [length for bone in bones if (length := _length(track, *bone)) is not None]
    trunk = _trunk(track)
    return None if trunk is None or len(lengths) < len(bones) else sum(lengths) / 2 / trunk


def _size_in_picture(track: PoseTrack) -> float | None:
    size = _trunk(track) or _length(track, RIGHT_SHOULDER, LEFT_SHOULDER)
    return None if size is None else size / track.height


def _trunk(track: PoseTrack) -> float | None:
    """Neck to the middle of the hips in pixels."""
    if not _seen(track, NECK, RIGHT_HIP, LEFT_HIP):
        return None
    points = _pixels(track)
    return _usable(points[NECK] - (points[RIGHT_HIP] + points[LEFT_HIP]) / 2)


def _length(track: PoseTrack, first: int, second: int) -> float | None:
    points = _pixels(track)
    return _usable(points[first] - points[second]) if _seen(track, first, second) else None


def _usable(vector: np.ndarray) -> float | None:
    length = float(np.linalg.norm(vector))
    return length if _SHORTEST_PIXELS <= length < np.inf else None


def _seen(track: PoseTrack, *joints: int) -> bool:
    y, score = track.body[0, list(joints), 1], track.body[0, list(joints), 2]
    return bool(((y <= 1) & (score >= LEAST_SCORE)).all())


def _pixels(track: PoseTrack) -> np.ndarray:
    return track.body[0, :, :2].astype(np.float64) * (track.width, track.height)


def _factor(first: float | None, second: float | None) -> float | None:
    """The ratio of the larger of two lengths to the smaller; None if one is unknown."""
    return None if first is None or second is None else max(first / second, second / first)
