"""Mode ``pose``: how much the reference must grow to fit the driver, and the driver's limbs scaled to the reference.

Everything here is in normalised coordinates (x and y scaled differently in frames that are not square) and in float32,
as upstream has it. See ``warp`` for warping the reference picture.

Source: docs/specification.md#figure-scale and #limb-scaling. Scores are compared with 0.9 in double precision.
"""

from dataclasses import dataclass, replace

import numpy as np

from libs.pose.faces import rescale_faces
from libs.pose.fitting.anchor import resolve_anchor
from libs.pose.keypoints import (
    DRAWN_BODY_COUNT,
    LEFT_EAR,
    LEFT_HIP,
    LEFT_SHOULDER,
    NECK,
    NOSE,
    RIGHT_EAR,
    RIGHT_HIP,
    RIGHT_SHOULDER,
)
from libs.pose.record import PoseRecord

_SURE = 0.9
_SHORTEST = 1e-6

Bone = tuple[int, int]
RATIO_BONES: tuple[Bone, ...] = (
    (0, 1), (1, 2), (1, 5), (2, 3), (3, 4), (5, 6), (6, 7), (0, 14), (0, 15), (14, 16), (15, 17), (8, 9), (9, 10),
    (11, 12), (12, 13), (1, 8), (1, 11),
)  # fmt: skip
"""Order of the ratios: the order of the golden files."""

# Stages of docs/specification.md#limb-scaling: joints that must be sure as well, and bones measured then (bone, bone
# it is taken from).
_STAGES: tuple[tuple[tuple[int, ...], tuple[tuple[Bone, Bone], ...]], ...] = (
    ((0, 1, 14, 15, 16, 17), tuple((bone, bone) for bone in ((0, 1), (0, 14), (0, 15), (14, 16), (15, 17)))),
    ((2, 5), (((1, 2), (1, 2)), ((1, 5), (1, 5)))),
    ((3, 6), (((2, 3), (2, 3)), ((5, 6), (5, 6)), ((3, 4), (2, 3)), ((6, 7), (5, 6)))),
    ((8, 11), (((1, 8), (1, 8)), ((1, 11), (1, 11)))),
    ((4, 7), (((3, 4), (3, 4)), ((6, 7), (6, 7)))),
    ((9, 12), (((8, 9), (8, 9)), ((11, 12), (11, 12)), ((9, 10), (8, 9)), ((12, 13), (11, 12)))),
    ((10, 13), tuple((bone, bone) for bone in RATIO_BONES)),
)
_SIDES = (((1, 2), (1, 5)), ((2, 3), (5, 6)), ((3, 4), (6, 7)), ((8, 9), (11, 12)), ((9, 10), (12, 13)))

# Which joints, and which hand (slot), move with the end of each bone; in order (#limb-scaling). Slot 1 goes with the
# right arm although it is the left hand: upstream's quirk, kept.
_MOVES: tuple[tuple[Bone, Bone, tuple[int, ...], int | None], ...] = (
    # (parent, child), ratio of, joints moved, hand moved
    ((1, 0), (0, 1), (0, 14, 15, 16, 17), None),
    ((1, 2), (1, 2), (2, 3, 4), 1),
    ((1, 5), (1, 5), (5, 6, 7), 0),
    ((2, 3), (2, 3), (3, 4), 1),
    ((3, 4), (3, 4), (4,), 1),
    ((5, 6), (5, 6), (6, 7), 0),
    ((6, 7), (6, 7), (7,), 0),
    ((0, 14), (0, 14), (14,), None),
    ((0, 15), (0, 15), (15,), None),
    ((14, 16), (14, 16), (16,), None),
    ((15, 17), (15, 17), (17,), None),
    ((1, 8), (1, 8), (8,), None),
    ((1, 11), (1, 11), (11,), None),
    ((8, 9), (8, 9), (9, 10), None),
    ((9, 10), (9, 10), (10,), None),
    ((11, 12), (11, 12), (12, 13), None),
    ((12, 13), (12, 13), (13,), None),
)


@dataclass(frozen=True)
class FigureScale:
    """How much a figure must be scaled to fit another, and what was measured: shoulders and hips, else ears."""

    ratio: float
    shoulders_sure: bool
    hips_sure: bool


