"""Characters: proportions, face, clothes, hair and colours of adults, children, chibis, robots and animal-eared ones.

``random_character`` invents one from a generator; the named ones are those of the demo and of the documentation.
"""

import colorsys
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from libs.sandbox.puppets.canvas import Colour
from libs.sandbox.puppets.skeleton import Face, Proportions

Kind = Literal["adult", "child", "chibi", "robot", "cat", "rabbit", "bear", "fox"]
KINDS: tuple[Kind, ...] = ("adult", "child", "chibi", "robot", "cat", "rabbit", "bear", "fox")
ANIMALS = ("cat", "rabbit", "bear", "fox")

Hair = Literal["short", "bob", "long", "ponytail", "twintails", "bun", "spiky", "curly", "bald"]
Headwear = Literal["none", "headphones", "cap", "beanie", "bow", "band"]
Top = Literal["pullover", "tee", "vest", "hoodie", "jacket"]
Pattern = Literal["plain", "stripes", "emblem", "sash"]
Bottom = Literal["trousers", "shorts", "skirt", "dress"]
Eyes = Literal["drawn", "dots", "led"]


@dataclass(frozen=True)
class Character:
    """One character; colours are RGB."""

    kind: Kind = "adult"
    proportions: Proportions = field(default_factory=Proportions)
    face: Face = field(default_factory=Face)
    skin: Colour = (244, 208, 184)
    hair_colour: Colour = (92, 60, 48)
    eye_colour: Colour = (70, 110, 150)
    top_colour: Colour = (226, 92, 84)
    second_colour: Colour = (250, 240, 220)
    bottom_colour: Colour = (70, 84, 130)
    shoe_colour: Colour = (80, 60, 60)
    accent: Colour = (250, 200, 70)
    hair: Hair = "short"
    headwear: Headwear = "none"
    top: Top = "pullover"
    pattern: Pattern = "plain"
    bottom: Bottom = "trousers"
    eyes: Eyes = "drawn"
    glasses: bool = False
    blush: float = 0.4


_PROPORTIONS: dict[str, Proportions] = {
    "adult": Proportions(),
    "child": Proportions(
        head_height=0.25, head_width=0.225, neck=0.018, torso=0.252, shoulder_width=0.2, hip_width=0.11,
        upper_arm=0.138, forearm=0.122, hand=0.082, thigh=0.21, shank=0.205, ankle=0.045, foot=0.09, girth=1.08,
    ),
    "chibi": Proportions(
        head_height=0.4, head_width=0.38, neck=0.0, torso=0.23, shoulder_width=0.21, hip_width=0.12, upper_arm=0.12,
        forearm=0.105, hand=0.085, thigh=0.155, shank=0.15, ankle=0.05, foot=0.095, girth=1.25,
    ),
    "robot": Proportions(
        head_height=0.22, head_width=0.23, neck=0.035, torso=0.26, shoulder_width=0.25, hip_width=0.13,
        upper_arm=0.15, forearm=0.135, hand=0.085, thigh=0.21, shank=0.21, ankle=0.05, foot=0.1, girth=1.05,
    ),
    "animal": Proportions(
        head_height=0.3, head_width=0.29, neck=0.008, torso=0.25, shoulder_width=0.205, hip_width=0.12,
        upper_arm=0.132, forearm=0.118, hand=0.08, thigh=0.19, shank=0.185, ankle=0.05, foot=0.095, girth=1.16,
    ),
}  # fmt: skip

