"""Was a person found? Asked of whole tracks, before time is spent on retargeting and animating.

``require_person`` refuses tracks in which nobody was found at all; ``FoundJoints`` measures how much of a person was
found, which decides whether a clip is worth its GPU time (``libs.stages.poses.found_poses``). The lost-frame rule for
single frames: ``PoseTrack.from_wholebody``.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self

from libs.errors import PoseError
from libs.pose.keypoints import DRAWN_BODY_COUNT
from libs.pose.track import NO_BODY_AT_START, PoseTrack, frames_without_body

LEAST_BODY_SCORE = 0.3
"""Of a joint that counts as found."""

ENOUGH_JOINTS = 5
"""Joints found inside the picture that make a figure: as many as a face alone has (nose, eyes, ears)."""

LEAST_MEAN_SCORE = 0.2
"""Mean score over all drawn joints and all frames. What was measured of good and bad pictures: docs/quality.md."""

LEAST_FRAME_SHARE = 0.25
"""Frames with enough joints: with fewer, most of the clip would be a still picture."""

GOOD_FRAME_SHARE = 0.8
"""With fewer frames than this a person should check the clip, though it may be what is wanted."""

_RUNS_LISTED = 5


@dataclass(frozen=True)
class FoundJoints:
    """How much of a person the networks found in a picture (one frame) or a clip.

    Attributes:
        mean_score: over the 18 drawn joints of all frames.
        joints: for each frame, how many joints inside the picture have a score of at least 0.3.
    """

    mean_score: float
    joints: tuple[int, ...]

    @classmethod
    def of(cls, track: PoseTrack) -> Self:
        """What ``track`` shows.

        Raises:
            PoseError: it has no frames.
        """
        if not len(track):
            raise PoseError("there are no frames; choose a clip with at least one frame")
        body = track.body[:, :DRAWN_BODY_COUNT]
        inside = ((body[..., :2] >= 0) & (body[..., :2] <= 1)).all(axis=-1)
        counts = ((body[..., 2] >= LEAST_BODY_SCORE) & inside).sum(axis=1)
        return cls(float(body[..., 2].mean()), tuple(int(count) for count in counts))

    @property
    def poor_frames(self) -> list[int]:
        """The frames with too few joints, ascending."""
        return [frame for frame, count in enumerate(self.joints) if count < ENOUGH_JOINTS]

    @property
    def good_share(self) -> float:
        """The share of frames with enough joints, 0 to 1."""
        return 1 - len(self.poor_frames) / len(self.joints)

    @property
    def enough(self) -> bool:
        """True where a clip can follow what was found."""
        return self.good_share >= LEAST_FRAME_SHARE and self.mean_score >= LEAST_MEAN_SCORE

    @property
    def good(self) -> bool:
        """True if no person needs to check the result."""
        return self.enough and self.good_share >= GOOD_FRAME_SHARE


def frame_list(frames: Iterable[int]) -> str:
    """``frames``, ascending, in words: ``frame 3``, ``frames 0 to 4, 7``; the first few stretches only."""
    stretches: list[list[int]] = []
    for frame in frames:
        if stretches and frame == stretches[-1][1] + 1:
            stretches[-1][1] = frame
        else:
            stretches.append([frame, frame])
    words = [str(first) if first == last else f"{first} to {last}" for first, last in stretches[:_RUNS_LISTED]]
    more = sum(last - first + 1 for first, last in stretches[_RUNS_LISTED:])
    single = len(stretches) == 1 and stretches[0][0] == stretches[0][1]
    return f"{'frame' if single else 'frames'} {', '.join(words)}{f' and {more} more' if more else ''}"


def require_person(track: PoseTrack, subject: str) -> None:
    """Check that the track shows a person.

    A frame without a detection is legitimate: the whole frame is then searched for key-points, and often rightly so (a
    close-up, a drawing). Nobody is there when the detector found no person in any frame *and* no drawn body key-point
    of any frame reaches a score of 0.3.

    Args:
        track: the key-points of a picture or a clip.
        subject: what it is, for the message (``reference``, ``driver``).

    Raises:
        PoseError: no person, or no frames.
    """
    if not len(track):
        raise PoseError(f"{subject}: there are no frames; choose a clip with at least one frame")
    detected = (track.boxes[:, 4] >= 0).any()
    best_score = float(track.body[:, :DRAWN_BODY_COUNT, 2].max())
    if not detected and not best_score >= LEAST_BODY_SCORE:
        raise PoseError(
            f"{subject}: no person found ({frame_list(range(len(track)))}; best body key-point score {best_score:.2f}, "
            f"{LEAST_BODY_SCORE} is needed): use a picture or clip in which one person is well visible"
        )


def require_body_at_start(track: PoseTrack, subject: str) -> None:
    """Do nothing if the first frame has a body, which later frames go on from.

    Raises:
        PoseError: it has none.
    """
    if len(track) and frames_without_body(track.body[:1])[0]:
        raise PoseError(f"{subject}: {NO_BODY_AT_START}")
