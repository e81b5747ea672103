"""Frames in which a clip may switch from one person to another, found before time is spent on animating.

The largest person of each frame is followed and no person is tracked (docs/specification.md#detector), so where two
cross, or the film is cut, the figure may change. See ``libs.pose.networks.detector`` for choosing the person.
"""

import numpy as np

from libs.pose.track import PoseTrack

LEAST_OVERLAP = 0.2
"""Intersection over union of the boxes of two frames in a row. A leap at 10 frames per second keeps above it."""


def changes_of_person(track: PoseTrack) -> list[int]:
    """Frames whose person's box hardly overlaps that of the frame before, counted from 0 after the frame interval.

    A frame without a detection is passed over: the frames before and after it are compared. Somebody who takes over
    while the two overlap is not noticed.
    """
    detected = np.flatnonzero(track.boxes[:, 4] >= 0)
    boxes = track.boxes[detected, :4].astype(np.float64)
    before, after = boxes[:-1], boxes[1:]
    sides = np.minimum(before[:, 2:], after[:, 2:]) - np.maximum(before[:, :2], after[:, :2])
    shared = sides.clip(0).prod(axis=1)
    areas = [(corners[:, 2:] - corners[:, :2]).clip(0).prod(axis=1) for corners in (before, after)]
    apart = shared < LEAST_OVERLAP * (areas[0] + areas[1] - shared)
    return [int(frame) for frame in detected[1:][apart]]
