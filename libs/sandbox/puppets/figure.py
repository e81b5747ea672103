"""Draws one character in one pose, part by part from back to front, as a cartoonist would colour it."""

import numpy as np

from libs.sandbox.puppets.canvas import Canvas, Colour, capsule, darker, disc, lighter
from libs.sandbox.puppets.characters import ANIMALS, Character
from libs.sandbox.puppets.head import Head
from libs.sandbox.puppets.part import LIGHT_FROM, Part, hull
from libs.sandbox.puppets.skeleton import SIDES, Joints

_BEHIND = -0.012  # of the height: an arm farther back than this is drawn behind the torso


def draw_figure(canvas: Canvas, character: Character, joints: Joints, height: float) -> None:
    """Draw ``character`` on ``canvas``; ``height`` is its standing height in pixels of the finished picture."""
    head, body = Head(canvas, character, joints, height), _Body(canvas, character, joints, height)
    order = sorted(SIDES, key=body.arm_depth)
    behind = [side for side in order if body.arm_depth(side) < _BEHIND * height]
    body.tail()
    head.draw_back()
    for side in behind:
        body.arm(side)
    for side in sorted(SIDES, key=lambda side: joints.depth[f"{side}_knee"]):
        body.leg(side)
    body.torso()
    head.draw_front()
    for side in order:
        if side not in behind:
            body.arm(side)


