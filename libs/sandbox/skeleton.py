"""A puppet's proportions and pose -> where its anchor points lie. Pure geometry, numpy only.

The puppet faces the viewer, so its left side is on the right of the picture. Lengths are fractions of the figure's
standing height; angles are degrees. What does not belong here: how joints move over time (``dance``) and how a puppet
looks (``puppet``).
"""

from dataclasses import dataclass

import numpy as np

from libs.sandbox.keypoints import ANCHOR_COUNT, ANCHOR_INDEX


@dataclass(frozen=True)
class Proportions:
    """Lengths as fractions of the standing height."""

    head_height: float = 0.195
    head_width: float = 0.165
    neck: float = 0.03
    torso: float = 0.27
    shoulder_width: float = 0.215
    hip_width: float = 0.115
    upper_arm: float = 0.145
    forearm: float = 0.135
    hand: float = 0.085
    thigh: float = 0.215
    shank: float = 0.205
    foot: float = 0.07


@dataclass(frozen=True)
class Pose:
    """Joint angles in degrees and the offset of the hips as fractions of the height; the default stands relaxed.

    Arm and leg angles point away from the body: 0 hangs down, 90 is horizontal. A forearm, hand or shank angle is
    measured from the part it hangs on, positive turning further outward and up. Leans, rolls and the head's tilt are
    positive towards the right of the picture; ``head_turn`` is -1 (to the left of the picture) to 1.
    """

    hips_x: float = 0.0
    hips_y: float = 0.0
    lean: float = 0.0
    shoulder_roll: float = 0.0
    hip_roll: float = 0.0
    head_tilt: float = 0.0
    head_turn: float = 0.0
    mouth: float = 0.0
    left_arm: float = 28.0
    left_forearm: float = 14.0
    left_hand: float = 4.0
    right_arm: float = 28.0
    right_forearm: float = 14.0
    right_hand: float = 4.0
    left_leg: float = 9.0
    left_shank: float = -4.0
    left_foot: float = 0.0
    right_leg: float = 9.0
    right_shank: float = -4.0
    right_foot: float = 0.0


def _direction(angle: float, side: float) -> np.ndarray:
    """Unit vector ``angle`` degrees from straight down, towards the picture's right for ``side`` 1, left for -1."""
    radians = np.radians(angle)
    return np.array([side * np.sin(radians), np.cos(radians)])


def _tilted(angle: float) -> tuple[np.ndarray, np.ndarray]:
    """The (right, down) axes of something leaning ``angle`` degrees to the right of the picture."""
    radians = np.radians(angle)
    return np.array([np.cos(radians), np.sin(radians)]), np.array([-np.sin(radians), np.cos(radians)])


def anchor_points(proportions: Proportions, pose: Pose) -> np.ndarray:
    """The 24 anchors ``[24, 2]`` float64 in units of the height, with the resting hips' centre at the origin."""
    p = proportions
    points = np.zeros((ANCHOR_COUNT, 2))

    def put(name: str, position: np.ndarray) -> np.ndarray:
        points[ANCHOR_INDEX[name]] = position
        return position

    hips = np.array([pose.hips_x, pose.hips_y])
    _, spine_down = _tilted(pose.lean)
    shoulders = hips - p.torso * spine_down
    across_shoulders, _ = _tilted(pose.lean + pose.shoulder_roll)
    across_hips, _ = _tilted(pose.hip_roll)

    for name, side in (("left", 1.0), ("right", -1.0)):
        shoulder = put(f"{name}_shoulder", shoulders + side * p.shoulder_width / 2 * across_shoulders)
        arm = getattr(pose, f"{name}_arm") + side * -pose.lean * 0.3
        forearm = arm + getattr(pose, f"{name}_forearm")
        hand = forearm + getattr(pose, f"{name}_hand")
        elbow = put(f"{name}_elbow", shoulder + p.upper_arm * _direction(arm, side))
        wrist = put(f"{name}_wrist", elbow + p.forearm * _direction(forearm, side))
        along = _direction(hand, side)
        across = _direction(hand + 90.0, side)  # the thumb points up when the arm is raised to the side
        put(f"{name}_middle_tip", wrist + p.hand * along)
        put(f"{name}_thumb_tip", wrist + p.hand * (0.5 * along + 0.52 * across))

        hip = put(f"{name}_hip", hips + side * p.hip_width / 2 * across_hips)
        leg = getattr(pose, f"{name}_leg")
        shank = leg + getattr(pose, f"{name}_shank")
        knee = put(f"{name}_knee", hip + p.thigh * _direction(leg, side))
        ankle = put(f"{name}_ankle", knee + p.shank * _direction(shank, side))
        put(f"{name}_toe", ankle + p.foot * _direction(38.0 + getattr(pose, f"{name}_foot"), side))

    _place_head(points, p, pose, shoulders)
    return points


def _place_head(points: np.ndarray, p: Proportions, pose: Pose, shoulders: np.ndarray) -> None:
    """The face anchors, on a head standing on the neck."""
    right, down = _tilted(pose.lean + pose.head_tilt)
    centre = shoulders - (p.neck + p.head_height / 2) * down
    turn = pose.head_turn * p.head_width * right
    eye_distance = 0.42 * p.head_width
    eyes = centre + 0.02 * p.head_height * down + 0.1 * turn
    for name, position in {
        "left_eye": eyes + eye_distance / 2 * right,
        "right_eye": eyes - eye_distance / 2 * right,
        "nose": eyes + 0.5 * eye_distance * down + 0.06 * turn,
        "lower_lip": eyes + (1.0 + 0.16 * pose.mouth) * eye_distance * down + 0.02 * turn,
        "left_ear": centre + 0.52 * p.head_width * right + 0.04 * p.head_height * down - 0.03 * turn,
        "right_ear": centre - 0.52 * p.head_width * right + 0.04 * p.head_height * down - 0.03 * turn,
    }.items():
        points[ANCHOR_INDEX[name]] = position


def standing_extent(proportions: Proportions) -> tuple[float, float]:
    """How far a standing figure reaches above and below its hips' centre, in units of the height."""
    p = proportions
    return p.torso + p.neck + p.head_height * 1.08, (p.thigh + p.shank) * 0.995 + p.foot * 0.95
