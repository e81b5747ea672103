"""A puppet's proportions and pose, and where its joints and 133 key-points lie. Geometry only.

The body is a chain of bones in space, seen from far away (no perspective). Lengths are fractions of the standing
height, angles are degrees; x points to the right of the picture, y down, z towards the viewer. A puppet that does not
turn faces the viewer, so that its left side is on the right of the picture.

Key-point order: docs/specification.md#key-points.
"""

from dataclasses import dataclass, field

import numpy as np

KEYPOINT_COUNT = 133
SIDES = ("left", "right")


@dataclass(frozen=True)
class Proportions:
    """Lengths as fractions of the standing height; ``girth`` widens limbs and torso."""

    head_height: float = 0.19
    head_width: float = 0.16
    neck: float = 0.025
    torso: float = 0.265
    shoulder_width: float = 0.2
    hip_width: float = 0.105
    upper_arm: float = 0.15
    forearm: float = 0.135
    hand: float = 0.08
    thigh: float = 0.235
    shank: float = 0.225
    ankle: float = 0.04
    foot: float = 0.085
    girth: float = 1.0


@dataclass(frozen=True)
class Face:
    """Where the features lie on a head, in half-widths and half-heights from its centre; v is positive down."""

    eye_u: float = 0.42
    eye_v: float = 0.12
    eye_width: float = 0.2
    eye_height: float = 0.16
    nose_v: float = 0.42
    mouth_v: float = 0.64
    mouth_width: float = 0.24
    brow_v: float = -0.14


@dataclass(frozen=True)
class Limb:
    """Directions of an arm or a leg: degrees away from hanging down, and degrees from sideways towards the viewer."""

    upper: float = 20.0
    upper_front: float = 10.0
    lower: float = 14.0
    lower_front: float = 30.0
    end: float = 0.0


@dataclass(frozen=True)
class Hand:
    """``roll`` is 1 with the thumb on its natural side, 0 seen edgewise, -1 turned over; ``curl`` bends each finger."""

    roll: float = 0.8
    spread: float = 1.0
    curl: tuple[float, float, float, float, float] = (0.1, 0.1, 0.1, 0.1, 0.1)


@dataclass(frozen=True)
class Pose:
    """One pose; the default stands at ease. ``yaw`` turns body or head to the right of the picture."""

    x: float = 0.0
    lift: float = 0.0
    yaw: float = 0.0
    lean: float = 0.0
    shoulder_roll: float = 0.0
    hip_roll: float = 0.0
    head_yaw: float = 0.0
    head_pitch: float = 0.0
    head_roll: float = 0.0
    mouth: float = 0.2
    smile: float = 0.5
    blink: float = 0.0
    left_arm: Limb = field(default_factory=Limb)
    right_arm: Limb = field(default_factory=Limb)
    left_leg: Limb = field(default_factory=lambda: Limb(6.0, 0.0, 3.0, 0.0, 0.0))
    right_leg: Limb = field(default_factory=lambda: Limb(6.0, 0.0, 3.0, 0.0, 0.0))
    left_hand: Hand = field(default_factory=Hand)
    right_hand: Hand = field(default_factory=Hand)


@dataclass(frozen=True, eq=False)
class HeadView:
    """How a head is seen: the middle between its eyes in pixels, and its turns in degrees."""

    eyes: np.ndarray
    yaw: float
    pitch: float
    roll: float
    mouth: float
    smile: float
    blink: float


@dataclass(frozen=True, eq=False)
class Joints:
    """What a figure is drawn from, in pixels.

    Attributes:
        body: joint name -> [2]; ``left_shoulder`` … ``right_ankle`` and toes and heels.
        depth: joint name -> position towards the viewer, in pixels.
        hands: ``left``, ``right`` -> [21, 2].
        head: the view of the head.
        yaw: of the body, degrees.
    """

    body: dict[str, np.ndarray]
    depth: dict[str, float]
    hands: dict[str, np.ndarray]
    head: HeadView
    yaw: float


