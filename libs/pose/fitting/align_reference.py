"""Mode ``ref``: the driver's motion retargeted onto the reference's proportions and position.

Proportions, scale and offset come from the anchor frame alone; every frame is then rebuilt bone by bone. Hands
(``reference_hands``) and faces (``libs.pose.faces``) follow the rebuilt body.

Source: docs/specification.md#retargeting-to-the-reference. Points are pixels in double precision unless said otherwise.
Where upstream divides by zero (no height, a bone without length) the next sensible quantity is used instead; each
place says so.
"""

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from libs.errors import PoseError
from libs.pose.faces import rescale_faces
from libs.pose.fitting.anchor import resolve_anchor
from libs.pose.fitting.reference_hands import place_hands
from libs.pose.keypoints import LEFT_ANKLE, LEFT_HIP, NECK, NOSE, RETARGET_BONES, RIGHT_ANKLE, RIGHT_HIP
from libs.pose.record import PoseRecord, is_present, left_hand_first, record_of
from libs.pose.track import PoseTrack

_SCALE_SCORE = 0.5
_FLAG_SCORE = 0.4
_SHORTEST = 1e-6
_LIKE_MAXIMUM = ((0, 1), (2, 4), (3, 5), (6, 9), (7, 10), (8, 11), (17, 18))
_LIKE_MEAN = ((13, 15), (14, 16))
_FOOT_OF_SHANK = ((18, 8), (17, 11))
"""(foot bone, shank bone): a foot is at most half as long as its shank."""


class BodyFlag(IntEnum):
    """How much of the body a picture shows; the lower of two is the one both have."""

    HALF = 0
    THREE_QUARTER = 1
    FULL = 2


@dataclass(frozen=True)
class Retargeting:
    """What the anchor frame and the reference say about all frames.

    Attributes:
        scale: size of the driver's figure over the reference's ("scale_min").
        canvas: width, height of the reference's picture times ``scale``, truncated.
        flag: what both pictures show of the body.
        bone_ratios: [19] reference over driver, in the order of ``RETARGET_BONES``.
        offset: [2] pixels; subtracted from the rebuilt figure.
        ground_x: the figure's horizontal position in the anchor frame, pixels.
    """

    scale: float
    canvas: tuple[int, int]
    flag: BodyFlag
    bone_ratios: np.ndarray
    offset: np.ndarray
    ground_x: float


def align_to_reference(
    reference: PoseTrack, driver: PoseTrack, anchor: int | None = 0, first_frame_apart: bool = True
) -> PoseRecord:
    """The driver's frames with the reference's proportions, in the reference's frame.

    Args:
        reference: a track of one frame.
        driver: the motion.
        anchor: the frame to compare with the reference; None chooses the best.
        first_frame_apart: put frame 0 where the anchor frame stands, as upstream does. It only ever uses anchor 0,
            where that changes nothing; with another anchor the figure would jump between frames 0 and 1.

    Returns:
        T frames; bodies of 20 joints and hands in float64. The left hand is drawn first (``left_hand_first``).

    Raises:
        PoseError: no such anchor, or a skeleton collapsed to one point.
    """
    index = resolve_anchor(anchor, reference.body[0, :, :2], driver.body[..., :2])
    plan = plan_retargeting(reference, driver[index], index)
    driver_size, reference_size = _size(driver), _size(reference)

    points = _pixels(driver.body, driver_size)  # [T, 20, 2]
    rebuilt = rebuild(points, plan.bone_ratios, limit_feet=True)
    offset = np.tile(plan.offset, (len(driver), 1))
    if first_frame_apart and plan.flag is BodyFlag.FULL:
        offset[0, 0] += (rebuilt[0, RIGHT_HIP, 0] + rebuilt[0, LEFT_HIP, 0]) / 2 - plan.ground_x
    elif first_frame_apart and plan.flag is BodyFlag.HALF:
        offset[0, 0] += rebuilt[0, NECK, 0] - plan.ground_x
    body_pixels = (rebuilt - offset[:, None]) / plan.scale

    hands, hands_score = place_hands(driver, points, body_pixels, max(plan.bone_ratios[:2]) / plan.scale)
    body = _stored(body_pixels) / reference_size
    score = driver.body[..., 2].copy()
    detected, reference_record = record_of(driver), record_of(reference)
    return PoseRecord(
        body=body,
        body_score=score,
        body_present=is_present(score),
        hands=left_hand_first(hands / reference_size),
        hands_score=left_hand_first(hands_score),
        face=rescale_faces(detected.face, reference_record.face[0], body[:, NOSE]),
        face_score=detected.face_score,
    )


