"""A character's head: skull, ears, face, hair and what it wears."""

from functools import cached_property

import numpy as np

from libs.sandbox.puppets.canvas import Colour, capsule, darker, disc, ellipse, lighter, mixed
from libs.sandbox.puppets.characters import ANIMALS
from libs.sandbox.puppets.part import INK, LIGHT_FROM, Part, hull
from libs.sandbox.puppets.skeleton import HeadFrame, face_template

_WHITE: Colour = (255, 255, 255)
_LIPS: Colour = (140, 48, 56)
_TONGUE: Colour = (232, 120, 116)


class Head(Part):
    """Drawn in two parts: what lies behind the body, and the rest."""

    @cached_property
    def frame(self) -> HeadFrame:
        """Places points on this head."""
        return HeadFrame.at_eyes(self.joints.head, self.character.proportions, self.character.face, self.height)

    def _on_head(self, u: float, v: float, depth: float = 0.0) -> np.ndarray:
        return self.frame.place(np.array([[u, v]]), depth)[0]

    def draw_back(self) -> None:
        """Draw the hair that lies behind the body."""
        c, frame = self.character, self.frame
        wide, tall = frame.half
        if c.kind == "robot":
            return
        colour = darker(c.hair_colour, 0.22)
        if c.hair == "long":
            crown, ends = self._on_head(0, -0.2), self._on_head(0, 1.55)
            self.solid([capsule(crown, ends, 1.14 * wide, 0.95 * wide)], colour)
        elif c.hair == "bob":
            self.solid([ellipse(self._on_head(0, 0.12), 1.2 * wide, 1.08 * tall, frame.roll)], colour)
        elif c.hair == "ponytail":
            sway = self._on_head(0.75, -0.5, -0.9)
            end = self._on_head(1.45, 1.3, -0.5)
            self.limb([sway, end], [0.42 * wide, 0.26 * wide], c.hair_colour)
        elif c.hair == "twintails":
            for sign in (-1, 1):
                self.limb(
                    [
                        self._on_head(sign * 0.98, -0.25),
                        self._on_head(sign * 1.62, 0.25),
                        self._on_head(sign * 1.5, 1.25),
                    ],
                    [0.3 * wide, 0.38 * wide, 0.16 * wide],
                    c.hair_colour,
                )
        elif c.hair == "bun":
            self.solid([disc(self._on_head(0, -1.2, -0.2), 0.42 * wide)], c.hair_colour)
        elif c.hair == "curly":
            for angle in np.linspace(150, 390, 9):
                u, v = 1.02 * np.cos(np.radians(angle)), 0.95 * np.sin(np.radians(angle))
                self.solid([disc(self._on_head(float(u), float(v)), 0.34 * wide)], colour)

    def _ears(self) -> None:
        c, frame = self.character, self.frame
        wide, tall = frame.half
        inner = mixed(c.skin, (240, 150, 150), 0.6)
        for sign in (-1.0, 1.0):
            if c.kind in {"cat", "fox"}:
                tip = (0.86, -1.5) if c.kind == "cat" else (0.92, -1.68)
                outer = np.array([self._on_head(sign * u, v) for u, v in ((0.25, -0.88), tip, (0.98, -0.42))])
                self.solid([outer], c.skin)
                middle = outer.mean(axis=0)
                self.canvas.fill(middle + 0.5 * (outer - middle), inner)
            elif c.kind == "rabbit":
                foot, top = self._on_head(sign * 0.36, -0.8), self._on_head(sign * 0.5, -1.95)
                self.solid([capsule(foot, top, 0.22 * wide, 0.2 * wide)], c.skin)
                self.canvas.fill(capsule(foot + 0.2 * (top - foot), top, 0.1 * wide, 0.1 * wide), inner)
            elif c.kind == "bear":
                place = self._on_head(sign * 0.76, -0.78)
                self.solid([disc(place, 0.34 * wide)], c.skin)
                self.canvas.fill(disc(place, 0.18 * wide), inner)
            elif c.kind == "robot":
                place = self._on_head(sign * 1.05, 0.05)
                self.solid([ellipse(place, 0.13 * wide, 0.26 * tall, frame.roll)], c.accent)
            elif c.hair not in {"bob", "long", "curly"}:
                self.solid([ellipse(self._on_head(sign * 1.0, 0.16), 0.14 * wide, 0.2 * tall, frame.roll)], c.skin, 0.8)

    def draw_front(self) -> None:
        """Draw neck, ears, skull, face, hair and headwear."""
        c, frame = self.character, self.frame
        wide, tall = frame.half
        if c.proportions.neck > 0.004:
            neck = self.width(0.026)
            self.solid([capsule(self.middle("shoulder"), self._on_head(0, 0.5), neck, neck)], darker(c.skin, 0.2), 0.7)
        self._ears()
        if c.kind == "robot":
            self._robot_head()
            return
        chin = 0.62 if c.kind in ANIMALS or c.kind == "chibi" else 0.5
        skull = hull(
            [
                ellipse(self._on_head(0, -0.12), wide, 0.88 * tall, frame.roll),
                ellipse(self._on_head(0, 0.5), chin * wide, 0.48 * tall, frame.roll),
            ]
        )
        self.solid([skull], darker(c.skin, 0.1))
        centre = skull.mean(axis=0)
        self.canvas.fill(centre + (skull - centre) * 0.92 + LIGHT_FROM * 0.05 * wide, c.skin)
        self._face()
        self._front_hair()
        self._headwear()

    def _robot_head(self) -> None:
        c, frame = self.character, self.frame
        corners = [
            ellipse(self._on_head(u, v), 0.3 * frame.half[0], 0.3 * frame.half[1])
            for u in (-0.66, 0.66)
            for v in (-0.68, 0.66)
        ]
        box = hull(corners)
        self.solid([box], darker(c.skin, 0.12))
        centre = box.mean(axis=0)
        self.canvas.fill(centre + (box - centre) * 0.88 + LIGHT_FROM * 0.06 * frame.half[0], c.skin)
        screen = hull(
            [
                disc(p, 0.2 * frame.half[0])
                for p in frame.place(np.array([[-0.6, -0.28], [0.6, -0.28], [-0.6, 0.5], [0.6, 0.5]]))
            ]
        )
        self.canvas.fill(screen, (40, 44, 62))
        self._face()
        top = self._on_head(0.0, -1.0)
        tip = self._on_head(0.1, -1.45)
        self.canvas.stroke(np.array([top, tip]), 1.6 * self.edge, darker(c.skin, 0.5))
        self.solid([disc(tip, 0.14 * frame.half[0])], c.accent, 0.8)

    def _face(self) -> None:
        c, view = self.character, self.joints.head
        points = self.frame.place_face(face_template(c.face, view.mouth, view.smile, view.blink))
        for sign, lids in ((-1.0, points[36:42]), (1.0, points[42:48])):
            self._eye(sign, lids)
        if c.eyes != "led":
            brow = darker(c.hair_colour, 0.35)
            self.canvas.stroke(points[17:22], 1.1 * self.edge, brow)
            self.canvas.stroke(points[22:27], 1.1 * self.edge, brow)
            self._cheeks_and_nose(points)
        self._mouth(points)
        if c.glasses:
            wide, tall = self.frame.half
            for first in (36, 42):
                eye = points[first : first + 6].mean(axis=0)
                ring = ellipse(eye, 1.35 * c.face.eye_width * wide, 1.35 * c.face.eye_height * tall, self.frame.roll)
                self.canvas.stroke(np.concatenate([ring, ring[:1]]), 1.1 * self.edge, (70, 60, 74))

    def _eye(self, sign: float, lids: np.ndarray) -> None:
        c, view, roll = self.character, self.joints.head, self.frame.roll
        wide, tall = self.frame.half
        eye = lids.mean(axis=0)
        squeeze = float(np.clip(np.cos(np.radians(view.yaw) - sign * 0.35) * 1.05, 0.25, 1.0))
        across = c.face.eye_width * wide * squeeze
        down = c.face.eye_height * tall * (1 - 0.85 * view.blink)
        fill = self.canvas.fill
        if c.eyes == "led":
            fill(ellipse(eye, 0.95 * across, 0.95 * down, roll), c.eye_colour)
            fill(ellipse(eye, 0.5 * across, 0.5 * down, roll), lighter(c.eye_colour, 0.6))
        elif c.eyes == "dots":
            fill(ellipse(eye, 0.6 * across, max(0.75 * down, 0.5), roll), INK)
            if view.blink < 0.5:
                fill(disc(eye + 0.25 * across * LIGHT_FROM, 0.2 * across), _WHITE)
        elif view.blink > 0.7:
            self.canvas.stroke(lids[[0, 4, 3]], 1.5 * self.edge, INK)
        else:
            small = min(across, down)
            fill(ellipse(eye, across, down, roll), _WHITE)
            iris = eye + np.array([0.25 * np.sin(np.radians(view.yaw)) * across, 0.06 * down])
            fill(ellipse(iris, 0.66 * across, 0.86 * down, roll), darker(c.eye_colour, 0.25))
            fill(ellipse(iris + np.array([0, 0.3 * down]), 0.5 * across, 0.5 * down), lighter(c.eye_colour, 0.2))
            fill(disc(iris, 0.32 * small + 0.1), INK)
            fill(disc(iris - 0.306 * np.array([across, down]), 0.26 * small + 0.15), _WHITE)
            lashes = eye + np.array([[-1.0, -0.35], [-0.5, -0.95], [0.5, -0.95], [1.0, -0.35]]) * (across, down)
            self.canvas.stroke(lashes, 1.5 * self.edge, INK)

    def _cheeks_and_nose(self, points: np.ndarray) -> None:
        c, frame = self.character, self.frame
        face = c.face
        wide, tall = frame.half
        if c.blush:
            for cheek in frame.place(np.array([[-0.62, face.eye_v + 0.34], [0.62, face.eye_v + 0.34]])):
                self.canvas.tint(ellipse(cheek, 0.2 * wide, 0.12 * tall, frame.roll), (244, 120, 120), c.blush)
        if c.kind in ANIMALS:
            muzzle = frame.place(np.array([[0.0, 0.5 * (face.nose_v + face.mouth_v) + 0.05]]))[0]
            self.canvas.fill(ellipse(muzzle, 0.36 * wide, 0.26 * tall, frame.roll), lighter(c.skin, 0.45))
            self.canvas.fill(ellipse(points[30], 0.11 * wide, 0.08 * tall, frame.roll), darker(c.skin, 0.75))
        else:
            nose = points[30] + np.array([0.02 * wide, 0.03 * tall])
            half = np.array([0.05 * wide, 0.0])
            self.canvas.stroke(np.array([nose - half, nose + half]), 1.3 * self.edge, darker(c.skin, 0.35))

    def _mouth(self, points: np.ndarray) -> None:
        c, frame, view = self.character, self.frame, self.joints.head
        wide, tall = frame.half
        colour = c.eye_colour if c.eyes == "led" else _LIPS
        self.canvas.fill(points[48:60], colour)
        if view.mouth > 0.35 and c.eyes != "led":
            tongue = points[65:68].mean(axis=0) - np.array([0, 0.03 * tall])
            self.canvas.fill(ellipse(tongue, 0.55 * c.face.mouth_width * wide, 0.06 * tall), _TONGUE)
        self.canvas.stroke(points[48:55], 1.2 * self.edge, darker(colour, 0.3))

    def _front_hair(self) -> None:
        c, frame = self.character, self.frame
        wide = frame.half[0]
        if c.hair == "bald":
            return
        colour = c.hair_colour
        back = 0.35 if c.kind not in ANIMALS else 0.15
        line = {"short": -0.3, "spiky": -0.34, "bun": -0.42, "curly": -0.32}.get(c.hair, -0.24)
        angles = np.radians(np.linspace(180 - 28 * back, 360 + 28 * back, 22))
        top = np.stack([1.08 * np.cos(angles), -0.1 + 0.98 * np.sin(angles)], axis=1)
        if c.hair == "spiky":
            top[2:-2] *= np.where(np.arange(18) % 3 == 0, 1.2, 0.98)[:, None]
        outline = [self._on_head(u, v, -0.1) for u, v in top]
        across = (0.9, 0.72, 0.5, 0.3, 0.05, -0.2, -0.45, -0.68, -0.9)
        teeth = (0.2, -0.02, 0.1, -0.1, 0.08, -0.08, 0.12, -0.02, 0.22)
        fringe = np.stack([across, line + np.array(teeth)], axis=1)
        front = frame.place(fringe)
        shape = np.concatenate([np.array(outline), front])
        self.solid([shape], darker(colour, 0.1))
        centre = shape.mean(axis=0)
        self.canvas.fill(centre + (shape - centre) * 0.88 + LIGHT_FROM * 0.04 * wide, colour)
        gloss = frame.place(np.array([[-0.55, -0.62], [-0.2, -0.74], [0.2, -0.74]]))
        self.canvas.stroke(gloss, 0.14 * wide, lighter(colour, 0.28))
        if c.hair in {"long", "bob"}:
            length = 1.3 if c.hair == "long" else 0.62
            for sign in (-1.0, 1.0):
                self.limb(
                    [self._on_head(sign * 0.98, -0.1), self._on_head(sign * 1.02, length)],
                    [0.17 * wide, 0.12 * wide],
                    colour,
                )

    def _headwear(self) -> None:
        c, frame = self.character, self.frame
        wide, tall = frame.half
        if c.headwear == "headphones":
            angles = np.radians(np.linspace(180, 360, 13))
            band = np.array([self._on_head(1.1 * np.cos(a), 0.05 + 1.14 * np.sin(a)) for a in angles])
            self.canvas.stroke(band, 0.2 * wide + 2 * self.edge, darker(c.accent, 0.5))
            self.canvas.stroke(band, 0.2 * wide, c.accent)
            for sign in (-1.0, 1.0):
                self.solid([ellipse(self._on_head(sign * 1.08, 0.12), 0.22 * wide, 0.32 * tall, frame.roll)], c.accent)
        elif c.headwear in {"cap", "beanie"}:
            angles = np.radians(np.linspace(180, 360, 16))
            dome = np.array([self._on_head(1.14 * np.cos(a), -0.3 + 0.86 * np.sin(a)) for a in angles])
            brim = frame.place(np.array([[0.95, -0.3], [0.4, -0.42], [-0.4, -0.42], [-0.95, -0.3]]))
            self.solid([np.concatenate([dome, brim])], c.accent)
            if c.headwear == "cap":
                visor = frame.place(
                    np.array(
                        [[0.75, -0.42], [0.35, -0.28], [-0.35, -0.28], [-0.75, -0.42], [-0.35, -0.56], [0.35, -0.56]]
                    )
                )
                self.solid([visor], darker(c.accent, 0.25))
            else:
                self.canvas.stroke(brim, 0.26 * wide, c.second_colour)
                self.solid([disc(self._on_head(0, -1.22), 0.22 * wide)], c.second_colour)
        elif c.headwear == "bow":
            middle = self._on_head(0.55, -0.92)
            for sign in (-1, 1):
                away = frame.right * sign * 0.46 * wide
                self.solid(
                    [
                        np.array(
                            [middle, middle + away - frame.down * 0.3 * tall, middle + away + frame.down * 0.24 * tall]
                        )
                    ],
                    c.accent,
                )
            self.solid([disc(middle, 0.14 * wide)], darker(c.accent, 0.15), 0.7)
        elif c.headwear == "band":
            band = frame.place(np.array([[-0.98, -0.38], [-0.5, -0.52], [0, -0.56], [0.5, -0.52], [0.98, -0.38]]))
            self.canvas.stroke(band, 0.2 * wide, c.accent)