class _Body(Part):
    """Limbs, trunk and tail."""

    def arm_depth(self, side: str) -> float:
        """How far an arm is before the trunk, in pixels."""
        depth = self.joints.depth
        reach = 0.5 * (depth[f"{side}_elbow"] + depth[f"{side}_wrist"])
        return reach + 0.6 * depth[f"{side}_shoulder"]

    def leg(self, side: str) -> None:
        """Draw a leg and its shoe."""
        c = self.character
        hip, knee, ankle = (self.at(f"{side}_{joint}") for joint in ("hip", "knee", "ankle"))
        toe, heel = self.at(f"{side}_toe"), self.at(f"{side}_heel")
        bare = c.bottom in {"shorts", "skirt", "dress"}
        widths = [self.width(share) for share in (0.05, 0.037, 0.03)]
        colour = (c.skin if bare else c.bottom_colour) if c.kind != "robot" else c.bottom_colour
        foot_radius = self.width(0.026)
        self.solid(
            [
                capsule(heel, toe, 0.95 * foot_radius, foot_radius),
                capsule(ankle, heel, 0.95 * foot_radius, foot_radius),
            ],
            c.shoe_colour,
        )
        tip = toe + 0.25 * foot_radius * LIGHT_FROM
        self.canvas.fill(disc(tip, 0.5 * foot_radius), lighter(c.shoe_colour, 0.3))
        if c.kind == "robot":
            self._robot_limb([hip, knee, ankle], widths, c.bottom_colour)
            return
        self.limb([hip, knee, ankle], widths, colour)
        if c.bottom == "shorts":
            half = hip + 0.66 * (knee - hip)
            self.limb([hip, half], [1.12 * widths[0], 1.1 * widths[1]], c.bottom_colour)
        if bare:
            sock = knee + 0.72 * (ankle - knee)
            self.limb([sock, ankle], [1.02 * widths[2], widths[2]], c.second_colour)

    def arm(self, side: str) -> None:
        """Draw an arm and its hand."""
        c = self.character
        shoulder, elbow, wrist = (self.at(f"{side}_{joint}") for joint in ("shoulder", "elbow", "wrist"))
        upper, middle, lower = (self.width(share) for share in (0.038, 0.031, 0.024))
        hand = self.joints.hands[side]
        self._hand(hand)
        if c.kind == "robot":
            self._robot_limb([shoulder, elbow, wrist], [upper, middle, lower], c.skin)
            self.solid([disc(shoulder, 1.35 * upper)], c.top_colour)
            return
        if c.top in {"tee", "vest"}:
            self.limb([shoulder, elbow, wrist], [upper, middle, lower], c.skin)
            end = shoulder + (0.55 if c.top == "tee" else 0.12) * (elbow - shoulder)
            self.limb([shoulder, end], [1.16 * upper, 1.16 * upper], c.top_colour)
            return
        cuff = elbow + 0.92 * (wrist - elbow)
        self.limb([shoulder, elbow, cuff], [upper, 1.05 * middle, 1.15 * lower], c.top_colour)
        if c.pattern == "stripes" or c.top == "jacket":
            before = elbow + 0.78 * (wrist - elbow)
            self.canvas.fill(capsule(before, cuff, 1.12 * lower, 1.15 * lower), c.second_colour)

    def _robot_limb(self, points: list[np.ndarray], radii: list[float], colour: Colour) -> None:
        for a, b, radius in zip(points[:-1], points[1:], radii[1:], strict=True):
            self.limb([a + 0.12 * (b - a), a + 0.9 * (b - a)], [0.92 * radius, 1.05 * radius], colour)
        for point, radius in zip(points, radii, strict=True):
            self.solid([disc(point, 0.82 * radius)], darker(self.character.second_colour, 0.35))

    def _hand(self, hand: np.ndarray) -> None:
        c = self.character
        radius = max(0.0105 * self.height, 0.12 * float(np.hypot(*(hand[9] - hand[0]))))
        if c.kind == "robot":
            radius *= 1.25
        palm = [
            capsule(hand[0], hand[9], 1.5 * radius, 1.7 * radius),
            capsule(0.6 * hand[0] + 0.4 * hand[9], hand[17], 1.2 * radius, 1.2 * radius),
            capsule(0.6 * hand[0] + 0.4 * hand[9], hand[5], 1.2 * radius, 1.2 * radius),
        ]
        fingers = [
            capsule(hand[knuckle], hand[tip], 1.0 * radius, 0.85 * radius)
            for knuckle, tip in ((1, 4), (5, 8), (9, 12), (13, 16), (17, 20))
        ]
        colour = c.skin if c.kind != "robot" else darker(c.second_colour, 0.25)
        self.solid([*palm, *fingers], colour, edge=0.8)

    def torso(self) -> None:
        """Draw the trunk and what it wears."""
        c = self.character
        shoulders, hips = self.middle("shoulder"), self.middle("hip")
        down = hips - shoulders
        across = self.at("left_shoulder") - self.at("right_shoulder")
        hip_line = self.at("left_hip") - self.at("right_hip")
        width = self.width
        if c.kind == "robot":
            self._robot_torso(shoulders, down, across)
            return
        if c.bottom in {"trousers", "shorts"}:
            self.solid([capsule(self.at("left_hip"), self.at("right_hip"), width(0.05), width(0.05))], c.bottom_colour)
        neck_base = shoulders - 0.02 * down
        chest = capsule(
            self.at("left_shoulder") - 0.14 * across,
            self.at("right_shoulder") + 0.14 * across,
            width(0.04),
            width(0.04),
        )
        waist = shoulders + 0.62 * down
        narrow = 0.048 if c.bottom in {"skirt", "dress"} else 0.052
        ribs = capsule(shoulders + 0.12 * down, waist, width(0.066), width(narrow + 0.006))
        hem_at = shoulders + (0.9 if c.bottom != "dress" else 0.7) * down
        hem = capsule(hem_at - 0.28 * hip_line, hem_at + 0.28 * hip_line, width(0.05), width(0.05))
        body = hull([chest, ribs, hem] if c.bottom not in {"skirt", "dress"} else [chest, ribs])
        if c.bottom in {"skirt", "dress"}:
            self._skirt(waist, hips, hip_line)
            body = hull(
                [chest, ribs, capsule(waist - 0.2 * hip_line, waist + 0.2 * hip_line, width(0.044), width(0.044))]
            )
        self.solid([body], darker(c.top_colour, 0.13))
        shift = LIGHT_FROM * width(0.018)
        centre = body.mean(axis=0)
        self.canvas.fill(centre + (body - centre) * 0.86 + shift, c.top_colour)
        self._pattern(shoulders, down, across)
        if c.top in {"vest", "tee"}:
            self.canvas.fill(disc(neck_base, width(0.034)), c.skin)
        elif c.top == "hoodie":
            self.solid(
                [capsule(neck_base - 0.16 * across, neck_base + 0.16 * across, width(0.03), width(0.03))], c.top_colour
            )
        elif c.top == "jacket":
            left, right = neck_base + 0.13 * across, neck_base - 0.13 * across
            self.canvas.fill(np.array([left, right, shoulders + 0.6 * down]), c.second_colour)
        else:
            self.solid(
                [capsule(neck_base - 0.1 * across, neck_base + 0.1 * across, width(0.022), width(0.022))],
                c.top_colour,
                0.7,
            )

    def _robot_torso(self, shoulders: np.ndarray, down: np.ndarray, across: np.ndarray) -> None:
        c, width = self.character, self.width
        self.solid([capsule(self.at("left_hip"), self.at("right_hip"), width(0.045), width(0.045))], c.bottom_colour)
        spine = capsule(shoulders + 0.6 * down, shoulders + 0.95 * down, width(0.04), width(0.045))
        self.solid([spine], darker(c.second_colour, 0.35))
        low = shoulders + 0.66 * down
        left, right = self.at("left_shoulder") - 0.1 * across, self.at("right_shoulder") + 0.1 * across
        corner = width(0.03)
        box = hull(
            [capsule(left, right, corner, corner), capsule(low - 0.3 * across, low + 0.3 * across, corner, corner)]
        )
        self.solid([box], darker(c.top_colour, 0.12))
        centre = box.mean(axis=0)
        self.canvas.fill(centre + (box - centre) * 0.85 + LIGHT_FROM * width(0.014), c.top_colour)
        panel = shoulders + 0.36 * down
        self.solid(
            [capsule(panel - 0.16 * across, panel + 0.16 * across, width(0.03), width(0.03))], c.second_colour, 0.7
        )
        self.canvas.fill(disc(panel + 0.14 * across, width(0.014)), c.accent)

    def _skirt(self, waist: np.ndarray, hips: np.ndarray, hip_line: np.ndarray) -> None:
        c = self.character
        knees = [hips + 0.62 * (self.at(f"{side}_knee") - hips) for side in ("right", "left")]
        flare = 0.55 * hip_line
        hem_right, hem_left = knees[0] - flare * 0.6, knees[1] + flare * 0.6
        drop = np.array([0.0, self.width(0.02)])
        outline = hull(
            [
                capsule(waist - 0.24 * hip_line, waist + 0.24 * hip_line, self.width(0.04), self.width(0.04)),
                capsule(hem_right, hem_left, self.width(0.032), self.width(0.032)),
                capsule((hem_left + hem_right) / 2 + drop, hips, self.width(0.03), self.width(0.03)),
            ]
        )
        colour = c.bottom_colour if c.bottom == "skirt" else c.top_colour
        self.solid([outline], darker(colour, 0.13))
        centre = outline.mean(axis=0)
        self.canvas.fill(centre + (outline - centre) * 0.84 + LIGHT_FROM * self.width(0.016), colour)
        wider = 0.22 * hip_line
        band = capsule(hem_right - wider, hem_left + wider, self.width(0.012), self.width(0.012))
        self.canvas.fill(band, c.second_colour)

    def _pattern(self, shoulders: np.ndarray, down: np.ndarray, across: np.ndarray) -> None:
        c, width = self.character, self.width
        if c.pattern == "stripes":
            for share in (0.22, 0.46, 0.7):
                middle = shoulders + share * down
                half = 0.34 * across
                self.canvas.fill(capsule(middle - half, middle + half, width(0.016), width(0.016)), c.second_colour)
        elif c.pattern == "emblem":
            self.canvas.fill(disc(shoulders + 0.4 * down, width(0.036)), c.second_colour)
            self.canvas.fill(disc(shoulders + 0.4 * down, width(0.02)), c.accent)
        elif c.pattern == "sash":
            high, low = shoulders + 0.3 * across + 0.1 * down, shoulders - 0.24 * across + 0.66 * down
            self.canvas.fill(capsule(high, low, width(0.018), width(0.018)), c.accent)

    def tail(self) -> None:
        """Draw the tail of an animal-eared character."""
        c = self.character
        if c.kind not in ANIMALS:
            return
        hips = self.middle("hip")
        length = {"cat": 0.3, "fox": 0.28, "bear": 0.07, "rabbit": 0.07}[c.kind]
        if length < 0.1:
            self.solid([disc(hips + self.height * np.array([0.09, 0.02]), 0.05 * self.height)], lighter(c.skin, 0.3))
            return
        thick = 0.022 if c.kind == "cat" else 0.045
        points = hips + self.height * np.array([[0.03, 0.02], [0.17, 0.05], [0.22, -0.06], [0.2, 0.02 - length * 0.6]])
        widths = [thick * self.height * share for share in (0.8, 1.0, 1.1, 0.7)]
        self.limb(list(points), widths, c.skin)
        self.canvas.fill(disc(points[-1], 0.8 * widths[-1]), lighter(c.skin, 0.5))
