"""The pictures of docs/requests.md, what each field of a request does to the puppet: ``make pictures``.

Every picture comes from requests that go through the real stages with the sandbox's networks: parsed, media fetched
from an inbox, key-points found, poses fitted and drawn. Only tiles, captions and bolder lines are added here. What does
not belong here: pictures of the UI (``make screenshots``).
"""

import argparse
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from fractions import Fraction
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
from PIL import Image

from libs.files.atomic_write import atomic_write
from libs.media.pictures.image import read_image
from libs.media.previews.tiles import Frame, below, beside, caption_bar, scaled_to_height
from libs.media.video.reader import read_frames
from libs.model_repo.layout import layout_of
from libs.one_to_all.engine import AnimationEngine
from libs.one_to_all.events import AnimationInputs, FramesReady
from libs.one_to_all.sampling.chunk_plan import DEFAULT_CHUNK_LENGTHS
from libs.pose.conditioning import PoseConditioning
from libs.pose.fitting.mode_choice import ModeChoice
from libs.requests.documents.animation_request import ResolvedRequest, parse_request
from libs.requests.inbox.inbox import Inbox
from libs.sandbox.media import write_puppet_clip, write_puppet_picture
from libs.sandbox.puppet import REFERENCE, Framing
from libs.sandbox.repository import write_sandbox_repository
from libs.sandbox.skeleton import Proportions
from libs.settings import load_settings
from libs.stages.clip.sampling import sampling_options
from libs.stages.poses.chosen_networks import load_estimator
from libs.stages.poses.pose_conditioning import RequestedPoseOptions, condition_poses
from libs.stages.poses.pose_tracks import sources_of, track_poses
from libs.stages.poses.shared_pose_tracks import SharedPoseTracks
from libs.stages.request.request_media import RequestMedia, fetch_request_media
from libs.storage.artifacts import ArtifactStore
from libs.storage.backends.folder import FolderObjectStore
from libs.storage.backends.sha256 import sha256_of_file

FOLDER = Path(__file__).resolve().parent / "requests"

WIDTH, HEIGHT = 288, 384
FRAMES = 13
SHOWN = 12  # of those: one hand up, the other out
CHILD = Proportions(
    head_height=0.3, head_width=0.26, torso=0.25, shoulder_width=0.22, hip_width=0.12, upper_arm=0.12, forearm=0.11,
    hand=0.075, thigh=0.16, shank=0.15,
)  # fmt: skip
CHOSEN = (255, 200, 60)
"""The colour around what ``auto`` chose."""


class Studio:
    """An inbox with puppets, the sandbox's networks, and the stages; all in one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        objects = FolderObjectStore(folder / "store")
        self._inbox = Inbox(objects)
        self._tracks = SharedPoseTracks(ArtifactStore(objects, folder / "cache"))
        self._layout = layout_of("sandbox", load_settings().changed(models_dir=str(folder / "models")))
        write_sandbox_repository(self._layout)
        media = self._new_folder()
        write_puppet_picture(media / "puppet.png", width=WIDTH, height=HEIGHT)
        write_puppet_picture(media / "child.png", puppet=replace(REFERENCE, proportions=CHILD))
        write_puppet_picture(media / "large.png", width=720, height=960)
        slow, far = Fraction(8), Framing(0.5 * HEIGHT, (0.36 * WIDTH, 0.6 * HEIGHT))
        write_puppet_clip(media / "dance.mp4", frame_count=FRAMES, frame_rate=slow)
        write_puppet_clip(media / "far-away.mp4", frame_count=FRAMES, frame_rate=slow, framing=far)
        write_puppet_clip(media / "full-rate.mp4", frame_count=48)
        write_puppet_clip(media / "still.mp4", frame_count=1)
        self._inbox.put_folder(media)

    def request(self, **fields: Any) -> ResolvedRequest:
        """A request as a person writes it, parsed, with its defaults written out."""
        document = {"id": "picture", "reference": "puppet.png", "driver": "dance.mp4", "model": "14b", **fields}
        return parse_request(json.dumps(document), source="picture").resolve("sandbox")

    def media(self, **fields: Any) -> RequestMedia:
        """The request's media, out of the inbox."""
        return fetch_request_media(self._inbox, self.request(**fields), self._new_folder())

    def poses(self, **fields: Any) -> tuple[PoseConditioning, ModeChoice]:
        """Key-points found and poses fitted, as the assets do it."""
        request, media, tracks = self.request(**fields), self.media(**fields), self._new_folder()
        digests = {path.name: sha256_of_file(path) for path in (media.reference, media.driver)}
        sources = sources_of(media, digests, networks="sandbox", code="pictures")
        track_poses(
            media, lambda: load_estimator(self._layout, "cpu"), tracks, lambda *_: None, self._tracks, sources
        )  # fmt: skip
        options = {name: getattr(request, name) for name in ("model", "mode", "align", "face", "head", "size")}
        return condition_poses(media, tracks, RequestedPoseOptions(**options), self._new_folder(), lambda *_: None)

    def clip(self, conditioning: PoseConditioning, **fields: Any) -> list[Frame]:
        """The frames that the sandbox's network makes of a request with this conditioning."""
        inputs = AnimationInputs(
            image=conditioning.image,
            mask=conditioning.mask,
            reference_pose=conditioning.reference_pose,
            frame_count=len(conditioning),
            poses=conditioning.draw,
        )
        options = sampling_options(self.request(**fields), DEFAULT_CHUNK_LENGTHS)
        events = self._engine.animate(inputs, options, None)
        return list(chain.from_iterable(event.frames for event in events if isinstance(event, FramesReady)))

    @cached_property
    def _engine(self) -> AnimationEngine:
        return AnimationEngine.load(self._layout, "cpu")

    def _new_folder(self) -> Path:
        folder = self._folder / f"scratch-{len(list(self._folder.iterdir()))}"
        folder.mkdir()
        return folder