# A hand along +x, wrist at the origin, middle-finger tip at (1, 0), thumb to +y; root, then thumb to little finger.
_HAND = np.array(
    [
        (0.00, 0.00),
        (0.17, 0.19), (0.32, 0.34), (0.44, 0.45), (0.54, 0.54),
        (0.50, 0.18), (0.70, 0.22), (0.83, 0.25), (0.94, 0.27),
        (0.52, 0.03), (0.74, 0.03), (0.88, 0.02), (1.00, 0.00),
        (0.48, -0.11), (0.68, -0.16), (0.81, -0.2), (0.92, -0.23),
        (0.42, -0.23), (0.57, -0.32), (0.67, -0.38), (0.77, -0.43),
    ]
)  # fmt: skip


def hand_points(wrist: np.ndarray, along: np.ndarray, across: np.ndarray, hand: Hand) -> np.ndarray:
    """The 21 points [21, 2] of a hand: ``along`` reaches to the middle finger's tip, ``across`` points to the thumb."""
    shape = _HAND.copy()
    for finger in range(5):
        rows = slice(1 + 4 * finger, 5 + 4 * finger)
        base = shape[rows.start].copy()
        bent = base + (shape[rows] - base) * (1 - 0.85 * hand.curl[finger])
        shape[rows] = bent
    shape[:, 1] *= hand.spread * hand.roll
    return wrist + shape[:, :1] * along + shape[:, 1:] * across


def _direction(limb_angle: float, front: float, side: float) -> np.ndarray:
    """Unit vector ``limb_angle`` degrees from straight down, turned ``front`` degrees from the side to the viewer."""
    away, turned = np.radians(limb_angle), np.radians(front)
    return np.array([side * np.sin(away) * np.cos(turned), np.cos(away), np.sin(away) * np.sin(turned)])


def _turned(vector: np.ndarray, yaw: float) -> np.ndarray:
    """``vector`` turned about the vertical axis; the front turns to the right of the picture."""
    cos, sin = np.cos(np.radians(yaw)), np.sin(np.radians(yaw))
    x, y, z = vector
    return np.array([cos * x + sin * z, y, cos * z - sin * x])


def pose_joints(proportions: Proportions, face: Face, pose: Pose, height: float, ground: tuple[float, float]) -> Joints:
    """Joints in pixels of a figure ``height`` pixels tall that stands at ``ground`` (x, y of the sole)."""
    p = proportions
    points: dict[str, np.ndarray] = {}
    lean = np.radians(pose.lean)
    up = np.array([np.sin(lean), -np.cos(lean), 0.0])
    hips = np.zeros(3)
    shoulders = p.torso * up
    for side, sign in (("left", 1.0), ("right", -1.0)):
        shoulder_roll, hip_roll = np.radians(pose.lean + pose.shoulder_roll), np.radians(pose.hip_roll)
        across = sign * np.array([np.cos(shoulder_roll), np.sin(shoulder_roll), 0.0])
        points[f"{side}_shoulder"] = shoulders + p.shoulder_width / 2 * across
        arm: Limb = getattr(pose, f"{side}_arm")
        elbow = points[f"{side}_shoulder"] + p.upper_arm * _direction(arm.upper, arm.upper_front, sign)
        wrist = elbow + p.forearm * _direction(arm.lower, arm.lower_front, sign)
        points[f"{side}_elbow"], points[f"{side}_wrist"] = elbow, wrist
        hand_direction = _direction(arm.lower + arm.end, arm.lower_front, sign)
        points[f"{side}_middle_tip"] = wrist + p.hand * hand_direction

        across = sign * np.array([np.cos(hip_roll), np.sin(hip_roll), 0.0])
        points[f"{side}_hip"] = hips + p.hip_width / 2 * across
        leg: Limb = getattr(pose, f"{side}_leg")
        knee = points[f"{side}_hip"] + p.thigh * _direction(leg.upper, leg.upper_front, sign)
        ankle = knee + p.shank * _direction(leg.lower, leg.lower_front, sign)
        points[f"{side}_knee"], points[f"{side}_ankle"] = knee, ankle
        outward = np.radians(28.0 + leg.end)
        forward = np.array([sign * np.sin(outward), 0.0, np.cos(outward)])
        sole = ankle + np.array([0.0, 0.75 * p.ankle, 0.0])
        drop = np.array([0.0, 0.32 * p.foot, 0.0])  # the floor is seen from a little above
        points[f"{side}_toe"] = sole + 0.85 * p.foot * forward + drop * np.cos(outward)
        points[f"{side}_heel"] = sole - 0.28 * p.foot * forward - 0.2 * drop
    turned = {name: _turned(point, pose.yaw) for name, point in points.items()}
    lowest = max(turned[f"{side}_ankle"][1] for side in SIDES) + p.ankle
    shift = np.array([ground[0] + pose.x * height, ground[1] - (lowest + pose.lift) * height])

    def placed(point: np.ndarray) -> np.ndarray:
        return point[:2] * height + shift

    body = {name: placed(point) for name, point in turned.items()}
    depth = {name: float(point[2]) * height for name, point in turned.items()}
    hands = {side: _hand(body, side, p.hand * height, getattr(pose, f"{side}_hand")) for side in SIDES}
    head_yaw, roll = pose.yaw * 0.8 + pose.head_yaw, 0.7 * pose.lean + pose.head_roll
    rolled = np.radians(roll)
    head_up = np.array([np.sin(rolled), -np.cos(rolled)])
    neck_top = placed(_turned(shoulders, pose.yaw)) + p.neck * height * head_up
    centre = neck_top + 0.46 * p.head_height * height * head_up
    frame = HeadFrame(centre, p, height, head_yaw, pose.head_pitch, roll)
    eyes = frame.place(np.array([[-face.eye_u, face.eye_v], [face.eye_u, face.eye_v]])).mean(axis=0)
    head = HeadView(eyes, head_yaw, pose.head_pitch, roll, pose.mouth, pose.smile, pose.blink)
    return Joints(body, depth, hands, head, pose.yaw)


