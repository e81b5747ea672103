"""What the trained networks that are committed can do, by the product's own engine and decoding, on unseen puppets.

What they should reach and do not yet is an expected failure that names the measured value.
"""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import onnxruntime
import pytest
import torch

from libs.one_to_all.engine import AnimationEngine
from libs.one_to_all.events import AnimationInputs, FramesReady
from libs.one_to_all.options import SamplingOptions
from libs.pose.draw import DrawingStyle, draw_pose
from libs.pose.fitting.framing import resize_crop_drawing
from libs.pose.record import record_of
from libs.pose.track import PoseTrack
from libs.sandbox.networks import TrainedNetworks
from libs.sandbox.puppets.characters import NAMED
from libs.sandbox.puppets.dances import Dance
from libs.sandbox.puppets.rooms import Room
from libs.sandbox.puppets.scenes import Scene, full_figure
from libs.sandbox.puppets.skeleton import Pose
from libs.sandbox.repository import write_sandbox_repository
from libs.sandbox.sizes import NETWORK
from libs.sandbox.trained import WEIGHTS, kept_file, kept_networks
from libs.sandbox.training.pose import held_back_pictures, judge_detector, judge_pose, pose_sample
from libs.sandbox.training.pose_pictures import drawn_picture, random_picture

HEIGHT, WIDTH, FRAMES = 160, 128, 5
ROOM = Room("studio", wall=(196, 214, 206), floor=(190, 160, 128), accent=(222, 150, 110), seed=4)
RAISED = Dance(5, "disco", 1.0, 0.0)
LOWERED = Dance(7, "sway", 0.3, 0.0)


@dataclass(frozen=True)
class Animation:
    """A character that dances: the truth, and what the engine is asked for."""

    character: str
    dance: Dance

    @cached_property
    def scene(self) -> Scene:
        return Scene(NAMED[self.character], ROOM, full_figure(WIDTH, HEIGHT), WIDTH, HEIGHT)

    @cached_property
    def joints(self):
        return [self.scene.joints(self.dance.pose(1.0 + index / 24)) for index in range(FRAMES)]

    @cached_property
    def true_frames(self) -> np.ndarray:
        return np.stack([self.scene.render(one) for one in self.joints]).astype(float)

    @cached_property
    def drawings(self) -> np.ndarray:
        return _drawn(np.stack([self.scene.keypoints(one) for one in self.joints]), DrawingStyle())

    @cached_property
    def inputs(self) -> AnimationInputs:
        standing = self.scene.joints(Pose())
        return AnimationInputs(
            image=self.scene.render(standing),
            mask=np.zeros((HEIGHT, WIDTH), np.uint8),
            reference_pose=_drawn(self.scene.keypoints(standing)[None], DrawingStyle(face="none"))[0],
            frame_count=FRAMES,
            poses=lambda start, stop: self.drawings[start:stop],
        )

    def trunk(self, frames: np.ndarray) -> np.ndarray:
        """Mean colour between shoulders and hips."""
        points = np.stack([self.scene.keypoints(one) for one in self.joints])[:, [5, 6, 11, 12]]
        (left, top), (right, bottom) = np.rint(points.min(axis=(0, 1)) + 3), np.rint(points.max(axis=(0, 1)) - 3)
        return frames[:, int(top) : int(bottom), int(left) : int(right)].mean(axis=(0, 1, 2))


def _drawn(keypoints: np.ndarray, style: DrawingStyle) -> np.ndarray:
    points = np.concatenate([keypoints, np.ones((*keypoints.shape[:2], 1))], axis=-1).astype(np.float32)
    record = record_of(PoseTrack.from_wholebody(points, WIDTH, HEIGHT))
    large = (round(2.25 * HEIGHT), round(2.25 * WIDTH))
    drawn = (draw_pose(record, frame, *large, style) for frame in range(len(record)))
    return np.stack([resize_crop_drawing(one, HEIGHT, WIDTH) for one in drawn])


MINA, MINA_AT_EASE, LEO = Animation("mina", RAISED), Animation("mina", LOWERED), Animation("leo", RAISED)


@pytest.fixture(scope="module")
def engine(sandbox_layout, tmp_path_factory) -> AnimationEngine:
    root = tmp_path_factory.mktemp("kept") / "sandbox"
    pretrained = root / "pretrained_models"
    layout = replace(
        sandbox_layout,
        variant=replace(sandbox_layout.variant, network=NETWORK),
        root=root,
        pretrained=pretrained,
        wan=pretrained / sandbox_layout.variant.wan_folder,
    )
    write_sandbox_repository(layout, networks=TrainedNetworks())
    return AnimationEngine.load(layout, "cpu")