def inputs(studio: Studio) -> Frame:
    """What goes in, and the poses in between."""
    conditioning, _ = studio.poses()
    media = studio.media()
    driver = list(read_frames(media.driver))
    shown = range(0, FRAMES, 3)
    pictures = [titled("reference", small(read_image(media.reference)))]
    pictures += [titled(f"driver, frame {frame}", small(driver[frame])) for frame in shown]
    poses = [titled("its pose", small(bold(conditioning.reference_pose)))]
    poses += [titled(f"pose for frame {frame}", small(bold(conditioning.draw(frame, frame + 1)[0]))) for frame in shown]
    return below([beside(pictures), beside(poses)])


def mode_and_align(studio: Studio) -> Frame:
    """The four combinations on three pairs of pictures; what ``auto`` takes is framed."""
    rows = []
    for title, names in {
        "Same framing, similar figures": {},
        "The driver stands farther away": {"driver": "far-away.mp4"},
        "The character has other proportions": {"reference": "child.png"},
    }.items():
        _, chosen = studio.poses(**names)
        media = studio.media(**names)
        frames = list(read_frames(media.driver))
        tiles = [titled("reference", small(read_image(media.reference))), titled("driver", small(frames[SHOWN]))]
        for mode in ("ref", "pose"):
            for align in ("no", "yes"):
                conditioning, _ = studio.poses(mode=mode, align=align, face="full", head="full", **names)
                is_chosen = (mode, align) == (chosen.mode, "yes" if chosen.align else "no")
                picture = framed(small(over_picture(conditioning, SHOWN)), CHOSEN if is_chosen else None)
                tiles.append(titled(f"{mode}, align {align}{' = auto' if is_chosen else ''}", picture))
        line = beside(tiles)
        rows += [caption_bar(f"{title}. auto: {chosen.reason}", line.shape[1], 17), line]
    return below(rows)


