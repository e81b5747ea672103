"""A scene: a character in a room, seen by a camera, in some light. Renders pictures and knows every key-point."""

from collections import OrderedDict
from dataclasses import dataclass, field, replace

import numpy as np

from libs.sandbox.puppets.canvas import Canvas, ellipse
from libs.sandbox.puppets.characters import Character
from libs.sandbox.puppets.figure import draw_figure
from libs.sandbox.puppets.rooms import Room, paint_room
from libs.sandbox.puppets.skeleton import Joints, Pose, pose_joints, wholebody_keypoints

_CANVAS_SCALE = 2.25

LIGHTS: dict[str, tuple[float, float, float]] = {
    "neutral": (1.0, 1.0, 1.0),
    "warm": (1.12, 0.94, 0.7),
    "cold": (0.76, 0.95, 1.18),
    "red": (1.2, 0.58, 0.54),
    "green": (0.62, 1.12, 0.62),
    "purple": (0.95, 0.62, 1.2),
    "dark": (0.46, 0.5, 0.66),
}
"""Factors of red, green and blue; a prompt that says "… light" (``dark``: "at night") means one of them."""


@dataclass(frozen=True)
class Camera:
    """Standing height in pixels, and where the soles stand (x, y in pixels)."""

    height: float
    ground: tuple[float, float]


def full_figure(width: int, height: int, fill: float = 0.86) -> Camera:
    """The whole figure, with room for raised arms."""
    tall = min(fill * height, 1.06 * width)
    return Camera(tall, ((width - 1) / 2, height / 2 + 0.5 * tall))


def close_up(width: int, height: int, zoom: float = 1.9) -> Camera:
    """The figure from the hips up."""
    base = full_figure(width, height)
    tall = base.height * zoom
    return Camera(tall, (base.ground[0], 0.12 * height + tall))


@dataclass(frozen=True)
class Scene:
    """What a picture shows. ``others`` stand beside the main character: (character, shift in heights)."""

    character: Character
    room: Room
    camera: Camera
    width: int = 128
    height: int = 160
    light: str = "neutral"
    others: tuple[tuple[Character, float], ...] = field(default=())

    def joints(self, pose: Pose, camera: Camera | None = None, character: Character | None = None) -> Joints:
        """Where the joints are in ``pose``."""
        camera, character = camera or self.camera, character or self.character
        return pose_joints(character.proportions, character.face, pose, camera.height, camera.ground)

    def keypoints(self, joints: Joints, character: Character | None = None) -> np.ndarray:
        """The 133 key-points [133, 2] in pixels."""
        character = character or self.character
        return wholebody_keypoints(character.proportions, character.face, joints, self.camera.height)

    def render(self, joints: Joints | None, other_poses: tuple[Pose, ...] = ()) -> np.ndarray:
        """The picture, uint8 RGB [height, width, 3]; without ``joints`` the empty room."""
        canvas = Canvas(_background(self).copy(), _CANVAS_SCALE)
        figures = [(self.others[index][0], self._other_joints(index, pose)) for index, pose in enumerate(other_poses)]
        if joints is not None:
            figures.append((self.character, joints))
        for character, figure in figures:
            self._shadow(canvas, figure)
            draw_figure(canvas, character, figure, self.camera.height)
        return lit(canvas.reduced(self.width, self.height), self.light)

    def other_keypoints(self, index: int, pose: Pose) -> np.ndarray:
        """The 133 key-points [133, 2] of one of the others."""
        return self.keypoints(self._other_joints(index, pose), self.others[index][0])

    def _other_joints(self, index: int, pose: Pose) -> Joints:
        character, shift = self.others[index]
        x, y = self.camera.ground
        ground = (x + shift * self.camera.height, y - 0.02 * self.camera.height)
        return self.joints(pose, replace(self.camera, ground=ground), character)

    def _shadow(self, canvas: Canvas, joints: Joints) -> None:
        feet = np.stack([joints.body["left_heel"], joints.body["right_heel"]])
        centre = np.array([feet[:, 0].mean(), self.camera.ground[1] - 0.01 * self.camera.height])
        spread = abs(feet[0, 0] - feet[1, 0]) / 2
        for share, strength in ((1.25, 0.14), (0.95, 0.16)):
            outline = ellipse(centre, share * (spread + 0.11 * self.camera.height), share * 0.028 * self.camera.height)
            canvas.tint(outline, (30, 24, 40), strength)


def lit(picture: np.ndarray, light: str) -> np.ndarray:
    """The picture in another light."""
    if light == "neutral":
        return picture
    factors = np.array(LIGHTS[light], np.float32)
    values = picture.astype(np.float32) * factors
    return np.rint(np.where(values > 235, 235 + 20 * np.tanh((values - 235) / 20), values)).astype(np.uint8)


_backgrounds: OrderedDict[tuple[Room, Camera, int, int], np.ndarray] = OrderedDict()


def _background(scene: Scene) -> np.ndarray:
    """The painted room, remembered for the next frames."""
    key = (scene.room, scene.camera, scene.width, scene.height)
    if key not in _backgrounds:
        horizon = scene.camera.ground[1] - 0.1 * scene.camera.height
        _backgrounds[key] = paint_room(
            scene.room, scene.width, scene.height, _CANVAS_SCALE, horizon, scene.camera.height
        )
        while len(_backgrounds) > 4:
            _backgrounds.popitem(last=False)
    else:
        _backgrounds.move_to_end(key)
    return _backgrounds[key]


def inside(points: np.ndarray, width: int, height: int) -> np.ndarray:
    """Which points [..., 2] lie in the picture."""
    low_enough, high_enough = points < np.array([width, height]) - 0.5, points >= -0.5
    return np.all(low_enough & high_enough, axis=-1)
