"""Body, hands and face of one person, frame by frame.

The detector looks only where nobody is followed: in the first frame, and after a frame in which the person was lost.
"""

from dataclasses import dataclass

import numpy as np

from libs.pose.mediapipe import hands
from libs.pose.mediapipe.body import Body, find_body, region_of_circle
from libs.pose.mediapipe.detection import LEAST_SCORE, Detector
from libs.pose.mediapipe.face import FaceFinder
from libs.pose.mediapipe.hands import HandFinder
from libs.pose.mediapipe.networks import Networks
from libs.pose.mediapipe.steadying import SteadyCircle
from libs.pose.mediapipe.tracking import Part

_DETECTOR_SIDE = 224
_DETECTOR_ANCHORS = {8: 2, 16: 2, 32: 6}


@dataclass(frozen=True)
class Person:
    """What was found of a person: None for what was not. A hand has 21 landmarks, a face 468."""

    body: Body | None
    left_hand: Part | None = None
    right_hand: Part | None = None
    face: Part | None = None


def person_detector(networks: Networks, least_score: float = LEAST_SCORE) -> Detector:
    """The detector of people; of its points the first is the middle of the hips, the second lies on the circle."""
    return Detector(networks.pose_detection, _DETECTOR_SIDE, _DETECTOR_ANCHORS, least_score)


class BodyFollower:
    """The body of one person through the frames of a clip, in order."""

    def __init__(self, networks: Networks, least_score: float = LEAST_SCORE) -> None:
        self._detector, self._landmarks = person_detector(networks, least_score), networks.pose_landmark_full
        self._circle: np.ndarray | None = None
        self._steady = SteadyCircle()

    def follow(self, picture: np.ndarray) -> Body | None:
        """The body in the next frame, [H, W, 3] uint8 RGB; None where nobody is found."""
        circle = self._detected(picture) if self._circle is None else self._circle
        body = None if circle is None else find_body(self._landmarks, picture, region_of_circle(circle))
        if body is None:
            self._circle = None
            self._steady.forget()
        else:
            self._circle = self._steady.follow(body.circle)
        return body

    def _detected(self, picture: np.ndarray) -> np.ndarray | None:
        """The circle of the person found best."""
        people = self._detector.detect(picture)
        return people.points[0, :2] if len(people) else None


class PersonFollower:
    """Body, hands and face of one person through the frames of a clip, in order."""

    def __init__(self, networks: Networks, least_score: float = LEAST_SCORE) -> None:
        """Use ``networks``; the detector must be as sure as ``least_score``, the library's by default."""
        self._body = BodyFollower(networks, least_score)
        self._left, self._right = (
            HandFinder(networks.hand_recrop, networks.hand_landmark_full, side) for side in (hands.LEFT, hands.RIGHT)
        )
        self._face = FaceFinder(networks.face_detection_short_range, networks.face_landmark)

    def follow(self, picture: np.ndarray) -> Person:
        """What is found in the next frame, [H, W, 3] uint8 RGB."""
        body = self._body.follow(picture)
        return Person(
            body, self._left.find(picture, body), self._right.find(picture, body), self._face.find(picture, body)
        )