def figure_scale(figure: PoseRecord, target: PoseRecord) -> FigureScale:
    """The scale that fits ``figure`` to ``target`` (first frames): shoulders and hips, shoulders, or ears.

    The ears are used without looking at their scores, as upstream does: in side views the ratio can be far off.
    """
    points, target_points = _first_body(figure), _first_body(target)
    sure = _sure(figure) & _sure(target)
    shoulders = bool(sure[[RIGHT_SHOULDER, LEFT_SHOULDER]].all())
    hips = bool(sure[[RIGHT_HIP, LEFT_HIP]].all())
    if shoulders and hips:
        width, target_width = (abs(p[LEFT_SHOULDER, 0] - p[RIGHT_SHOULDER, 0]) for p in (points, target_points))
        height, target_height = (
            abs(p[[RIGHT_HIP, LEFT_HIP], 1].mean() - p[[RIGHT_SHOULDER, LEFT_SHOULDER], 1].mean())
            for p in (points, target_points)
        )
        ratio = (_quotient(target_width, width) + _quotient(target_height, height)) / 2
    else:
        pair = (RIGHT_SHOULDER, LEFT_SHOULDER) if shoulders else (RIGHT_EAR, LEFT_EAR)
        ratio = _quotient(_distance(target_points, pair), _distance(points, pair))
    return FigureScale(float(ratio), shoulders, hips)


def scale_to(figure: PoseRecord, target: PoseRecord) -> PoseRecord:
    """``figure`` (first frame) scaled about its neck to fit ``target`` (first frame), its neck on the target's neck."""
    ratio = np.float32(figure_scale(figure, target).ratio)
    figure = figure[:1]
    neck = figure.body[:, NECK]  # [1, 2]
    shift = target.body[:1, NECK] - neck

    def moved(points: np.ndarray) -> np.ndarray:
        origin = neck.reshape(1, *[1] * (points.ndim - 2), 2)
        return (points - origin) * ratio + origin + shift.reshape(origin.shape)

    return replace(figure, body=moved(figure.body), hands=moved(figure.hands), face=moved(figure.face))


def bone_ratios(figure: PoseRecord, target: PoseRecord) -> np.ndarray:
    """[17] float32: lengths in ``figure`` over lengths in ``target`` (first frames), in the order of ``RATIO_BONES``.

    Filled in stages from the head down; a stage counts when all its joints and those of the stages before it are sure
    in both. A bone of no stage, or without length, has 1. The two sides of the body are averaged.
    """
    points, target_points = _first_body(figure), _first_body(target)
    sure = _sure(figure) & _sure(target)
    measured = {bone: _quotient(_distance(points, bone), _distance(target_points, bone)) for bone in RATIO_BONES}
    ratios = dict.fromkeys(RATIO_BONES, np.float32(1))
    needed: list[int] = []
    for joints, bones in _STAGES:
        needed += joints
        if sure[needed].all():
            ratios.update({bone: measured[source] for bone, source in bones})
    for right, left in _SIDES:
        ratios[right] = ratios[left] = (ratios[right] + ratios[left]) / 2
    return np.array([ratios[bone] for bone in RATIO_BONES])


def align_to_pose(reference: PoseRecord, driver: PoseRecord, anchor: int | None = 0) -> PoseRecord:
    """The driver's frames with limbs as long as those of the reference scaled to the driver's size.

    Args:
        reference: one frame; the picture's own record, before any warp.
        driver: the motion.
        anchor: the frame to compare with the reference; None chooses the best.

    Raises:
        PoseError: no such anchor.
    """
    index = resolve_anchor(anchor, reference.body[0], driver.body)
    target = driver[index : index + 1]
    scaled = scale_to(reference, target)
    ratios = dict(zip(RATIO_BONES, bone_ratios(scaled, target), strict=True))
    body = driver.body.astype(np.float32, copy=True)
    hands = driver.hands.astype(np.float32, copy=True)
    for (parent, child), bone, joints, hand in _MOVES:
        offset = (body[:, parent] - body[:, child]) * (np.float32(1) - ratios[bone])  # [T, 2], from moved points
        body[:, joints] += offset[:, None]
        if hand is not None:
            hands[:, hand] += offset[:, None]
    return replace(driver, body=body, hands=hands, face=rescale_faces(driver.face, scaled.face[0], body[:, NOSE]))


def _sure(record: PoseRecord) -> np.ndarray:
    return record.body_score[0, :DRAWN_BODY_COUNT].astype(np.float64) >= _SURE


def _first_body(record: PoseRecord) -> np.ndarray:
    return record.body[0].astype(np.float32)


def _distance(points: np.ndarray, pair: Bone) -> np.float32:
    return np.float32(np.linalg.norm(points[pair[0]] - points[pair[1]]))


def _quotient(numerator: np.float32, denominator: np.float32) -> np.float32:
    return np.float32(numerator / denominator) if denominator > _SHORTEST else np.float32(1)
