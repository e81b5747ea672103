"""Stage: what a person looks at to judge a clip, and simple measurements of it.

A contact sheet and a comparison video of driver, pose and clip. What does not belong here: deciding what is good enough
(the asset checks do).
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from libs.media.measurements import ClipMeasurements, measure_video
from libs.media.pictures.image import write_png
from libs.media.previews.contact_sheet import contact_sheet
from libs.media.previews.preview import write_comparison
from libs.media.video.reader import read_frames
from libs.pose.conditioning import PoseConditioning
from libs.stages.animation_files import CONTACT_SHEET_FILE
from libs.stages.pose_conditioning import drawn_poses, framed_driver
from libs.stages.request_media import RequestMedia

COMPARISON_FILE = "comparison.mp4"
MEASUREMENTS_FILE = "measurements.json"


@dataclass(frozen=True)
class ClipReview:
    """Numbers about a clip; contrast, brightness and motion in levels of 0 to 255."""

    frame_count: int
    blank_frames: int
    mean_contrast: float
    mean_brightness: float
    mean_motion: float

    @classmethod
    def of(cls, measured: ClipMeasurements) -> "ClipReview":
        """Means over the clip."""
        frames = max(1, measured.frame_count)
        return cls(
            frame_count=measured.frame_count,
            blank_frames=len(measured.blank_frames),
            mean_contrast=sum(measured.contrast) / frames,
            mean_brightness=sum(measured.brightness) / frames,
            mean_motion=measured.mean_motion,
        )

    def describe(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return asdict(self)


def review_clip(clip: Path, media: RequestMedia, conditioning: PoseConditioning, folder: Path) -> ClipReview:
    """Write contact sheet, comparison video and measurements of ``clip`` into ``folder``.

    Raises:
        MediaError: the clip cannot be read.
    """
    rate, count = media.output_frame_rate, media.used_frame_count
    rows = {
        "driver": framed_driver(media, conditioning),
        "pose": drawn_poses(conditioning),
        "clip": read_frames(clip),
    }
    write_png(folder / CONTACT_SHEET_FILE, contact_sheet(rows, count, rate))
    columns = {
        "reference": conditioning.image,
        "driver": framed_driver(media, conditioning),
        "pose": drawn_poses(conditioning),
        "clip": read_frames(clip),
    }
    write_comparison(folder / COMPARISON_FILE, columns, rate, height=conditioning.size[0])
    review = ClipReview.of(measure_video(clip))
    (folder / MEASUREMENTS_FILE).write_text(json.dumps(review.describe(), indent=2))
    return review