_FACES: dict[str, Face] = {
    "adult": Face(eye_u=0.4, eye_v=0.1, eye_width=0.19, eye_height=0.13),
    "child": Face(eye_u=0.43, eye_v=0.2, eye_width=0.21, eye_height=0.19, nose_v=0.46, mouth_v=0.66, brow_v=-0.14),
    "chibi": Face(
        eye_u=0.45, eye_v=0.26, eye_width=0.21, eye_height=0.22, nose_v=0.52, mouth_v=0.69, mouth_width=0.17,
        brow_v=-0.12,
    ),
    "robot": Face(eye_u=0.42, eye_v=0.02, eye_width=0.2, eye_height=0.18, nose_v=0.32, mouth_v=0.56, mouth_width=0.34),
    "animal": Face(
        eye_u=0.45, eye_v=0.16, eye_width=0.18, eye_height=0.19, nose_v=0.42, mouth_v=0.62, mouth_width=0.2,
        brow_v=-0.2,
    ),
}  # fmt: skip


def shape_name(kind: Kind) -> str:
    """Which of the basic shapes a kind has."""
    return "animal" if kind in ANIMALS else kind


def _scaled(generator: np.random.Generator, value: object, spread: float) -> dict[str, float]:
    return {name: float(number * generator.uniform(1 - spread, 1 + spread)) for name, number in vars(value).items()}


def tone(generator: np.random.Generator, brightness: tuple[float, float], saturation: tuple[float, float]) -> Colour:
    """A colour of random hue."""
    red, green, blue = colorsys.hsv_to_rgb(
        generator.uniform(), generator.uniform(*saturation), generator.uniform(*brightness)
    )
    return round(255 * red), round(255 * green), round(255 * blue)


_HAIR_STYLES: tuple[Hair, ...] = ("short", "bob", "long", "ponytail", "twintails", "bun", "spiky", "curly")
_SKINS: tuple[Colour, ...] = (
    (252, 224, 204), (244, 206, 180), (228, 180, 148), (202, 148, 112), (160, 108, 78), (112, 74, 56),
)  # fmt: skip
_FURS: tuple[Colour, ...] = (
    (250, 246, 240), (236, 190, 130), (222, 140, 84), (170, 124, 92), (120, 92, 80), (150, 150, 162), (92, 88, 100),
)  # fmt: skip
_HAIRS: tuple[Colour, ...] = (
    (46, 38, 44), (84, 56, 44), (134, 84, 50), (222, 178, 104), (176, 80, 48), (238, 232, 226), (240, 140, 170),
    (110, 150, 220), (120, 190, 150), (150, 110, 190),
)  # fmt: skip


def _varied(generator: np.random.Generator, colour: Colour, spread: float = 12.0) -> Colour:
    red, green, blue = (int(np.clip(channel + generator.normal(0, spread), 0, 255)) for channel in colour)
    return red, green, blue


def random_character(generator: np.random.Generator, kind: Kind | None = None) -> Character:
    """A character nobody has drawn before."""
    g = generator
    kind = kind or KINDS[g.choice(len(KINDS), p=(0.27, 0.17, 0.16, 0.12, 0.1, 0.07, 0.06, 0.05))]
    shape = shape_name(kind)
    lengths = _scaled(g, _PROPORTIONS[shape], 0.06)
    lengths["shoulder_width"] *= float(g.uniform(0.85, 1.08))  # people's shoulders differ more than their limbs
    proportions = Proportions(**lengths)
    face = Face(**_scaled(g, _FACES[shape], 0.06))

    def pick(*names: str) -> str:
        return names[g.integers(len(names))]

    animal, robot = kind in ANIMALS, kind == "robot"
    skin = _varied(g, (_FURS if animal else _SKINS)[g.integers(7 if animal else 6)])
    if robot:
        skin = tone(g, (0.6, 0.95), (0.03, 0.35))
    hair = _varied(g, _HAIRS[g.integers(len(_HAIRS))])
    bottom = pick("trousers", "trousers", "shorts", "skirt", "dress")
    return Character(
        kind=kind,
        proportions=proportions,
        face=face,
        skin=skin,
        hair_colour=skin if animal and g.random() < 0.6 else hair,
        eye_colour=tone(g, (0.35, 0.75), (0.4, 0.9)),
        top_colour=tone(g, (0.35, 0.98), (0.15, 0.8)),
        second_colour=tone(g, (0.75, 1.0), (0.0, 0.4)) if g.random() < 0.6 else tone(g, (0.2, 0.6), (0.2, 0.7)),
        bottom_colour=tone(g, (0.22, 0.85), (0.1, 0.65)),
        shoe_colour=tone(g, (0.2, 0.95), (0.1, 0.75)),
        accent=tone(g, (0.6, 1.0), (0.5, 0.9)),
        hair="bald" if robot else pick(*_HAIR_STYLES),  # type: ignore[arg-type]
        headwear=pick("none", "none", "none", "headphones", "cap", "beanie", "bow", "band"),  # type: ignore[arg-type]
        top=pick("pullover", "tee", "vest", "hoodie", "jacket"),  # type: ignore[arg-type]
        pattern=pick("plain", "plain", "stripes", "emblem", "sash"),  # type: ignore[arg-type]
        bottom="trousers" if robot else bottom,  # type: ignore[arg-type]
        eyes="led" if robot else pick("drawn", "drawn", "drawn", "dots"),  # type: ignore[arg-type]
        glasses=not robot and g.random() < 0.12,
        blush=float(g.choice((0.0, 0.35, 0.5))),
    )


