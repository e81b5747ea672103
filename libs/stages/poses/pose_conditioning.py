"""Stage: from key-points to everything the network is conditioned on, and a preview for people.

See ``libs.pose`` for how poses are fitted and drawn.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict

from libs.errors import InputError
from libs.media.pictures.image import read_image
from libs.media.previews.preview import write_comparison
from libs.media.video.reader import read_frames
from libs.model_repo.variants import get_variant
from libs.pose.conditioning import PoseConditioning, prepare_conditioning
from libs.pose.fitting.anchor import choose_anchor, clear_frames
from libs.pose.fitting.framing import resize_crop_frames, target_size
from libs.pose.fitting.mode_choice import ModeChoice, choose_mode
from libs.pose.networks.prefetch import prefetched
from libs.pose.options import FaceStyle, HeadStyle, PoseOptions, RequestedAlign, RequestedAnchor, RequestedMode
from libs.pose.track import PoseTrack
from libs.requests.documents.animation_request import OutputSize
from libs.stages.animation_files import (
    DRIVER_TRACK,
    OPTIONS_FILE,
    POSE_PICTURE_FILE,
    PREVIEW_FILE,
    REFERENCE_TRACK,
)
from libs.stages.pictures import draw_columns, frames_in_picture
from libs.stages.poses.found_poses import sandbox_explained
from libs.stages.request.request_media import RequestMedia
from libs.stages.run import StageRun
from libs.storage.artifacts import LocalArtifact

CHOICE_FILE = "choice.json"
_FRAMES_DRAWN_AT_ONCE = 16
_PICTURE_FRAME = 1.5
"""What a frame of the small picture takes, in frames of the preview; measured with the demo's poses."""

FrameCallback = Callable[[int, int], None]


