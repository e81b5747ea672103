"""Backgrounds: rooms, landscapes by season, a city at night, a stage, a beach, plain papers. A little out of focus."""

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from libs.sandbox.puppets.canvas import Canvas, Colour, capsule, darker, disc, ellipse, lighter, mixed
from libs.sandbox.puppets.characters import tone

RoomKind = Literal["studio", "living_room", "landscape", "city", "stage", "beach", "paper"]
ROOM_KINDS: tuple[RoomKind, ...] = ("studio", "living_room", "landscape", "city", "stage", "beach", "paper")
Season = Literal["spring", "summer", "autumn", "winter"]
SEASONS: tuple[Season, ...] = ("spring", "summer", "autumn", "winter")

_SKY: dict[str, tuple[Colour, Colour]] = {
    "spring": ((172, 216, 240), (240, 244, 240)),
    "summer": ((92, 178, 236), (206, 236, 250)),
    "autumn": ((232, 196, 150), (250, 232, 204)),
    "winter": ((190, 204, 224), (236, 240, 246)),
}
_MEADOW: dict[str, Colour] = {
    "spring": (160, 206, 120),
    "summer": (104, 176, 92),
    "autumn": (196, 160, 90),
    "winter": (236, 240, 248),
}
_CROWN: dict[str, Colour] = {
    "spring": (246, 186, 206),
    "summer": (64, 140, 80),
    "autumn": (222, 118, 60),
    "winter": (222, 230, 240),
}


@dataclass(frozen=True)
class Room:
    """One background; equal rooms are painted alike. ``seed`` places furniture, trees and windows."""

    kind: RoomKind = "studio"
    wall: Colour = (206, 214, 222)
    floor: Colour = (168, 160, 150)
    accent: Colour = (226, 150, 110)
    season: Season = "summer"
    seed: int = 0


def random_room(generator: np.random.Generator) -> Room:
    """A background nobody has seen before."""
    g = generator
    return Room(
        kind=ROOM_KINDS[g.choice(len(ROOM_KINDS), p=(0.25, 0.18, 0.2, 0.1, 0.1, 0.07, 0.1))],
        wall=tone(g, (0.4, 0.97), (0.03, 0.45)),
        floor=tone(g, (0.3, 0.9), (0.03, 0.45)),
        accent=tone(g, (0.45, 0.95), (0.2, 0.7)),
        season=SEASONS[g.integers(4)],
        seed=int(g.integers(1 << 30)),
    )


def paint_room(room: Room, width: int, height: int, scale: float, horizon: float, unit: float) -> np.ndarray:
    """The background, ``scale`` times as large as ``width`` x ``height``: uint8 RGB.

    Args:
        room: what to paint.
        width: of the finished picture in pixels.
        height: likewise.
        scale: of the canvas.
        horizon: where wall and floor meet, pixels from the top.
        unit: the standing height of a figure in it, in pixels; furniture has sizes to match.
    """
    g = np.random.default_rng(room.seed)
    rows, columns = round(height * scale), round(width * scale)
    pixels = np.empty((rows, columns, 3), np.uint8)
    canvas = Canvas(pixels, scale)
    painter = {
        "studio": _studio, "living_room": _living_room, "landscape": _landscape, "city": _city, "stage": _stage,
        "beach": _beach, "paper": _paper,
    }[room.kind]  # fmt: skip
    painter(canvas, room, g, (width, height), horizon, unit)
    blur = scale * float(g.uniform(0.8, 1.5))
    return cv2.GaussianBlur(pixels, (0, 0), blur)


def _gradient(canvas: Canvas, top: Colour, bottom: Colour, start: float, stop: float) -> None:
    """Fill the rows from ``start`` to ``stop`` (finished pixels)."""
    first, last = (round(np.clip(value * canvas.scale, 0, len(canvas.pixels))) for value in (start, stop))
    if last <= first:
        return
    mix = np.linspace(0, 1, last - first)[:, None]
    colours = np.array(top) * (1 - mix) + np.array(bottom) * mix
    canvas.pixels[first:last] = np.rint(colours)[:, None].astype(np.uint8)


def _studio(
    canvas: Canvas, room: Room, g: np.random.Generator, size: tuple[int, int], horizon: float, unit: float
) -> None:
    width, height = size
    _gradient(canvas, lighter(room.wall, 0.15), room.wall, 0, horizon)
    _gradient(canvas, darker(room.floor, 0.12), lighter(room.floor, 0.1), horizon, height)
    if g.random() < 0.6:
        centre = np.array([width * g.uniform(0.3, 0.7), horizon - 0.5 * unit])
        canvas.fill(disc(centre, unit * g.uniform(0.3, 0.5)), mixed(room.wall, room.accent, 0.45))
    if g.random() < 0.4:
        skirting = np.array(
            [[-9, horizon - 0.035 * unit], [width + 9, horizon - 0.035 * unit], [width + 9, horizon], [-9, horizon]]
        )
        canvas.fill(skirting, lighter(room.wall, 0.5))