_PROTRUSION = np.zeros(68)
_PROTRUSION[27:31] = (0.05, 0.1, 0.18, 0.26)  # bridge to tip of the nose
_PROTRUSION[31:36] = 0.16
_PROTRUSION[[48, 54]] = -0.04


def _hand(body: dict[str, np.ndarray], side: str, length: float, hand: Hand) -> np.ndarray:
    """The 21 points of a hand ``length`` pixels long; one that points at the viewer still has a width."""
    along = body[f"{side}_middle_tip"] - body[f"{side}_wrist"]
    seen, least = float(np.hypot(*along)), 0.45 * length
    if seen < least:
        along = along * least / max(seen, 1e-6) if seen > 1e-6 else np.array([0.0, least])
    across = np.array([along[1], -along[0]]) * (1.0 if side == "left" else -1.0)
    return hand_points(body[f"{side}_wrist"], along, across / np.hypot(*across) * length, hand)


class HeadFrame:
    """Places points of a head's surface in the picture: an ellipsoid that turns."""

    def __init__(
        self, centre: np.ndarray, proportions: Proportions, height: float, yaw: float, pitch: float, roll: float
    ) -> None:
        self.centre = centre
        self.half = np.array([proportions.head_width, proportions.head_height]) * height / 2
        self._yaw, self._pitch = np.radians(yaw), np.radians(pitch)
        rolled = np.radians(roll)
        self.right = np.array([np.cos(rolled), np.sin(rolled)])
        self.down = np.array([-np.sin(rolled), np.cos(rolled)])
        self.roll = roll

    @classmethod
    def at_eyes(cls, view: HeadView, proportions: Proportions, face: Face, height: float) -> "HeadFrame":
        """The frame of a head whose eyes are where ``view`` says."""
        frame = cls(np.zeros(2), proportions, height, view.yaw, view.pitch, view.roll)
        eyes = frame.place(np.array([[-face.eye_u, face.eye_v], [face.eye_u, face.eye_v]])).mean(axis=0)
        frame.centre = view.eyes - eyes
        return frame

    def place(self, points: np.ndarray, depth: float | None = None) -> np.ndarray:
        """Points [n, 2] (u, v in half-widths and half-heights) -> pixels; on the surface unless ``depth`` is given."""
        u, v = points[:, 0], points[:, 1]
        z = np.sqrt(np.maximum(1 - 0.8 * u**2 - 0.5 * v**2, 0.0)) if depth is None else np.full(len(u), depth)
        return self._project(u, v, z)

    def place_face(self, template: np.ndarray) -> np.ndarray:
        """The 68 face points in pixels; the nose stands out."""
        u, v = template[:, 0], template[:, 1]
        z = np.sqrt(np.maximum(1 - 0.8 * u**2 - 0.5 * v**2, 0.0)) + _PROTRUSION
        return self._project(u, v, z)

    def _project(self, u: np.ndarray, v: np.ndarray, z: np.ndarray) -> np.ndarray:
        turned_u = u * np.cos(self._yaw) + z * np.sin(self._yaw) * 0.9
        turned_v = v * np.cos(self._pitch) + z * np.sin(self._pitch) * 0.7
        return (
            self.centre
            + (turned_u * self.half[0])[:, None] * self.right
            + (turned_v * self.half[1])[:, None] * self.down
        )


