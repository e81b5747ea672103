"""Stage: what a person looks at to judge a clip, and simple measurements of it.

A contact sheet and a comparison video of driver, pose and clip; the pose networks look at the clip once more, to see
whether it shows what it was asked to. See ``orchestration.animations.quality_checks`` for what is good enough.
"""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from libs.media.measurements import ClipMeasurements, measure_video
from libs.media.pictures.image import write_png
from libs.media.previews.contact_sheet import contact_sheet
from libs.media.previews.preview import write_comparison
from libs.media.video.reader import read_frames
from libs.model_repo.layout import layout_of
from libs.pose.conditioning import PoseConditioning
from libs.settings import Settings
from libs.stages.animation_files import (
    CLIP_FILE,
    COMPARISON_FILE,
    COMPARISON_PICTURE_FILE,
    CONTACT_SHEET_FILE,
    SUMMARY_FILE,
)
from libs.stages.pictures import draw_video
from libs.stages.poses.chosen_networks import ChosenNetworks, choose_networks
from libs.stages.poses.pose_conditioning import drawn_poses, framed_driver
from libs.stages.request.request_media import RequestMedia
from libs.stages.review.quality import ClipQuality, measure_quality
from libs.stages.review.review_progress import ReviewProgress
from libs.stages.run import StageRun
from libs.stages.titles import titled
from libs.storage.artifacts import LocalArtifact

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
        """The review as values that JSON can hold."""
        return asdict(self)


@dataclass(frozen=True)
class ReviewResult:
    """A review that is finished.

    Attributes:
        review: numbers of the frames.
        quality: the measures that have a chart.
        measuring_seconds: what the measures took.
    """

    review: ClipReview
    quality: ClipQuality
    measuring_seconds: float

    def metadata(self) -> dict[str, Any]:
        """The numbers that people are shown."""
        return {
            **titled(self.review.describe()),
            **titled(self.quality.numbers()),
            "seconds of measuring": self.measuring_seconds,
        }


@dataclass(frozen=True)
class ReviewJob:
    """Everything that determines a review: the clip, what it was made from, and who looks.

    Attributes:
        clip, summary: files of the animation.
        media: the picture and the video.
        conditioning: what the clip was asked to show.
        networks: those that look at the clip.
    """

    clip: Path
    summary: Path
    media: RequestMedia
    conditioning: PoseConditioning
    networks: ChosenNetworks

    @classmethod
    def of(
        cls,
        media: LocalArtifact,
        conditioning: LocalArtifact,
        animation: LocalArtifact,
        variant: str,
        settings: Settings,
    ) -> "ReviewJob":
        """Read the artifacts that the review is made from."""
        described = RequestMedia.load(media.folder)
        return cls(
            clip=animation.path(CLIP_FILE),
            summary=animation.path(SUMMARY_FILE),
            media=described,
            conditioning=PoseConditioning.load(conditioning.folder),
            networks=choose_networks(described.pose_networks, layout_of(variant, settings), settings, None),
        )


def make_review(job: ReviewJob, run: StageRun) -> ReviewResult:
    """Write contact sheet, comparison video, measurements, quality and a small picture.

    Raises:
        MediaError, InputError: the clip cannot be read, or does not have the frames it was asked to have.
    """
    progress = ReviewProgress(
        lambda done, total, seconds_left: run.report("review", done, total, seconds_left=seconds_left),
        job.media.used_frame_count,
    )
    review = review_clip(job.clip, job.media, job.conditioning, run.folder, progress)
    started = time.monotonic()
    quality = measure_quality(job.clip, job.summary, job.conditioning, job.networks.load().keypoints, progress)
    quality.save(run.folder)
    seconds = time.monotonic() - started
    draw_video(run.folder / COMPARISON_FILE, run.folder / COMPARISON_PICTURE_FILE)
    progress.finished("picture")
    return ReviewResult(review, quality, seconds)


def review_clip(
    clip: Path, media: RequestMedia, conditioning: PoseConditioning, folder: Path, progress: ReviewProgress
) -> ClipReview:
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
    progress.finished("contact sheet")
    columns = {
        "reference": conditioning.image,
        "driver": framed_driver(media, conditioning),
        "pose": drawn_poses(conditioning),
        "clip": read_frames(clip),
    }
    write_comparison(folder / COMPARISON_FILE, columns, rate, height=conditioning.size[0])
    progress.finished("comparison")
    review = ClipReview.of(measure_video(clip))
    progress.finished("measurements")
    (folder / MEASUREMENTS_FILE).write_text(json.dumps(review.describe(), indent=2))
    return review