def _shaped(kind: Kind, **changes: object) -> Character:
    shape = shape_name(kind)
    return Character(kind=kind, proportions=_PROPORTIONS[shape], face=_FACES[shape], **changes)  # type: ignore[arg-type]


NAMED: dict[str, Character] = {
    "mina": _shaped(
        "adult", skin=(246, 212, 190), hair_colour=(66, 46, 52), eye_colour=(96, 70, 54), top_colour=(246, 226, 184),
        bottom_colour=(96, 72, 80), shoe_colour=(186, 70, 66), accent=(240, 120, 100), hair="bob",
        headwear="headphones", top="pullover", second_colour=(214, 92, 84), pattern="stripes",
    ),
    "leo": _shaped(
        "adult", skin=(214, 160, 124), hair_colour=(52, 40, 38), eye_colour=(70, 60, 50), top_colour=(74, 122, 176),
        bottom_colour=(62, 66, 84), shoe_colour=(236, 236, 230), hair="short", top="jacket",
        second_colour=(240, 240, 236),
    ),
    "pip": _shaped(
        "child", skin=(250, 218, 196), hair_colour=(198, 122, 62), eye_colour=(70, 130, 90), top_colour=(250, 206, 80),
        bottom_colour=(84, 120, 176), shoe_colour=(210, 76, 70), hair="twintails", bottom="shorts", top="tee",
        pattern="emblem", second_colour=(255, 255, 250), blush=0.5,
    ),
    "momo": _shaped(
        "chibi", skin=(254, 226, 210), hair_colour=(238, 146, 172), eye_colour=(120, 80, 160),
        top_colour=(150, 190, 226), bottom_colour=(84, 92, 150), shoe_colour=(120, 80, 110), hair="ponytail",
        bottom="dress", headwear="bow", accent=(250, 210, 90), blush=0.5,
    ),
    "bolt": _shaped(
        "robot", skin=(206, 214, 222), eye_colour=(80, 220, 230), top_colour=(232, 150, 64),
        second_colour=(250, 240, 220), bottom_colour=(110, 118, 134), shoe_colour=(84, 90, 106), hair="bald",
        eyes="led", accent=(250, 96, 84), blush=0.0,
    ),
    "tabby": _shaped(
        "cat", skin=(240, 176, 108), hair_colour=(240, 176, 108), eye_colour=(90, 160, 110), top_colour=(90, 150, 140),
        bottom_colour=(92, 80, 92), shoe_colour=(236, 228, 214), second_colour=(246, 236, 214), hair="curly",
        top="hoodie", blush=0.35,
    ),
}  # fmt: skip
"""The characters of the demo and of the documentation; training never draws them."""