@pytest.fixture(scope="module")
def clip(engine):
    """The frames that the engine makes; the same ones are made once."""
    made = {}

    def frames(animation: Animation, prompt: str = "a puppet dances", image: float = 1.0, pose: float = 1.0):
        key = (animation, prompt, image, pose)
        if key not in made:
            options = SamplingOptions(prompt, "", 4, image, pose, seed=3)
            events = engine.animate(animation.inputs, options)
            made[key] = np.concatenate([one.frames for one in events if isinstance(one, FramesReady)]).astype(float)
        return made[key]

    return frames


def distance(one: np.ndarray, other: np.ndarray) -> float:
    """Root mean square, in levels."""
    return float(np.sqrt(np.mean((one - other) ** 2)))


@pytest.mark.slow
def test_the_clip_shows_the_character_of_its_reference(clip):
    for animation, other in ((MINA, LEO), (LEO, MINA)):
        found = animation.trunk(clip(animation))
        own, wrong = (np.abs(found - one.trunk(one.true_frames)).max() for one in (animation, other))
        assert own < 0.5 * wrong


@pytest.mark.slow
@pytest.mark.xfail(strict=True, reason="21.4 levels from its own dance, 22.6 from the other, after 2,520 steps")
def test_the_clip_follows_its_own_poses(clip):
    for animation, other in ((MINA, MINA_AT_EASE), (MINA_AT_EASE, MINA)):
        own, wrong = (distance(clip(animation), one.true_frames) for one in (animation, other))
        assert own < 0.9 * wrong


@pytest.mark.slow
def test_another_dance_leaves_the_room_alone(clip):
    corner = (slice(None), slice(0, 24), slice(0, 24))
    changed = np.abs(clip(MINA) - clip(MINA_AT_EASE))
    assert changed[corner].mean() < 0.25 * changed.mean()


@pytest.mark.slow
def test_stronger_pose_guidance_sets_two_dances_further_apart(clip):
    weak, strong = (
        distance(clip(MINA, image=1.2, pose=pose), clip(MINA_AT_EASE, image=1.2, pose=pose)) for pose in (1.1, 2.0)
    )
    assert strong > 1.1 * weak


@pytest.mark.slow
def test_a_prompt_of_red_light_reddens_the_clip(clip):
    redness = [
        (frames[..., 0] - frames[..., 2]).mean()
        for frames in (clip(MINA, "a puppet dances"), clip(MINA, "a puppet dances, red light"))
    ]
    assert redness[1] > redness[0] + 5


@pytest.fixture(scope="module")
def pose_figures():
    """Of 48 held-back pictures, as training measures them, with the exported file."""
    session = onnxruntime.InferenceSession(kept_file(WEIGHTS, "pose"))
    samples = [pose_sample(g, picture) for g, picture in held_back_pictures(48, drawn_picture)]
    return judge_pose(lambda crops: torch.from_numpy(session.run(None, {"input": crops.numpy()})[0]), samples)


@pytest.fixture(scope="module")
def found_figures():
    """Of 64 held-back degraded and crowded pictures."""
    session = onnxruntime.InferenceSession(kept_file(WEIGHTS, "detector"))
    pictures = [picture for _, picture in held_back_pictures(64, random_picture)]
    return judge_detector(lambda image: torch.from_numpy(session.run(None, {"images": image.numpy()})[0]), pictures)


@pytest.mark.slow
def test_the_lock_says_what_the_pose_networks_do(pose_figures, found_figures):
    lock = kept_networks(WEIGHTS)
    for name, figures in (("pose", pose_figures), ("detector", found_figures)):
        for figure, value in figures.items():
            assert value == pytest.approx(lock[name]["figures"][figure], abs=0.02), f"{name}: {figure}"


@pytest.mark.slow
@pytest.mark.xfail(strict=True, reason="body 0.39, feet 0.62, face 0.65, hands 0.26 after 800 of some thousand steps")
def test_joints_are_found_within_two_pixels(pose_figures):
    assert min(pose_figures[f"pck_{part}"] for part in ("body", "feet", "face")) >= 0.9


@pytest.mark.slow
@pytest.mark.xfail(strict=True, reason="0.48 of the figures after 600 steps")
def test_nearly_every_figure_is_found(found_figures):
    assert found_figures["found"] >= 0.95