def _box(left: float, top: float, right: float, bottom: float) -> np.ndarray:
    return np.array([[left, top], [right, top], [right, bottom], [left, bottom]])


def _living_room(
    canvas: Canvas, room: Room, g: np.random.Generator, size: tuple[int, int], horizon: float, unit: float
) -> None:
    width = size[0]
    _studio(canvas, room, np.random.default_rng(1), size, horizon, unit)
    _gradient(canvas, lighter(room.wall, 0.1), room.wall, 0, horizon)
    left = width * g.uniform(0.02, 0.3)
    top = horizon - unit * g.uniform(0.75, 0.95)
    canvas.fill(_box(left, top, left + 0.34 * unit, top + 0.42 * unit), lighter(room.floor, 0.6))
    canvas.fill(
        _box(left + 0.03 * unit, top + 0.03 * unit, left + 0.31 * unit, top + 0.39 * unit), _SKY[room.season][0]
    )
    canvas.fill(_box(left + 0.16 * unit, top, left + 0.18 * unit, top + 0.42 * unit), lighter(room.floor, 0.6))
    right = width * g.uniform(0.75, 0.95)
    if g.random() < 0.6:
        frame = _box(right - 0.14 * unit, top + 0.05 * unit, right + 0.1 * unit, top + 0.25 * unit)
        canvas.fill(frame, darker(room.accent, 0.3))
        centre = frame.mean(axis=0)
        canvas.fill(centre + 0.75 * (frame - centre), lighter(room.accent, 0.35))
    pot = horizon + 0.04 * unit
    canvas.fill(_box(right - 0.06 * unit, pot - 0.12 * unit, right + 0.06 * unit, pot), room.accent)
    for angle in np.radians(np.linspace(-150, -30, 5)):
        tip = np.array([right + 0.2 * unit * np.cos(angle), pot - 0.12 * unit + 0.26 * unit * np.sin(angle)])
        canvas.fill(capsule(np.array([right, pot - 0.12 * unit]), tip, 0.02 * unit, 0.035 * unit), (98, 158, 96))
    if g.random() < 0.5:
        canvas.fill(
            ellipse(np.array([width / 2, horizon + 0.1 * unit]), 0.5 * unit, 0.07 * unit),
            mixed(room.floor, room.accent, 0.5),
        )


def _landscape(
    canvas: Canvas, room: Room, g: np.random.Generator, size: tuple[int, int], horizon: float, unit: float
) -> None:
    width, height = size
    high, low = _SKY[room.season]
    ground = _MEADOW[room.season]
    _gradient(canvas, high, low, 0, horizon)
    sun = np.array([width * g.uniform(0.1, 0.9), horizon - unit * g.uniform(0.7, 1.0)])
    canvas.fill(disc(sun, 0.1 * unit), (255, 244, 206))
    for _ in range(3):
        cloud = np.array([g.uniform(0, width), horizon - unit * g.uniform(0.55, 1.1)])
        canvas.fill(capsule(cloud, cloud + np.array([0.2 * unit, 0]), 0.05 * unit, 0.04 * unit), lighter(low, 0.6))
    for share, size_share in ((0.35, 0.6), (0.15, 0.9)):
        hill = np.array([width * g.uniform(0, 1), horizon + size_share * 0.7 * unit])
        canvas.fill(disc(hill, size_share * 0.9 * unit), mixed(ground, high, share + 0.1))
    _gradient(canvas, ground, darker(ground, 0.12), horizon, height)
    for _ in range(int(g.integers(1, 4))):
        foot = np.array([g.uniform(0, width), horizon + 0.02 * unit])
        tall = unit * g.uniform(0.4, 0.7)
        canvas.fill(capsule(foot, foot - np.array([0, 0.5 * tall]), 0.03 * unit, 0.02 * unit), (120, 88, 70))
        for _ in range(3):
            spot = foot - np.array([g.uniform(-0.1, 0.1) * unit, tall * g.uniform(0.5, 0.85)])
            canvas.fill(disc(spot, unit * g.uniform(0.1, 0.16)), mixed(_CROWN[room.season], ground, g.uniform(0, 0.25)))


