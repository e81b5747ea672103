"""The 21 landmarks of each hand, looked for where the body's wrist, index and little finger are."""

import math

import numpy as np

from libs.pose.mediapipe.body import Body
from libs.pose.mediapipe.networks import Network
from libs.pose.mediapipe.regions import Region
from libs.pose.mediapipe.resampling import resample
from libs.pose.mediapipe.tracking import Agreement, Part

COUNT = 21
LEFT, RIGHT = (15, 17, 19), (16, 18, 20)
"""Wrist, little finger and index finger among the landmarks of a body."""

_LEAST_WRIST_VISIBILITY = 0.1
_LEAST_PRESENCE = 0.5
_RECROP_SIDE, _SIDE = 256, 224
_DOWN = -math.pi / 2
_AGREEMENT = Agreement(rotation=math.radians(40), translation=0.2, scale=0.4, margin=-0.1)


class HandFinder:
    """One hand of one person, from frame to frame."""

    def __init__(self, recrop: Network, landmarks: Network, of_body: tuple[int, int, int]) -> None:
        """Use the networks ``hand_recrop`` and ``hand_landmark_full`` for the hand ``LEFT`` or ``RIGHT``."""
        self._recrop, self._landmarks, self._of_body = recrop, landmarks, of_body
        self._before: Part | None = None

    def find(self, picture: np.ndarray, body: Body | None) -> Part | None:
        """Its 21 landmarks in the next frame; None where there is no hand."""
        region = self._region(picture, body)
        self._before = self._look(picture, region) if region else None
        return self._before

    def _region(self, picture: np.ndarray, body: Body | None) -> Region | None:
        if body is None or not body.visibility[self._of_body[0]] > _LEAST_WRIST_VISIBILITY:
            return None
        wrist, little, index = body.points[list(self._of_body)]
        knuckles = (2 * index + little) / 3
        rough = Region.around(knuckles, wrist, _DOWN).enlarged(2.7, shift_y=-0.1)
        if not rough.width > 0:
            return None
        (values,) = self._recrop.run(resample(picture, rough, _RECROP_SIDE))
        centre, on_circle = rough.to_picture(values.reshape(2, 2).astype(np.float64) / _RECROP_SIDE)
        suggested = Region.around(centre, on_circle, _DOWN).enlarged(1.0, shift_y=-0.1)
        if self._before is None:
            return suggested
        before = Region.of_hand(self._before.points).enlarged(2.0, shift_y=-0.1)
        return _AGREEMENT.region_to_search(suggested, before, self._before.points)

    def _look(self, picture: np.ndarray, region: Region) -> Part | None:
        values, presence = self._landmarks.run(resample(picture, region, _SIDE))
        if not presence.item() > _LEAST_PRESENCE:
            return None
        points = region.to_picture(values.reshape(COUNT, 3)[:, :2].astype(np.float64) / _SIDE)
        return Part(points, presence.item())
