"""Draws a puppet: a small figure with coloured markers on its joints, standing in a plain room.

It stands in for a person wherever no real picture may be used (tests, demo, documentation). The markers are what the
sandbox's pose network looks for; everything else is painted in muted colours so that nothing but a marker looks like
one. What does not belong here: geometry (``skeleton``, ``keypoints``), the colour code (``markers``), files
(``media``).
"""

from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise

import numpy as np

from libs.sandbox.keypoints import ANCHOR_INDEX, FACE, LEFT_HAND, RIGHT_HAND, keypoint_map
from libs.sandbox.markers import MARKER_COLOURS, marker_radii
from libs.sandbox.painting import Painting, RoundCone, ball
from libs.sandbox.skeleton import Pose, Proportions, anchor_points, standing_extent

Colour = tuple[int, int, int]
_INK: Colour = (38, 34, 40)
_REACH = 0.455  # how far a dancing hand gets from the middle, as a fraction of the standing height


@dataclass(frozen=True)
class Puppet:
    """One character: proportions and muted colours (RGB 0 to 255); ``girth`` widens torso and limbs."""

    proportions: Proportions = field(default_factory=Proportions)
    skin: Colour = (226, 188, 166)
    hair: Colour = (64, 50, 46)
    top: Colour = (92, 104, 124)
    trousers: Colour = (52, 58, 72)
    shoes: Colour = (226, 222, 214)
    headphones: Colour = (58, 56, 62)
    wall: Colour = (206, 206, 202)
    floor: Colour = (168, 164, 158)
    girth: float = 1.0


DRIVER = Puppet()
"""The dancer of the driving clip: slim, dark hair, in a bright room."""

REFERENCE = Puppet(
    proportions=Proportions(
        head_height=0.215, head_width=0.185, torso=0.275, shoulder_width=0.225, hip_width=0.12, upper_arm=0.138,
        forearm=0.128, hand=0.088, thigh=0.2, shank=0.19, foot=0.074,
    ),
    skin=(176, 128, 104),
    hair=(92, 70, 58),
    top=(214, 202, 178),
    trousers=(104, 88, 84),
    shoes=(72, 64, 66),
    headphones=(196, 190, 182),
    wall=(74, 84, 92),
    floor=(56, 60, 66),
    girth=1.12,
)  # fmt: skip
"""The character to animate: stockier, larger head, a cream pullover, in a darker room."""


@dataclass(frozen=True)
class Framing:
    """Where a figure stands in a picture: standing height and the resting hips' centre, in pixels."""

    height: float
    hips: tuple[float, float]


def full_figure(puppet: Puppet, width: int, height: int, fill: float = 0.82) -> Framing:
    """The whole figure, centred: ``fill`` of the picture's height tall, smaller where its dance would not fit."""
    above, below = standing_extent(puppet.proportions)
    unit = min(fill * height / (above + below), 0.5 * width / _REACH)
    top = 0.55 * (height - unit * (above + below))
    return Framing(unit, ((width - 1) / 2, top + above * unit))


def puppet_keypoints(puppet: Puppet, pose: Pose, framing: Framing) -> np.ndarray:
    """Where the 133 key-points of a puppet are drawn: float64 [133, 2] in pixels (pixel centres are whole numbers)."""
    return keypoint_map()(puppet_anchors(puppet, pose, framing))


def draw_puppet(puppet: Puppet, pose: Pose, width: int, height: int, framing: Framing | None = None) -> np.ndarray:
    """Draw the puppet in its room: uint8 RGB [height, width, 3].

    Args:
        puppet: the character.
        pose: its pose.
        width: of the picture in pixels.
        height: of the picture in pixels.
        framing: where it stands; the whole figure, centred, when left out.
    """
    framing = framing or full_figure(puppet, width, height)
    anchors = puppet_anchors(puppet, pose, framing)
    painting = Painting(_room(puppet.wall, puppet.floor, width, height, framing))
    _Figure(puppet, anchors, framing.height, painting).draw()
    return painting.to_image()


def puppet_anchors(puppet: Puppet, pose: Pose, framing: Framing) -> np.ndarray:
    """Where the 24 markers of a puppet are drawn: float64 [24, 2] in pixels."""
    return anchor_points(puppet.proportions, pose) * framing.height + np.array(framing.hips)


@lru_cache(maxsize=8)
def _room(wall: Colour, floor: Colour, width: int, height: int, framing: Framing) -> np.ndarray:
    """Wall, floor and a soft pool of light; float32 RGB in [0, 1]. Read-only: it is shared between frames."""
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    horizon = framing.hips[1] + 0.36 * framing.height
    mix = 0.5 + 0.5 * np.tanh((y - horizon) / (0.024 * framing.height))[..., None]
    colours = np.array([wall, floor], np.float32) / 255.0
    room = colours[0] * (1 - mix) + colours[1] * mix
    distance = ((x - framing.hips[0]) / width) ** 2 * 1.6 + ((y - 0.42 * height) / height) ** 2
    room = room * (1.1 - 0.62 * distance)[..., None]
    room.setflags(write=False)
    return room


