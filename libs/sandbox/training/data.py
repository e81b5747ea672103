"""Training clips: a reference picture and a few frames of its character dancing, with what a pose stage would find.

Every clip follows from its split and number alone, so that any part of the data can be made again. The splits draw
from different random streams; the named characters of the demo are in none of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal, Self

import cv2
import numpy as np

from libs.files.atomic_write import atomic_write
from libs.pose.fitting.align_reference import align_to_reference
from libs.pose.record import PoseRecord, record_of
from libs.pose.track import PoseTrack
from libs.sandbox.puppets.characters import Character, random_character
from libs.sandbox.puppets.dances import Dance, random_dance
from libs.sandbox.puppets.rooms import random_room
from libs.sandbox.puppets.scenes import LIGHTS, Camera, Scene, full_figure, inside
from libs.sandbox.puppets.skeleton import HeadView, Joints, Pose

Split = Literal["training", "held_back"]
SPLITS: dict[str, int] = {"training": 1, "held_back": 2}
FRAME_RATE = 24.0
LIGHT_NAMES = tuple(LIGHTS)


@dataclass(frozen=True)
class Shape:
    """Of the clips of a shard: height and width in pixels, frames without the reference, clips."""

    height: int
    width: int
    frames: int = 9
    clips: int = 100

    @property
    def name(self) -> str:
        """Part of a shard's name."""
        return f"{self.height}x{self.width}x{self.frames}"


UPRIGHT, SQUARE, LYING = Shape(160, 128), Shape(128, 128), Shape(128, 160)
LONG = Shape(160, 128, frames=33, clips=25)
WHOLE = Shape(160, 128, frames=81, clips=10)
"""A chunk of the usual length."""