def plan_retargeting(reference: PoseTrack, anchor: PoseTrack, anchor_index: int = 0) -> Retargeting:
    """Scale, proportions and offset from the reference and the anchor frame (tracks of one frame each).

    Raises:
        PoseError: a skeleton collapsed to one point or without a size; ``anchor_index`` names the frame in the message.
    """
    driver_size, reference_size = _size(anchor), _size(reference)
    scale = _figure_scale(reference, anchor)
    if not 0 < scale < np.inf:
        raise PoseError(
            f"driver, frame {anchor_index}: its figure cannot be measured against the reference's (scale {scale:.3g}); "
            "choose another anchor frame, or switch align off"
        )
    canvas = (int(reference_size[0] * scale), int(reference_size[1] * scale))
    reference_pixels = _pixels(reference.body[0], np.array(canvas))
    anchor_pixels = _pixels(anchor.body[0], driver_size)
    flag = min(body_flag(reference), body_flag(anchor))
    ratios = _bone_ratios(reference_pixels, anchor_pixels, anchor_index)
    rebuilt = rebuild(anchor_pixels[None], ratios)[0]
    if flag is BodyFlag.FULL:
        offset, ground_x = _ground_offset(reference_pixels, rebuilt)
    else:
        offset = anchor_pixels[NECK] - reference_pixels[NECK]
        ground_x = float(anchor_pixels[NECK, 0])
    return Retargeting(scale, canvas, flag, ratios, offset, ground_x)


def body_flag(track: PoseTrack) -> BodyFlag:
    """How much of the body the first frame shows: hips and ankles, hips only, or neither."""
    y, score = track.body[0, :, 1], track.body[0, :, 2]
    seen = (y <= 1) & (score.astype(np.float64) >= _FLAG_SCORE)
    if seen[[RIGHT_HIP, RIGHT_ANKLE, LEFT_HIP, LEFT_ANKLE]].all():
        return BodyFlag.FULL
    return BodyFlag.THREE_QUARTER if seen[[RIGHT_HIP, LEFT_HIP]].all() else BodyFlag.HALF


def rebuild(points: np.ndarray, ratios: np.ndarray, limit_feet: bool = False) -> np.ndarray:
    """Skeletons [T, 20, 2] with every bone ``ratios`` times as long, directions kept, the neck in place.

    Args:
        points: pixels.
        ratios: [19] in the order of ``RETARGET_BONES``.
        limit_feet: feet are at most half as long as their shanks.
    """
    bones = np.stack([points[:, child] - points[:, parent] for parent, child in RETARGET_BONES], axis=1)  # [T, 19, 2]
    lengths = np.linalg.norm(bones, axis=-1)
    wanted = lengths * ratios
    if limit_feet:
        for foot, shank in _FOOT_OF_SHANK:
            wanted[:, foot] = np.minimum(wanted[:, foot], 0.5 * wanted[:, shank])
    # upstream goes through angles; a bone without length points to the right there, but stays without length
    directions = bones / np.where(lengths > 0, lengths, 1.0)[..., None]
    rebuilt = points.copy()
    for bone, (parent, child) in enumerate(RETARGET_BONES):
        rebuilt[:, child] = rebuilt[:, parent] + wanted[:, bone, None] * directions[:, bone]
    return rebuilt