class _Figure:
    """One drawing of one puppet: paints its parts from back to front."""

    def __init__(self, puppet: Puppet, anchors: np.ndarray, unit: float, painting: Painting) -> None:
        self.puppet = puppet
        self.anchors = anchors
        self.points = keypoint_map()(anchors)
        self.unit = unit
        self.painting = painting
        shoulders, hips = self._middle("shoulder"), self._middle("hip")
        self.shoulders, self.hips = shoulders, hips

    def draw(self) -> None:
        feet = (self._at("left_ankle") + self._at("right_ankle")) / 2
        self.painting.soft_shadow(
            np.array([feet[0], max(self._at("left_toe")[1], self._at("right_toe")[1])]),
            (0.26 * self.unit, 0.035 * self.unit),
            0.5,
        )
        for side in ("right", "left"):
            self._foot(side)
        self._trousers()
        self._torso()
        self._head()
        for side in ("right", "left"):
            self._arm(side)
        self._markers()

    def _at(self, name: str) -> np.ndarray:
        return self.anchors[ANCHOR_INDEX[name]]

    def _middle(self, joint: str) -> np.ndarray:
        return (self._at(f"left_{joint}") + self._at(f"right_{joint}")) / 2

    def _part(self, a: np.ndarray, b: np.ndarray, radius_a: float, radius_b: float) -> RoundCone:
        """A round cone with radii in units of the height, widened by the puppet's girth."""
        scale = self.unit * self.puppet.girth
        return RoundCone(a, b, radius_a * scale, radius_b * scale)

    def _foot(self, side: str) -> None:
        ankle = self._at(f"{side}_ankle")
        big_toe, small_toe, heel = self.points[17:20] if side == "left" else self.points[20:23]
        shoe = [
            self._part(heel, big_toe, 0.021, 0.02),
            self._part(heel, small_toe, 0.021, 0.018),
            self._part(ankle, heel, 0.022, 0.02),
        ]
        self.painting.shape(shoe, self.puppet.shoes, blend=0.02 * self.unit)

    def _trousers(self) -> None:
        parts = [self._part(self._at("left_hip"), self._at("right_hip"), 0.054, 0.054)]
        for side in ("right", "left"):
            hip, knee, ankle = (self._at(f"{side}_{joint}") for joint in ("hip", "knee", "ankle"))
            above_ankle = knee + 0.88 * (ankle - knee)
            parts += [self._part(hip, knee, 0.055, 0.039), self._part(knee, above_ankle, 0.038, 0.027)]
        self.painting.shape(parts, self.puppet.trousers, blend=0.02 * self.unit)

    def _torso(self) -> None:
        down = self.hips - self.shoulders
        across = self._at("left_shoulder") - self._at("right_shoulder")
        chest = self._part(
            self._at("left_shoulder") - 0.16 * across, self._at("right_shoulder") + 0.16 * across, 0.042, 0.042
        )
        ribs = self._part(self.shoulders + 0.14 * down, self.shoulders + 0.6 * down, 0.076, 0.062)
        hip_line = self._at("left_hip") - self._at("right_hip")
        waist = self.shoulders + 0.84 * down
        hem = self._part(waist - 0.3 * hip_line, waist + 0.3 * hip_line, 0.052, 0.052)
        self.painting.shape([chest, ribs, hem], self.puppet.top, blend=0.07 * self.unit)

    def _head(self) -> None:
        puppet, proportions, unit = self.puppet, self.puppet.proportions, self.unit
        right = self._at("left_ear") - self._at("right_ear")
        right = right / np.linalg.norm(right)
        down = np.array([-right[1], right[0]])
        centre = (self._at("left_ear") + self._at("right_ear")) / 2 - 0.04 * proportions.head_height * unit * down
        tall, wide = proportions.head_height * unit, proportions.head_width * unit

        crown = centre - 0.1 * tall * down
        hair = [ball(crown - 0.03 * tall * down, 0.56 * wide), RoundCone(crown, centre, 0.55 * wide, 0.5 * wide)]
        self.painting.shape(hair, puppet.hair)
        neck = RoundCone(self.shoulders, centre + 0.25 * tall * down, 0.034 * unit, 0.03 * unit)
        self.painting.shape([neck], _darker(puppet.skin, 0.86))
        collar = self._part(self.shoulders - 0.02 * unit * right, self.shoulders + 0.02 * unit * right, 0.03, 0.03)
        self.painting.shape([collar], _darker(puppet.top, 0.9), shadow=0.1)
        skull = RoundCone(crown, centre + 0.2 * tall * down, 0.5 * wide, 0.36 * wide)
        self.painting.shape([skull], puppet.skin, relief=0.7)
        parting = centre + 0.46 * tall * down + 0.1 * wide * right
        self.painting.shape(
            [ball(crown - 0.03 * tall * down, 0.545 * wide)],
            puppet.hair,
            holes=[ball(parting, 0.74 * tall)],
            shadow=0.12,
            relief=0.8,
        )
        self._headphones(centre, right, down, tall, wide)
        self._face(right, down)

    def _headphones(self, centre: np.ndarray, right: np.ndarray, down: np.ndarray, tall: float, wide: float) -> None:
        angles = np.linspace(0, np.pi, 15)
        band = np.array(
            [
                centre + 0.04 * tall * down + 0.57 * wide * np.cos(angle) * right - 0.6 * tall * np.sin(angle) * down
                for angle in angles
            ]
        )
        strokes = [RoundCone(a, b, 0.045 * wide, 0.045 * wide) for a, b in pairwise(band)]
        self.painting.shape(strokes, self.puppet.headphones, shadow=0.2)
        for side in ("left", "right"):
            ear = self._at(f"{side}_ear")
            cup = RoundCone(ear - 0.04 * tall * down, ear + 0.04 * tall * down, 0.145 * wide, 0.145 * wide)
            self.painting.shape([cup], self.puppet.headphones)

    def _face(self, right: np.ndarray, down: np.ndarray) -> None:
        face = self.points[list(FACE)]
        eye_distance = float(np.linalg.norm(self._at("left_eye") - self._at("right_eye")))
        stroke = max(0.5, 0.055 * eye_distance)
        for name, lid in (("right_eye", slice(36, 40)), ("left_eye", slice(42, 46))):
            eye = self._at(name)
            white = RoundCone(
                eye - 0.08 * eye_distance * right, eye + 0.08 * eye_distance * right, 0.27 * eye_distance,
                0.27 * eye_distance,
            )  # fmt: skip
            self.painting.shape([white], (240, 240, 238), shadow=0.15, relief=0.0)
            lashes = face[lid] - 0.14 * eye_distance * down
            self.painting.line(lashes, stroke, _INK)
        brow = _darker(self.puppet.hair, 0.9)
        for brows in (slice(17, 22), slice(22, 27)):
            self.painting.line(face[brows] - 0.16 * eye_distance * down, 1.1 * stroke, brow)
        mouth = np.concatenate([face[48:60], face[48:49]])
        upper, lower = face[[50, 51, 52]].mean(axis=0), face[[56, 57, 58]].mean(axis=0)
        opening = RoundCone(face[48], face[54], 0.05 * eye_distance, 0.05 * eye_distance)
        gap = RoundCone(upper, lower, 0.13 * eye_distance, 0.13 * eye_distance)
        self.painting.shape([opening, gap], (110, 66, 62), blend=0.2 * eye_distance, shadow=0.0, relief=0.0)
        self.painting.line(mouth[:7], 0.7 * stroke, (120, 76, 68))

    def _arm(self, side: str) -> None:
        shoulder, elbow, wrist = (self._at(f"{side}_{joint}") for joint in ("shoulder", "elbow", "wrist"))
        hand = self.points[list(LEFT_HAND if side == "left" else RIGHT_HAND)]
        middle = 0.6 * hand[0] + 0.4 * hand[9]
        palm = [
            RoundCone(wrist, hand[9], 0.017 * self.unit, 0.019 * self.unit),
            RoundCone(middle, hand[17], 0.015 * self.unit, 0.012 * self.unit),
            RoundCone(middle, hand[5], 0.015 * self.unit, 0.012 * self.unit),
        ]
        fingers = []
        for knuckle, tip in ((1, 4), (5, 8), (9, 12), (13, 16), (17, 20)):
            radius = (0.0105 if knuckle == 1 else 0.0095) * self.unit
            fingers.append(RoundCone(hand[knuckle], hand[tip], radius, 0.82 * radius))
        self.painting.shape([*palm, *fingers], self.puppet.skin, blend=0.006 * self.unit)
        cuff = elbow + 0.94 * (wrist - elbow)
        sleeve = [self._part(shoulder, elbow, 0.041, 0.033), self._part(elbow, cuff, 0.032, 0.023)]
        self.painting.shape(sleeve, self.puppet.top, blend=0.02 * self.unit)

    def _markers(self) -> None:
        """Flat discs with a thin dark edge, painted last: a marker is never covered by anything but a marker."""
        edge = max(0.6, 0.0028 * self.unit)
        radii = marker_radii(self.unit)
        for centre, radius, colour in zip(self.anchors, radii, MARKER_COLOURS.tolist(), strict=True):
            self.painting.disc(centre, radius + edge, _INK)
            self.painting.disc(centre, radius, tuple(colour))


def _darker(colour: Colour, factor: float) -> Colour:
    red, green, blue = (round(channel * factor) for channel in colour)
    return red, green, blue
