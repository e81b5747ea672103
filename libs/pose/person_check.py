"""Is there a person at all? Asked of whole tracks, before time is spent on retargeting and animating.

What does not belong here: the lost-frame rule for single frames (``PoseTrack.from_wholebody``).
"""

from libs.errors import PoseError
from libs.pose.keypoints import DRAWN_BODY_COUNT
from libs.pose.track import PoseTrack

LEAST_BODY_SCORE = 0.3


def require_person(track: PoseTrack, subject: str) -> None:
    """Do nothing if the track shows a person.

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
        frames = "frame 0" if len(track) == 1 else f"frames 0 to {len(track) - 1}"
        raise PoseError(
            f"{subject}: no person found ({frames}; best body key-point score {best_score:.2f}, "
            f"{LEAST_BODY_SCORE} is needed): use a picture or clip in which one person is well visible"
        )
