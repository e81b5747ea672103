"""The 468 landmarks of a face, looked for where the body's head is."""

import math

import numpy as np

from libs.pose.mediapipe.body import Body
from libs.pose.mediapipe.detection import Detector
from libs.pose.mediapipe.networks import Network, sigmoid
from libs.pose.mediapipe.regions import Region
from libs.pose.mediapipe.resampling import resample
from libs.pose.mediapipe.tracking import Agreement, Part

COUNT = 468
_OF_BODY = slice(0, 11)
_BODY_RIGHT_EYE, _BODY_LEFT_EYE = 5, 2
_RIGHT_EYE, _LEFT_EYE = 33, 263
_DETECTOR_SIDE, _SIDE = 128, 192
_DETECTOR_ANCHORS = {8: 2, 16: 6}
_LEAST_PRESENCE = 0.5
_AGREEMENT = Agreement(rotation=math.radians(15), translation=0.1, scale=0.3, margin=-0.2)


class FaceFinder:
    """The face of one person, from frame to frame."""

    def __init__(self, detector: Network, landmarks: Network) -> None:
        """Use the networks ``face_detection_short_range`` and ``face_landmark``."""
        self._detector, self._landmarks = Detector(detector, _DETECTOR_SIDE, _DETECTOR_ANCHORS), landmarks
        self._before: Part | None = None

    def find(self, picture: np.ndarray, body: Body | None) -> Part | None:
        """Its 468 landmarks in the next frame; None where no face is to be seen."""
        region = self._region(picture, body)
        self._before = self._look(picture, region) if region else None
        return self._before

    def _region(self, picture: np.ndarray, body: Body | None) -> Region | None:
        if body is None:
            return None
        head = Region.enclosing(body.points[_OF_BODY], _BODY_RIGHT_EYE, _BODY_LEFT_EYE).enlarged(3.0)
        if not head.width > 0:
            return None
        faces = self._detector.detect(picture, head)
        if not len(faces):
            return None
        suggested = Region.enclosing(faces.points[0], 0, 1).enlarged(2.0, shift_y=-0.1)
        if self._before is None:
            return suggested
        before = Region.enclosing(self._before.points, _RIGHT_EYE, _LEFT_EYE).enlarged(1.5)
        return _AGREEMENT.region_to_search(suggested, before, self._before.points)

    def _look(self, picture: np.ndarray, region: Region) -> Part | None:
        values, logit = self._landmarks.run(resample(picture, region, _SIDE))
        presence = sigmoid(logit).item()
        if not presence > _LEAST_PRESENCE:
            return None
        points = region.to_picture(values.reshape(COUNT, 3)[:, :2].astype(np.float64) / _SIDE)
        return Part(points, presence)
