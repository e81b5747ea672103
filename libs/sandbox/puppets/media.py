"""Pictures and clips of puppets without markers as files, and where every key-point was drawn.

Without arguments: Mina, who stands at ease, and Leo, who dances; training has seen neither.
"""

from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import Image

from libs.files.atomic_write import atomic_write
from libs.sandbox.media import FRAME_RATE, HEIGHT, WIDTH, write_clip
from libs.sandbox.puppets.characters import NAMED
from libs.sandbox.puppets.dances import Dance
from libs.sandbox.puppets.rooms import Room
from libs.sandbox.puppets.scenes import Camera, Scene, full_figure
from libs.sandbox.puppets.skeleton import Pose

REFERENCE = Scene(
    NAMED["mina"],
    Room("living_room", wall=(196, 214, 206), floor=(190, 160, 128), accent=(222, 150, 110), seed=4),
    full_figure(WIDTH, HEIGHT),
    WIDTH,
    HEIGHT,
)
"""Mina at home."""
DRIVER = Scene(
    NAMED["leo"],
    Room("studio", wall=(214, 208, 198), floor=(150, 150, 158), seed=2),
    full_figure(WIDTH, HEIGHT),
    WIDTH,
    HEIGHT,
)
"""Leo in a studio."""


def sized(scene: Scene, width: int, height: int, camera: Camera | None = None) -> Scene:
    """The scene in another size, seen whole unless ``camera`` says otherwise."""
    return replace(scene, width=width, height=height, camera=camera or full_figure(width, height))


def default_dance(seed: int = 0) -> Dance:
    """The dance of the demo's driver: raised arms, turning a little."""
    return Dance(seed, "disco", 1.0, 15.0)


def write_scene_picture(path: Path, scene: Scene = REFERENCE, pose: Pose | None = None) -> np.ndarray:
    """Write a PNG of the scene's character, who stands at ease if no ``pose`` is given.

    Returns:
        Where its key-points are: float64 [133, 2], pixels, pixel centres are whole numbers.
    """
    joints = scene.joints(pose or Pose())
    with atomic_write(path) as temporary:
        Image.fromarray(scene.render(joints)).save(temporary, format="PNG")
    return scene.keypoints(joints)


def write_scene_clip(
    path: Path,
    scene: Scene = DRIVER,
    *,
    seed: int = 0,
    dance: Dance | None = None,
    frame_count: int = 49,
    frame_rate: Fraction = FRAME_RATE,
    audio: bool = True,
) -> np.ndarray:
    """Write an mp4 (H.264, BT.709, AAC) of the scene's character dancing.

    Args:
        path: the file to write; replaced in one step.
        scene: who dances, and where.
        seed: of the default dance, and of the sound.
        dance: another one.
        frame_count: length in frames.
        frame_rate: exact, frames per second.
        audio: False leaves the sound track out.

    Returns:
        Where the key-points are in each frame: float64 [frame_count, 133, 2], pixels.
    """
    dance = dance or default_dance(seed)
    joints = [scene.joints(dance.pose(index / float(frame_rate))) for index in range(frame_count)]
    pictures = (scene.render(one) for one in joints)
    seconds = float(frame_count / frame_rate) if audio else None
    write_clip(path, pictures, scene.width, scene.height, frame_rate, seconds, seed)
    return np.array([scene.keypoints(one) for one in joints])