def _city(
    canvas: Canvas, room: Room, g: np.random.Generator, size: tuple[int, int], horizon: float, unit: float
) -> None:
    width, height = size
    sky = mixed((40, 44, 84), room.wall, 0.15)
    _gradient(canvas, sky, mixed(sky, (220, 130, 140), 0.45), 0, horizon)
    canvas.fill(disc(np.array([width * g.uniform(0.1, 0.9), horizon - 0.9 * unit]), 0.07 * unit), (250, 244, 220))
    x = -4.0
    while x < width:
        wide, tall = unit * g.uniform(0.14, 0.26), unit * g.uniform(0.25, 0.75)
        house = mixed((54, 58, 96), room.accent, g.uniform(0.0, 0.25))
        canvas.fill(_box(x, horizon - tall, x + wide, horizon), house)
        for row in np.arange(horizon - tall + 0.05 * unit, horizon - 0.05 * unit, 0.085 * unit):
            for column in np.arange(x + 0.03 * unit, x + wide - 0.03 * unit, 0.065 * unit):
                if g.random() < 0.55:
                    canvas.fill(_box(column, row, column + 0.03 * unit, row + 0.04 * unit), (250, 216, 130))
        x += wide + 1.0
    _gradient(canvas, darker(room.floor, 0.55), darker(room.floor, 0.35), horizon, height)


def _stage(
    canvas: Canvas, room: Room, g: np.random.Generator, size: tuple[int, int], horizon: float, unit: float
) -> None:
    width, height = size
    curtain = mixed(room.accent, (60, 30, 60), 0.45)
    _gradient(canvas, darker(curtain, 0.3), curtain, 0, horizon)
    for x in np.arange(0, width, 0.12 * unit):
        canvas.fill(_box(x, 0, x + 0.05 * unit, horizon), darker(curtain, 0.22))
    _gradient(canvas, mixed(room.floor, (120, 84, 60), 0.5), darker(room.floor, 0.2), horizon, height)
    for sign in (-1, 1):
        top = np.array([width / 2 + sign * width * g.uniform(0.25, 0.5), -0.1 * unit])
        foot = np.array([width / 2 + sign * 0.08 * unit, horizon + 0.1 * unit])
        side = np.array([0.28 * unit, 0])
        beam = np.array([top, foot - side, foot + side])
        canvas.tint(beam, (255, 246, 220), 0.22)
    canvas.tint(ellipse(np.array([width / 2, horizon + 0.1 * unit]), 0.5 * unit, 0.09 * unit), (255, 246, 220), 0.35)


def _beach(
    canvas: Canvas, _room: Room, g: np.random.Generator, size: tuple[int, int], horizon: float, unit: float
) -> None:
    width, height = size
    evening = g.random() < 0.5
    high, low = ((238, 150, 120), (252, 220, 160)) if evening else ((96, 180, 232), (214, 240, 250))
    sea = (96, 110, 160) if evening else (64, 158, 190)
    _gradient(canvas, high, low, 0, horizon - 0.14 * unit)
    canvas.fill(disc(np.array([width * g.uniform(0.15, 0.85), horizon - 0.2 * unit]), 0.12 * unit), (255, 246, 214))
    _gradient(canvas, sea, lighter(sea, 0.2), horizon - 0.14 * unit, horizon)
    _gradient(canvas, (236, 212, 164), (220, 188, 138), horizon, height)
    canvas.fill(
        capsule(np.array([-5.0, horizon]), np.array([width + 5.0, horizon + 0.02 * unit]), 0.015 * unit, 0.02 * unit),
        (248, 248, 244),
    )
    if g.random() < 0.6:
        x = width * g.choice((0.1, 0.9))
        foot, top = np.array([x, horizon + 0.05 * unit]), np.array([x + 0.03 * unit, horizon - 0.6 * unit])
        canvas.fill(capsule(foot, top, 0.03 * unit, 0.02 * unit), (140, 104, 76))
        for angle in np.radians(np.linspace(-200, 20, 6)):
            tip = top + 0.26 * unit * np.array([np.cos(angle), 0.7 * np.sin(angle)])
            canvas.fill(capsule(top, tip, 0.03 * unit, 0.012 * unit), (84, 146, 92))


def _paper(
    canvas: Canvas, room: Room, g: np.random.Generator, size: tuple[int, int], horizon: float, unit: float
) -> None:
    width, height = size
    _gradient(canvas, lighter(room.wall, 0.3), room.wall, 0, height)
    step = unit * g.uniform(0.16, 0.26)
    second = mixed(room.wall, room.accent, 0.3)
    if g.random() < 0.5:
        for x in np.arange(0, width + step, step):
            canvas.fill(_box(x, 0, x + 0.5 * step, height), second)
    else:
        for row, y in enumerate(np.arange(0, height + step, step)):
            for x in np.arange(-0.5 * step * (row % 2), width + step, step):
                canvas.fill(disc(np.array([x, y]), 0.22 * step), second)
    del horizon