@dataclass(frozen=True, eq=False)
class Clips:
    """N clips; frame 0 of each is the reference picture, the others are T consecutive frames.

    Attributes:
        frames: [N, 1 + T, H, W, 3] uint8 RGB.
        points: [N, 1 + T, 128, 3] float32; the drawable record: 18 body joints, 42 hand points, 68 face points, each
            x, y in parts of the picture, and score.
        keypoints: [N, 1 + T, 133, 2] float32, where the points really are, in pixels.
        light: [N] index into ``LIGHT_NAMES`` of the clip's light; references are in neutral light.
    """

    frames: np.ndarray
    points: np.ndarray
    keypoints: np.ndarray
    light: np.ndarray

    def save(self, path: Path) -> None:
        """Write an uncompressed ``.npz``."""
        with atomic_write(path) as temporary, temporary.open("wb") as file:
            np.savez(file, **{field.name: getattr(self, field.name) for field in fields(self)})

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what :meth:`save` wrote."""
        with np.load(path) as arrays:
            return cls(**{field.name: arrays[field.name] for field in fields(cls)})


def shard_path(folder: Path, split: Split, shape: Shape, index: int) -> Path:
    """Where a shard lies."""
    return folder / f"{split}-{shape.name}-{index:03}.npz"


def make_shards(folder: Path, split: Split, shape: Shape, shards: int) -> Iterator[Path]:
    """Write the shards that are not there yet, yielding each."""
    cv2.setNumThreads(1)
    folder.mkdir(parents=True, exist_ok=True)
    for index in range(shards):
        path = shard_path(folder, split, shape, index)
        if not path.exists():
            numbers = range(index * shape.clips, (index + 1) * shape.clips)
            made = [make_clip(split, number, (shape.height, shape.width), shape.frames) for number in numbers]
            Clips(*(np.stack([getattr(clip, field.name) for clip in made]) for field in fields(Clips))).save(path)
        yield path


def make_clip(split: Split, number: int, size: tuple[int, int], frames: int = 9) -> Clips:
    """One clip (arrays without the leading N)."""
    g = np.random.default_rng([SPLITS[split], *size, number])
    height, width = size
    character = random_character(g)
    scene = Scene(character, random_room(g), _camera(g, width, height, character), width, height)
    reference = scene.joints(_reference_pose(g))
    start = g.uniform(0, 8)
    times = start + np.arange(frames) / FRAME_RATE * g.choice(
        (1.0, 1.0, 1.6, 2.4)
    )  # people are often quicker than a puppet at leisure
    dance = random_dance(g)
    reference_points = scene.keypoints(reference)
    reference_track = _track(g, reference_points[None], width, height)
    retargeted = None
    if g.random() < 0.45:
        retargeted = _retargeted(g, scene, reference_track, dance, times)
    if retargeted is None:
        joints = [scene.joints(dance.pose(time)) for time in times]
        keypoints = np.stack([scene.keypoints(one) for one in joints])
        record = record_of(_track(g, keypoints, width, height))
    else:
        joints, record = retargeted
        keypoints = np.stack([scene.keypoints(one) for one in joints])
    light = LIGHT_NAMES[g.integers(1, len(LIGHT_NAMES))] if g.random() < 0.25 else "neutral"
    shown = Scene(character, scene.room, scene.camera, width, height, light)
    return Clips(
        frames=np.stack([scene.render(reference), *(shown.render(one) for one in joints)]),
        points=np.concatenate([_points(record_of(reference_track)), _points(record)]),
        keypoints=np.concatenate([reference_points[None], keypoints]).astype(np.float32),
        light=np.array(LIGHT_NAMES.index(light), np.int64),
    )


def _camera(g: np.random.Generator, width: int, height: int, character: Character) -> Camera:
    base = full_figure(width, height)
    if g.random() < 0.72:
        tall = base.height * g.uniform(0.84, 1.04)
        return Camera(
            tall, (base.ground[0] + g.normal(0, 0.04) * width, base.ground[1] + g.uniform(-0.04, 0.03) * height)
        )
    zoom = g.uniform(1.2, 1.2 + 1.0 * (1 - 1.6 * character.proportions.head_height))
    tall = base.height * zoom
    return Camera(tall, (base.ground[0] + g.normal(0, 0.04) * width, g.uniform(0.08, 0.15) * height + tall))


def _reference_pose(g: np.random.Generator) -> Pose:
    if g.random() < 0.4:
        return random_dance(g).pose(g.uniform(0, 8))
    return Dance(int(g.integers(1 << 30)), "sway", 0.3, 5.0).pose(g.uniform(0, 8)) if g.random() < 0.5 else Pose()


def _retargeted(
    g: np.random.Generator, scene: Scene, reference: PoseTrack, dance: Dance, times: np.ndarray
) -> tuple[list[Joints], PoseRecord] | None:
    """Another character's dance, fitted to this one by the product's own code; None where it does not fit."""
    driver = random_character(g)
    height, width = scene.height, scene.width
    base = full_figure(width, height)
    cut_off = scene.camera.height > 1.1 * base.height
    camera = scene.camera if cut_off else Camera(base.height * g.uniform(0.75, 1.0), base.ground)
    seen = Scene(driver, scene.room, camera, width, height)
    original = [seen.joints(dance.pose(time)) for time in times]
    track = _track(g, np.stack([seen.keypoints(one) for one in original]), width, height)
    record = align_to_reference(reference, track, 0, first_frame_apart=False)
    scale = scene.camera.height / camera.height
    pixels = record.body * (width, height)
    if not np.isfinite(pixels).all() or np.abs(pixels).max() > 4 * height:
        return None
    return [
        fitted_joints(one, pixels[index], record.hands[index] * (width, height), scale)
        for index, one in enumerate(original)
    ], record


def fitted_joints(original: Joints, body: np.ndarray, hands: np.ndarray, scale: float) -> Joints:
    """The joints of a figure whose body points [20, 2] and hands [left, right] were moved by retargeting."""
    rows = {
        "right_shoulder": 2, "right_elbow": 3, "right_wrist": 4, "left_shoulder": 5, "left_elbow": 6, "left_wrist": 7,
        "right_hip": 8, "right_knee": 9, "right_ankle": 10, "left_hip": 11, "left_knee": 12, "left_ankle": 13,
    }  # fmt: skip
    points = {name: body[row] for name, row in rows.items()}
    for side, toe in (("left", 18), ("right", 19)):
        points[f"{side}_toe"] = body[toe]
        heel = original.body[f"{side}_heel"] - original.body[f"{side}_ankle"]
        points[f"{side}_heel"] = points[f"{side}_ankle"] + scale * heel
        points[f"{side}_middle_tip"] = hands[0 if side == "left" else 1][12]
    view = original.head
    head = HeadView((body[14] + body[15]) / 2, view.yaw, view.pitch, view.roll, view.mouth, view.smile, view.blink)
    depth = {name: scale * value for name, value in original.depth.items()}
    return Joints(points, depth, {"left": hands[0], "right": hands[1]}, head, original.yaw)


def _track(g: np.random.Generator, keypoints: np.ndarray, width: int, height: int) -> PoseTrack:
    """What an estimator would find of key-points [T, 133, 2]: scores, jitter, points lost at the border."""
    frames = len(keypoints)
    points = np.empty((frames, 133, 3), np.float32)
    jitter = float(g.choice((0.0, 0.3, 0.7), p=(0.4, 0.45, 0.15)))
    points[..., :2] = keypoints + g.normal(0, 1, (frames, 133, 2)) * jitter
    level = g.uniform(0.78, 0.98)
    scores = np.clip(level + g.normal(0, 0.04, 133) + g.normal(0, 0.015, (frames, 133)), 0.55, 1.05)
    visible = inside(keypoints, width, height)
    lost = g.uniform(0.0, 0.22, (frames, 133))
    points[..., 2] = np.where(visible, scores, lost)
    limits = np.array([width - 1, height - 1])
    clamped = np.clip(points[..., :2], 0, limits)
    points[..., :2] = np.where(visible[..., None], points[..., :2], clamped)
    if g.random() < 0.06:  # a point that is not found for the whole clip
        points[:, 5 + g.integers(12), 2] = 0.0
    return PoseTrack.from_wholebody(points, width, height)


def _points(record: PoseRecord) -> np.ndarray:
    frames = len(record)
    score = np.where(record.body_present[:, :18], record.body_score[:, :18], 0.0)
    parts = (
        (record.body[:, :18], score),
        (record.hands.reshape(frames, 42, 2), record.hands_score.reshape(frames, 42)),
        (record.face, record.face_score),
    )
    return np.concatenate([np.concatenate([xy, s[..., None]], axis=-1) for xy, s in parts], axis=1).astype(np.float32)


def drawable(points: np.ndarray) -> PoseRecord:
    """The record of stored ``points`` [T, 128, 3]."""
    body, hands, face = points[:, :18], points[:, 18:60], points[:, 60:]
    frames = len(points)
    return PoseRecord(
        body=body[..., :2],
        body_score=body[..., 2],
        body_present=body[..., 2] > 0,
        hands=hands[..., :2].reshape(frames, 2, 21, 2),
        hands_score=hands[..., 2].reshape(frames, 2, 21),
        face=face[..., :2],
        face_score=face[..., 2],
    )


def shard_frames(folder: Path, split: Split, shape: Shape | None = None) -> list[np.ndarray]:
    """The frames of all shards that are there (of one shape, if given), each [N, 1 + T, H, W, 3].

    Raises:
        FileNotFoundError: there are none.
    """
    paths = sorted(folder.glob(f"{split}-{shape.name if shape else '*'}-*.npz"))
    if not paths:
        raise FileNotFoundError(f"{folder}: holds no {split} clips; run `python -m libs.sandbox.training data` first")
    return [Clips.load(path).frames for path in paths]
