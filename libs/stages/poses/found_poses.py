"""Are the poses that were found worth a clip? Asked between the pose stage and the GPU's hours.

Networks that recognise nothing still give key-points, with scores near zero; a clip made of them is a still picture.
What counts as found: ``libs.pose.person_check``.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from libs.errors import PoseError
from libs.model_repo.variants import get_variant
from libs.pose.keypoints import DRAWN_BODY_COUNT
from libs.pose.person_check import (
    ENOUGH_JOINTS,
    LEAST_BODY_SCORE,
    LEAST_FRAME_SHARE,
    LEAST_MEAN_SCORE,
    FoundJoints,
    frame_list,
)
from libs.pose.track import PoseTrack
from libs.requests.documents.animation_request import AnimationRequest, ResolvedRequest
from libs.stages.animation_files import DRIVER_TRACK, REFERENCE_TRACK

SANDBOX_KNOWS = (
    "the sandbox's networks know only its own figures (the puppets with coloured markers of `make demo`): photographs, "
    "drawings and films of people need another model, e.g. `model: 14b`"
)
"""What a person who tries the sandbox with pictures of their own must know."""


def made_by_sandbox(model: str) -> bool:
    """True for a model variant whose networks are made by code and recognise nothing but the puppet."""
    variant = get_variant(model)
    return get_variant(variant.base).made_by_code if variant.base else variant.made_by_code


def sandbox_note(requests: list[AnimationRequest], default_model: str) -> str | None:
    """What to tell whoever hands in ``requests``; None where no request uses the sandbox."""
    asked = [request.id for request in requests if made_by_sandbox(request.model or default_model)]
    return f"model sandbox: {SANDBOX_KNOWS}" if asked else None


@contextmanager
def sandbox_explained(model: str) -> Iterator[None]:
    """Add to a ``PoseError`` what the sandbox's networks know, where it was they that looked."""
    try:
        yield
    except PoseError as error:
        if not made_by_sandbox(model) or SANDBOX_KNOWS in str(error):
            raise
        raise PoseError(f"{error}; {SANDBOX_KNOWS}") from error


@dataclass(frozen=True)
class FoundPoses:
    """What was found of a person in the reference picture and in the driver's frames."""

    reference: FoundJoints
    driver: FoundJoints

    @classmethod
    def load(cls, tracks: Path) -> Self:
        """Measure the two tracks in the folder ``tracks``.

        Raises:
            PoseError: a track is missing or damaged.
        """
        return cls.of(PoseTrack.load(tracks / REFERENCE_TRACK), PoseTrack.load(tracks / DRIVER_TRACK))

    @classmethod
    def of(cls, reference: PoseTrack, driver: PoseTrack) -> Self:
        """Measure two tracks."""
        return cls(FoundJoints.of(reference), FoundJoints.of(driver))

    @property
    def enough(self) -> bool:
        """True where a clip can follow these poses."""
        return self.reference.enough and self.driver.enough

    @property
    def good(self) -> bool:
        """True if no person needs to check the result."""
        return self.reference.good and self.driver.good

    def numbers(self) -> dict[str, int | float]:
        """The measures, for a chart."""
        return {
            "joints found in the reference": self.reference.joints[0],
            "mean body score of the reference": self.reference.mean_score,
            "mean body score of the driver": self.driver.mean_score,
            "driver frames with enough joints": self.driver.good_share,
        }

    def describe(self) -> str:
        """What was found where, in one or two sentences."""
        return f"{self._reference_words()}; {self._driver_words()}."

    def refusal(self, model: str) -> str:
        """Why no clip is made of these poses, and the ways out.

        Args:
            model: the variant whose pose networks looked.
        """
        poor = [words for joints, words in self._parts() if not joints.enough]
        wanted = (
            f"A figure has at least {ENOUGH_JOINTS} joints with a score of {LEAST_BODY_SCORE} inside the picture; "
            f"{LEAST_FRAME_SHARE:.0%} of the driver's frames must show one, and the mean score must reach "
            f"{LEAST_MEAN_SCORE}"
        )
        way_out = (
            f"Note that {SANDBOX_KNOWS}"
            if made_by_sandbox(model)
            else "Use a picture and a video in which one person is well visible"
        )
        return (
            f"too little of a person was found, so no clip is sampled: {'; '.join(poor)}. {wanted}. {way_out}. See the "
            "preview of pose_conditioning. To have the clip made all the same, add accept_poor_poses: true to the "
            "request and submit it again"
        )

    def _parts(self) -> list[tuple[FoundJoints, str]]:
        return [(self.reference, self._reference_words()), (self.driver, self._driver_words())]

    def _reference_words(self) -> str:
        found = self.reference
        return (
            f"in the reference {found.joints[0]} of {DRAWN_BODY_COUNT} joints were found "
            f"(mean score {found.mean_score:.2f})"
        )

    def _driver_words(self) -> str:
        found, poor = self.driver, self.driver.poor_frames
        count = len(found.joints)
        lacking = f"; too few in {frame_list(poor)}" if poor else ""
        return (
            f"in the driver {count - len(poor)} of {count} frames show a figure (mean score {found.mean_score:.2f}"
            f"{lacking})"
        )


def require_found_poses(request: ResolvedRequest, tracks: Callable[[], Path | None]) -> None:
    """Refuse to sample a clip whose poses were not found, unless the request accepts that.

    Args:
        request: says whether poor poses are accepted.
        tracks: gives the folder of the two tracks, or None where they are gone; called only where it matters.

    Raises:
        PoseError: too little of a person was found; says where, and the way out.
    """
    if request.accept_poor_poses or (folder := tracks()) is None:
        return
    found = FoundPoses.load(folder)
    if not found.enough:
        raise PoseError(found.refusal(request.model))