def face_and_head(studio: Studio) -> Frame:
    """Three ways to draw each, looked at closely."""
    rows = []
    for field in ("face", "head"):
        tiles = []
        for style in ("full", "faded", "none"):
            other = {"face": "head", "head": "face"}[field]
            conditioning, _ = studio.poses(reference="large.png", driver="still.mp4", **{field: style, other: "full"})
            drawing = conditioning.draw(0, 1)[0]
            height, width = drawing.shape[:2]
            close = drawing[height // 12 : height * 2 // 5, width // 4 : width * 3 // 4]
            tiles.append(titled(f"{field}: {style}{' (default)' if style == 'faded' else ''}", bold(close)))
        rows.append(beside(tiles))
    return below(rows)


def size(studio: Studio) -> Frame:
    """Frames of the clip in true proportion to each other."""
    reference = read_image(studio.media(reference="large.png").reference)
    tiles = [("reference", reference)]
    for asked in (None, {"height": 576, "width": 576}, {"height": 400, "width": 700}, {"height": 250, "width": 250}):
        conditioning, _ = studio.poses(reference="large.png", driver="still.mp4", size=asked)
        words = f"height {asked['height']}, width {asked['width']}" if asked else "size left out"
        tiles.append((words, conditioning.image))
    shown = []
    for words, picture in tiles:
        height, width = picture.shape[:2]
        scaled = scaled_to_height(picture, round(0.4 * height))
        bar = max(scaled.shape[1], 180)
        shown.append(below([caption_bar(words, bar), caption_bar(f"{width} wide, {height} high", bar), scaled]))
    return beside(shown)


def frame_interval(studio: Studio) -> Frame:
    """Which frames of the driver are used."""
    rows = []
    for interval in (1, 2, 4):
        media = studio.media(driver="full-rate.mp4", frame_interval=interval)
        frames = [scaled_to_height(frame, 128) for frame in list(read_frames(media.driver))[:12]]
        tiles = [frame if index % interval == 0 else dimmed(frame) for index, frame in enumerate(frames)]
        line = beside(tiles)
        words = f"frame_interval: {interval}: {float(media.frame_rate):g} frames per second become"
        words += f" {float(media.output_frame_rate):g}; {media.frame_count} frames become {media.used_frame_count}"
        rows += [caption_bar(words, line.shape[1], 17), line]
    return below(rows)


def part_of_the_driver(studio: Studio) -> Frame:
    """Which frames of the driver are used when it begins later or ends earlier."""
    rows = []
    for part in ({"start": 0.25}, {"start": 0.25, "duration": 0.2}, {"start": "9f", "duration": "2f"}):
        media = studio.media(driver="full-rate.mp4", **part)
        frames = [scaled_to_height(frame, 128) for frame in islice(read_frames(media.driver), 12)]
        tiles = [frame if index in media.used_frames else dimmed(frame) for index, frame in enumerate(frames)]
        line = beside(tiles)
        asked = ", ".join(f"{field}: {value}" for field, value in part.items())
        words = (
            f"{asked}: {media.used_frame_count} of {media.frame_count} frames at {float(media.frame_rate):g} a second"
        )
        rows += [caption_bar(words, line.shape[1], 17), line]
    return below(rows)


def guidance(studio: Studio) -> Frame:
    """What the sandbox's network makes of one pose; the only fields of sampling that show with random weights."""
    conditioning, _ = studio.poses(model="sandbox", frame_interval=3)  # few frames: each tile is a clip of its own
    rows = []
    for field, values in {"image_guidance": (1, 1.5, 2, 3, 5), "pose_guidance": (1, 1.5, 2.5, 4, 8)}.items():
        tiles = []
        for value in values:
            default = getattr(studio.request(), field) == value
            frame = studio.clip(conditioning, model="sandbox", **{field: value})[-1]
            tiles.append(titled(f"{field.partition('_')[0]} {value}{', default' if default else ''}", small(frame)))
        rows.append(beside(tiles))
    return below(rows)


PICTURES: Mapping[str, Callable[[Studio], Frame]] = {
    "inputs": inputs,
    "mode-and-align": mode_and_align,
    "face-and-head": face_and_head,
    "size": size,
    "frame-interval": frame_interval,
    "part-of-the-driver": part_of_the_driver,
    "guidance": guidance,
}


def titled(caption: str, picture: Frame) -> Frame:
    """A caption above a picture."""
    return below([caption_bar(caption, picture.shape[1]), picture])


def bold(drawing: Frame) -> Frame:
    """Lines made bolder, so that they show on a small picture; the network sees them as they were."""
    return cv2.dilate(drawing, np.ones((3, 3), np.uint8))


def over_picture(conditioning: PoseConditioning, frame: int) -> Frame:
    """The pose over the picture that the clip starts from, in grey; hatched where nothing of it is left."""
    grey = (conditioning.image.mean(axis=2, keepdims=True) * 0.7).astype(np.uint8).repeat(3, axis=2)
    rows, columns = np.indices(grey.shape[:2])
    hatched = np.where(((rows + columns) // 6 % 2 == 0)[..., None], 60, 40).astype(np.uint8)
    ground = np.where(conditioning.mask[..., None] > 127, hatched, grey)
    pose = bold(conditioning.draw(frame, frame + 1)[0])
    return np.where(pose.max(axis=2, keepdims=True) > 24, pose, ground).astype(np.uint8)


def framed(picture: Frame, colour: tuple[int, int, int] | None) -> Frame:
    """With a frame of ``colour`` on its edge."""
    outlined = picture.copy()
    if colour:
        cv2.rectangle(outlined, (2, 2), (picture.shape[1] - 3, picture.shape[0] - 3), colour, thickness=5)
    return outlined


def dimmed(picture: Frame) -> Frame:
    """Hardly to be seen: not used."""
    return (picture * 0.18 + 20).astype(np.uint8)


def small(picture: Frame) -> Frame:
    """At the height of a tile of which six stand side by side."""
    return scaled_to_height(picture, 256)


def write_pictures(folder: Path, names: Iterable[str] = PICTURES) -> None:
    """Make the pictures ``names`` and write them into ``folder`` as WebP."""
    with TemporaryDirectory() as scratch:
        studio = Studio(Path(scratch))
        for name in names:
            with atomic_write(folder / f"{name}.webp") as temporary:
                Image.fromarray(PICTURES[name](studio)).save(temporary, format="WEBP", quality=82, method=6)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"some of {', '.join(PICTURES)}; all if left out")
    write_pictures(FOLDER, parser.parse_args().names or PICTURES)