def _arc(centre: tuple[float, float], radii: tuple[float, float], start: float, stop: float, count: int) -> np.ndarray:
    angles = np.radians(np.linspace(start, stop, count))
    return np.stack([centre[0] + radii[0] * np.cos(angles), centre[1] + radii[1] * np.sin(angles)], axis=1)


def face_template(face: Face, mouth: float, smile: float, blink: float) -> np.ndarray:
    """The 68 face points [68, 2] in iBUG order, in half-widths and half-heights of the head."""
    jaw = _arc((0.0, 0.1), (0.96, 0.88 + 0.03 * mouth), 180, 0, 17)
    brow = face.brow_v
    brows = np.concatenate([_arc((sign * face.eye_u, brow + 0.02), (0.2, 0.07), 200, 340, 5) for sign in (-1, 1)])
    bridge = np.stack([np.zeros(4), np.linspace(face.eye_v, face.nose_v, 4)], axis=1)
    nostrils = _arc((0.0, face.nose_v + 0.03), (0.11, 0.05), 180, 0, 5)
    lid = face.eye_height * (1 - 0.85 * blink)
    eyes = np.concatenate(
        [_arc((sign * face.eye_u, face.eye_v), (face.eye_width, lid), 180, 480, 6) for sign in (-1, 1)]
    )
    width = face.mouth_width * (1 - 0.25 * mouth)

    def lip(half: float, depth: float, count: int) -> np.ndarray:
        x = np.linspace(-half, half, count)
        corners = 0.03 - 0.13 * smile
        return np.stack([x, face.mouth_v + corners * (x / half) ** 2 + depth * (1 - (x / half) ** 2)], axis=1)

    opening = 0.03 + 0.2 * mouth
    outer = np.concatenate([lip(width, 0.0, 7), lip(width, opening + 0.05, 7)[-2:0:-1]])
    inner = np.concatenate([lip(0.8 * width, 0.02, 5), lip(0.8 * width, opening, 5)[-2:0:-1]])
    return np.concatenate([jaw, brows, bridge, nostrils, eyes, outer, inner])


def wholebody_keypoints(proportions: Proportions, face: Face, joints: Joints, height: float) -> np.ndarray:
    """The 133 key-points [133, 2] in pixels of a figure as it is drawn."""
    frame = HeadFrame.at_eyes(joints.head, proportions, face, height)
    view = joints.head
    points = np.zeros((KEYPOINT_COUNT, 2))
    features = frame.place_face(face_template(face, view.mouth, view.smile, view.blink))
    points[23:91] = features
    points[0] = features[30]
    points[1], points[2] = features[42:48].mean(axis=0), features[36:42].mean(axis=0)
    points[3:5] = frame.place(np.array([[1.0, 0.08], [-1.0, 0.08]]), depth=0.0)
    body = ("shoulder", "elbow", "wrist", "hip", "knee", "ankle")
    for row, joint in enumerate(body):
        points[5 + 2 * row] = joints.body[f"left_{joint}"]
        points[6 + 2 * row] = joints.body[f"right_{joint}"]
    for row, side in ((17, "left"), (20, "right")):
        toe, heel = joints.body[f"{side}_toe"], joints.body[f"{side}_heel"]
        outward = np.array([1.0 if side == "left" else -1.0, 0.0]) * 0.12 * np.hypot(*(toe - heel))
        points[row], points[row + 1], points[row + 2] = toe - 0.4 * outward, toe + outward, heel
    points[91:112], points[112:133] = joints.hands["left"], joints.hands["right"]
    return points