class RequestedPoseOptions(BaseModel):
    """The fields of a request that determine the drawn poses."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    model: str
    mode: RequestedMode
    align: RequestedAlign
    face: FaceStyle
    head: HeadStyle
    size: OutputSize | None
    anchor: RequestedAnchor = "first"
    allow_large: bool = False

    def anchor_frame(self, reference: PoseTrack, driver: PoseTrack) -> int:
        """The frame to compare: the one named, or of those that show the figure well enough the first or the best."""
        if isinstance(self.anchor, int):
            return self.anchor
        clear = clear_frames(driver.body)
        best = choose_anchor(reference.body[0, :, :2], driver.body[clear, :, :2]) if self.anchor == "auto" else 0
        return int(clear[best])

    @classmethod
    def load(cls, path: Path) -> "RequestedPoseOptions":
        """Read the JSON that ``animation_request`` wrote.

        Raises:
            InputError: it is damaged, or was written by another version.
        """
        try:
            return cls.model_validate_json(path.read_bytes())
        except (OSError, ValueError):
            raise InputError(f"{path}: holds no pose options; materialize animation_request again") from None


@dataclass(frozen=True)
class ConditionedPoses:
    """What the network is conditioned on, and how driver and reference were fitted to each other."""

    conditioning: PoseConditioning
    choice: ModeChoice

    def metadata(self) -> dict[str, Any]:
        """What a person wants to know at a glance."""
        height, width = self.conditioning.size
        return {
            "clip size": f"{width} x {height}",
            "frames": len(self.conditioning),
            "mode": self.choice.mode,
            "align": self.choice.align,
            "why": self.choice.reason,
        }


def make_conditioning(
    request_media: LocalArtifact, pose_options: LocalArtifact, pose_tracks: LocalArtifact, run: StageRun
) -> ConditionedPoses:
    """Fit, draw, and write the conditioning, its preview and a small picture.

    Raises:
        PoseError: the poses cannot be fitted.
        MediaError: the size asked for cannot be reached.
    """
    media = RequestMedia.load(request_media.folder)
    requested = RequestedPoseOptions.load(pose_options.folder / OPTIONS_FILE)
    frames = media.used_frame_count
    total = frames + round(_PICTURE_FRAME * min(frames, frames_in_picture(media.output_frame_rate)))
    with sandbox_explained(requested.model):
        conditioning, choice = condition_poses(
            media, pose_tracks.folder, requested, run.folder, lambda done, _: run.report("pose preview", done, total)
        )
    _draw_pose_preview(media, conditioning, run.folder)
    run.report("pose preview", total, total)
    return ConditionedPoses(conditioning, choice)


def condition_poses(
    media: RequestMedia, tracks: Path, requested: RequestedPoseOptions, folder: Path, on_frame: FrameCallback
) -> tuple[PoseConditioning, ModeChoice]:
    """Fit driver and reference to each other; write the conditioning and ``preview.mp4`` into ``folder``.

    The preview shows, side by side, the picture the clip starts from, the pose asked for, and the driver.

    Raises:
        PoseError: the poses cannot be fitted.
        MediaError: the size asked for cannot be reached.
    """
    picture = read_image(media.reference)
    reference, driver = PoseTrack.load(tracks / REFERENCE_TRACK), PoseTrack.load(tracks / DRIVER_TRACK)
    anchor = requested.anchor_frame(reference, driver)
    choice = _choose(requested, reference, driver, anchor)
    options = PoseOptions(
        mode=choice.mode,
        align=choice.align,
        face=requested.face,
        head=requested.head,
        anchor=anchor,
    )
    conditioning = prepare_conditioning(picture, reference, driver, options, size_of_clip(requested, picture))
    conditioning.save(folder)
    (folder / CHOICE_FILE).write_text(json.dumps(asdict(choice), indent=2))
    _write_preview(media, conditioning, folder / PREVIEW_FILE, on_frame)
    return conditioning, choice


def size_of_clip(requested: RequestedPoseOptions, picture: np.ndarray) -> tuple[int, int]:
    """Height and width of the clip in pixels.

    Raises:
        MediaError: the size asked for cannot be reached.
    """
    height, width = (requested.size.height, requested.size.width) if requested.size else picture.shape[:2]
    limit = get_variant(requested.model).short_side_limit(allow_large=requested.allow_large)
    size = target_size(height, width, limit)
    return size.height, size.width


def _choose(requested: RequestedPoseOptions, reference: PoseTrack, driver: PoseTrack, anchor: int) -> ModeChoice:
    """What was asked for, the rest as ``choose_mode`` suggests; ``mode: pose`` alone means without alignment."""
    suggested = choose_mode(reference, driver, anchor)
    mode = suggested.mode if requested.mode == "auto" else requested.mode
    if requested.align != "auto":
        align = requested.align == "yes"
    else:
        align = suggested.align if mode == suggested.mode else mode == "ref"
    reason = suggested.reason if requested.mode == requested.align == "auto" else "As the request says."
    if requested.anchor == "auto" or (requested.anchor == "first" and anchor != 0):
        reason += f" Compared in frame {anchor} of the driver."
    return ModeChoice(mode, align, reason)


def _write_preview(media: RequestMedia, conditioning: PoseConditioning, path: Path, on_frame: FrameCallback) -> None:
    def counted() -> Iterator[np.ndarray]:
        for done, pose in enumerate(drawn_poses(conditioning), start=1):
            yield pose
            on_frame(done, len(conditioning))

    columns = {
        reference_caption(media): conditioning.image,
        "pose": counted(),
        "driver": framed_driver(media, conditioning),
    }
    write_comparison(path, columns, media.output_frame_rate, height=conditioning.size[0])


def reference_caption(media: RequestMedia) -> str:
    """What stands above the reference in a preview: that its transparent parts are shown over grey, where there are."""
    return "reference, over grey" if media.reference_transparent else "reference"


def framed_driver(media: RequestMedia, conditioning: PoseConditioning) -> Iterator[np.ndarray]:
    """The driver's used frames as the pose networks saw them, at the clip's size."""
    used = media.used_frames
    frames = read_frames(media.driver, used.step, used.start, used.stop)
    seen = resize_crop_frames(frames, *conditioning.drawing_size)
    return resize_crop_frames(seen, *conditioning.size)


def drawn_poses(conditioning: PoseConditioning) -> Iterator[np.ndarray]:
    """All drawn poses, one after the other; the next few are drawn while the caller is busy with these."""

    def groups() -> Iterator[np.ndarray]:
        for start in range(0, len(conditioning), _FRAMES_DRAWN_AT_ONCE):
            yield conditioning.draw(start, min(start + _FRAMES_DRAWN_AT_ONCE, len(conditioning)))

    for group in prefetched(groups()):
        yield from group


def _draw_pose_preview(media: RequestMedia, conditioning: PoseConditioning, folder: Path) -> None:
    """The picture the clip starts from, the poses asked for, and the driver, as one small picture."""
    columns = {
        reference_caption(media): conditioning.image,
        "pose": drawn_poses(conditioning),
        "driver": framed_driver(media, conditioning),
    }
    draw_columns(columns, media.output_frame_rate, folder / POSE_PICTURE_FILE)
