"""Pictures of puppets for the detector and the pose network: any size, blurred, noisy, cut off, crowded, empty."""

from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np

from libs.sandbox.puppets.characters import Character, random_character
from libs.sandbox.puppets.dances import random_dance
from libs.sandbox.puppets.rooms import random_room
from libs.sandbox.puppets.scenes import LIGHTS, Camera, Scene, full_figure, inside

_SIZES = ((160, 128), (160, 128), (384, 288), (288, 384), (320, 320), (200, 112))
_EMPTY_SHARE = 0.06
_CROWDED_SHARE = 0.15
_FOREIGN_SHARE = 0.12


@dataclass(frozen=True, eq=False)
class Picture:
    """uint8 RGB [H, W, 3], and the key-points [133, 2] in pixels of each figure, the main one last."""

    pixels: np.ndarray
    figures: tuple[np.ndarray, ...]


class PicturePool:
    """Pictures to learn from: each is drawn once, and degraded anew each time it is used, four times on average.

    Args:
        g: draws them.
        size: pictures to remember; the oldest go first.
    """

    _USES = 4

    def __init__(self, g: np.random.Generator, size: int = 384) -> None:
        self._g = g
        self._drawn: deque[Picture] = deque(maxlen=size)

    def take(self, count: int) -> list[Picture]:
        """Some new ones, some that were used before."""
        new = count if len(self._drawn) < 4 * count else max(1, count // self._USES)
        self._drawn.extend(self._draw() for _ in range(new))
        chosen = self._g.choice(len(self._drawn), min(count, len(self._drawn)), replace=False)
        return [degraded_picture(self._g, self._drawn[index]) for index in chosen]

    def _draw(self) -> Picture:
        return foreign_picture(self._g) if self._g.random() < _FOREIGN_SHARE else drawn_picture(self._g)


def random_picture(g: np.random.Generator) -> Picture:
    """A picture nobody has seen before, degraded."""
    return degraded_picture(g, drawn_picture(g))


def degraded_picture(g: np.random.Generator, picture: Picture) -> Picture:
    """The same scene as a camera or a decoder might show it."""
    return Picture(degraded(g, picture.pixels), picture.figures)


def drawn_picture(g: np.random.Generator) -> Picture:
    """A picture nobody has seen before."""
    height, width = _SIZES[int(g.integers(len(_SIZES)))]
    scene = Scene(random_character(g), random_room(g), _camera(g, width, height), width, height)
    light = str(g.choice(list(LIGHTS))) if g.random() < 0.25 else "neutral"
    others: tuple[tuple[Character, float], ...] = ()
    if g.random() < _CROWDED_SHARE:
        others = ((random_character(g), float(g.choice((-1, 1)) * g.uniform(0.35, 0.6))),)
    scene = Scene(scene.character, scene.room, scene.camera, width, height, light, others)
    pose = random_dance(g).pose(g.uniform(0, 8))
    other_poses = tuple(random_dance(g).pose(g.uniform(0, 8)) for _ in others)
    joints = scene.joints(pose)
    if g.random() < _EMPTY_SHARE:
        return Picture(scene.render(None), ())
    figures = [scene.other_keypoints(index, one) for index, one in enumerate(other_poses)]
    return Picture(scene.render(joints, other_poses), (*figures, scene.keypoints(joints)))


def foreign_picture(g: np.random.Generator) -> Picture:
    """A picture of no puppet: textures like a photograph's, and heaps of shaded blobs where a figure might stand.

    Networks that have seen nothing but puppets take whatever stands in a photograph for one.
    """
    height, width = _SIZES[int(g.integers(len(_SIZES)))]
    pixels = _texture(g, height, width)
    for _ in range(int(g.integers(0, 14))):
        middle = g.normal((0.5, 0.5), (0.16, 0.24)) * (width, height)
        axes = g.uniform(0.02, 0.2, 2) * height
        mask = np.zeros((height, width), np.uint8)
        shape = (tuple(map(int, middle)), tuple(int(axis) + 1 for axis in axes), float(g.uniform(0, 180)), 0.0, 360.0)
        cv2.ellipse(mask, *shape, 255, -1)
        soft = cv2.GaussianBlur(mask, (0, 0), max(0.4, g.uniform(0, 0.02) * height))[..., None] / np.float32(255)
        pixels = pixels * (1 - soft) + soft * _texture(g, height, width, even=g.random() < 0.5)
    return Picture(np.clip(pixels, 0, 255).astype(np.uint8), ())


def _texture(g: np.random.Generator, height: int, width: int, even: bool = False) -> np.ndarray:
    """A colour with noise of several coarsenesses, float32 [H, W, 3]; little of it if ``even``."""
    pixels = np.broadcast_to(g.uniform(10, 245, 3).astype(np.float32), (height, width, 3)).copy()
    for cells in (2, 5, 12, 30):
        strength = g.uniform(0, 12 if even else 40)
        coarse = g.normal(0, strength, (cells, cells, 3)).astype(np.float32)
        grey = coarse.mean(axis=2, keepdims=True) * 1.7
        share = np.float32(g.uniform(0, 1))
        pixels += cv2.resize(share * coarse + (1 - share) * grey, (width, height), interpolation=cv2.INTER_CUBIC)
    return pixels


def _camera(g: np.random.Generator, width: int, height: int) -> Camera:
    base = full_figure(width, height)
    x = base.ground[0] + g.normal(0, 0.08) * width
    if g.random() < 0.65:
        tall = base.height * g.uniform(0.55, 1.05)
        return Camera(tall, (x, base.ground[1] + g.uniform(-0.12, 0.05) * height))
    tall = base.height * g.uniform(1.2, 2.1)
    return Camera(tall, (x, g.uniform(0.02, 0.2) * height + tall))


def degraded(g: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """What cameras, codecs and decoders do to a picture."""
    scale = min(pixels.shape[:2]) / 128
    if g.random() < 0.6:
        pixels = cv2.GaussianBlur(pixels, (0, 0), max(0.1, scale * g.uniform(0.0, 2.2)))
    if g.random() < 0.3:
        quality = int(g.integers(25, 90))
        encoded = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
        pixels = np.asarray(cv2.imdecode(encoded, cv2.IMREAD_COLOR))
    values = pixels.astype(np.float32)
    if g.random() < 0.5:
        values = values * g.uniform(0.75, 1.2, 3).astype(np.float32) + np.float32(g.uniform(-20, 20))
    if g.random() < 0.4:
        values += g.normal(0, g.uniform(1, 10), values.shape).astype(np.float32)
    return np.clip(values, 0, 255).astype(np.uint8)


def figure_box(keypoints: np.ndarray, width: int, height: int) -> np.ndarray | None:
    """The box x1, y1, x2, y2 around what can be seen of a figure; None where nothing can."""
    seen = keypoints[inside(keypoints, width, height)]
    if len(seen) < 8:
        return None
    low, high = keypoints.min(axis=0), keypoints.max(axis=0)
    head = np.ptp(keypoints[23:91, 1])
    low, high = low - np.array([0.12, 0.75]) * head, high + np.array([0.12, 0.15]) * head
    limit = np.array([width, height], float)
    return np.concatenate([np.clip(low, 0, limit), np.clip(high, 0, limit)])