def _figure_scale(reference: PoseTrack, anchor: PoseTrack) -> float:
    """Height of the driver's figure over the reference's: by ankles, else by hips, else by the pictures' sizes.

    A height of zero (upstream: division by zero) is passed over like one that is not seen well enough.
    """
    for joints in ((RIGHT_ANKLE, LEFT_ANKLE), (RIGHT_HIP, LEFT_HIP)):
        needed = [NOSE, *joints]
        if (reference.body[0, needed, 2] > _SCALE_SCORE).all() and (anchor.body[0, needed, 2] > _SCALE_SCORE).all():
            heights = [_height(track, joints) for track in (anchor, reference)]
            if min(heights) > _SHORTEST:
                return heights[0] / heights[1]
    driver_size, reference_size = _size(anchor), _size(reference)
    return float(np.sqrt(driver_size.prod()) / np.sqrt(reference_size.prod()))


def _height(track: PoseTrack, joints: tuple[int, int]) -> float:
    """Vertical distance between the nose and the middle of two joints, in pixels."""
    y = track.body[0, :, 1].astype(np.float64)
    return float(track.height * abs((y[joints[0]] + y[joints[1]]) / 2 - y[NOSE]))


def _bone_ratios(reference: np.ndarray, anchor: np.ndarray, anchor_index: int) -> np.ndarray:
    """[19] length in the reference over length in the driver, the two sides made alike.

    A bone without length in the driver (upstream: an infinite ratio, then a crash) takes its mirror bone's ratio, else
    the mean of those of the two shoulders, else 1.
    """
    reference_lengths, lengths = (
        np.array([np.linalg.norm(points[child] - points[parent]) for parent, child in RETARGET_BONES])
        for points in (reference, anchor)
    )
    for found, subject in ((reference_lengths, "reference"), (lengths, f"driver, frame {anchor_index}")):
        if not (found > _SHORTEST).any():
            raise PoseError(
                f"{subject}: all body key-points lie on one spot, so there is no skeleton to compare; choose another "
                "picture or anchor frame, or switch align off"
            )
    unknown = lengths <= _SHORTEST
    ratios = np.where(unknown, np.nan, reference_lengths / np.where(unknown, 1.0, lengths))
    for first, second in _LIKE_MAXIMUM:
        ratios[[first, second]] = np.fmax(ratios[first], ratios[second])
        unknown[[first, second]] = unknown[first] and unknown[second]
    for first, second in _LIKE_MEAN:
        known = [bone for bone in (first, second) if not unknown[bone]]
        if known:
            ratios[[first, second]] = ratios[known].mean()
            unknown[[first, second]] = False
    ratios[unknown] = 1.0 if unknown[0] else ratios[0]  # the two shoulders share one ratio by now
    return ratios


def _ground_offset(reference: np.ndarray, rebuilt: np.ndarray) -> tuple[np.ndarray, float]:
    """Full body: the lower ankle on the reference's ground, hips above hips. Returns the offset and the hips' x."""
    # upstream's ground is the middle of ankle and toe in the reference, but the ankle in the driver; kept
    ground = max((reference[10, 1] + reference[19, 1]) / 2, (reference[13, 1] + reference[18, 1]) / 2)
    driver_ground = max(rebuilt[RIGHT_ANKLE, 1], rebuilt[LEFT_ANKLE, 1])
    hips_x = float((rebuilt[RIGHT_HIP, 0] + rebuilt[LEFT_HIP, 0]) / 2)
    reference_hips_x = (reference[RIGHT_HIP, 0] + reference[LEFT_HIP, 0]) / 2
    return np.array([hips_x - reference_hips_x, driver_ground - ground]), hips_x


def _size(track: PoseTrack) -> np.ndarray:
    return np.array([track.width, track.height], dtype=np.float64)


def _pixels(body: np.ndarray, size: np.ndarray) -> np.ndarray:
    return body[..., :2].astype(np.float64) * size


def _stored(pixels: np.ndarray) -> np.ndarray:
    """Pixels as upstream keeps them between its steps: float32, a value that is no number replaced by 0."""
    return np.nan_to_num(pixels.astype(np.float32)).astype(np.float64)
