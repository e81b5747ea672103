"""The quality measures of one clip, over its decoded frames, and the file that holds them.

See ``libs.quality`` for each measure, ``orchestration.animations.quality_checks`` for what is good enough.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Self

from libs.errors import InputError
from libs.media.video.reader import read_frames
from libs.one_to_all.sampling.chunk_plan import PREVIOUS_FRAMES
from libs.pose.conditioning import PoseConditioning
from libs.quality.chunk_seams import measure_chunk_seams
from libs.quality.clip_poses import FoundKeypoints, asked_poses, found_poses
from libs.quality.colour_drift import measure_colour_drift
from libs.quality.face_share import measure_face_share
from libs.quality.flicker import measure_flicker
from libs.quality.pose_agreement import measure_pose_agreement
from libs.quality.sharpness import measure_sharpness
from libs.stages.review.review_progress import ReviewProgress

QUALITY_FILE = "quality.json"
SCHEMA_VERSION = 1


@dataclass(frozen=True)
class ClipQuality:
    """The numbers that a chart shows over time; each is defined where it is measured. None: could not be measured.

    The names are the keys of ``quality.json``; ``libs.stages.titles`` has what people see.

    Attributes:
        pose_correct_share: PCK at 0.1, 0 to 1 (``pose_agreement``).
        pose_mean_distance: trunk lengths (``pose_agreement``).
        pose_found_share: 0 to 1 (``pose_agreement``).
        flicker, flicker_maximum: levels of 255 (``flicker``).
        colour_drift: CIELAB units, the chunk farthest from the first (``colour_drift``).
        colour_drift_per_chunk: likewise, each chunk.
        colour_from_reference_per_chunk: CIELAB units from the reference picture, each chunk.
        seam: levels of 255, the worst border between chunks (``chunk_seams``); 0 where one chunk is the whole clip.
        seam_per_border: likewise, each border.
        sharpness, sharpness_minimum: shares of the reference's (``sharpness``).
        face_share: 0 to 1 (``face_share``).
    """

    pose_correct_share: float | None
    pose_mean_distance: float | None
    pose_found_share: float | None
    flicker: float | None
    flicker_maximum: float | None
    colour_drift: float | None
    colour_drift_per_chunk: Sequence[float] | None
    colour_from_reference_per_chunk: Sequence[float] | None
    seam: float | None
    seam_per_border: Sequence[float] | None
    sharpness: float | None
    sharpness_minimum: float | None
    face_share: float | None

    def numbers(self) -> dict[str, float]:
        """The measures that are single numbers and could be measured."""
        return {name: float(value) for name, value in asdict(self).items() if isinstance(value, int | float)}

    def save(self, folder: Path) -> None:
        """Write ``quality.json``; see :meth:`load` for its version."""
        (folder / QUALITY_FILE).write_text(json.dumps(asdict(self), indent=2))

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what :meth:`save` wrote, in this version or an earlier one.

        A file without ``schema_version`` has version 1, which all have up to now. Keys that it does not know are
        passed over; a measure that the file lacks counts as one that could not be measured.

        Raises:
            InputError: it is damaged, or was written by a later version.
        """
        try:
            stored = json.loads(path.read_text())
            version = stored.get("schema_version", SCHEMA_VERSION)
            known = {field.name: stored.get(field.name) for field in fields(cls)}
        except (OSError, ValueError, AttributeError) as error:
            raise InputError(f"{path}: holds no quality measures ({error}); materialize animation_review") from None
        if version != SCHEMA_VERSION:
            raise InputError(
                f"{path}: unsupported schema version {version} of quality measures (supported: {SCHEMA_VERSION}); "
                "materialize animation_review, or use the version of the software that wrote it"
            )
        return cls(**known)


def measure_quality(
    clip: Path,
    summary: Path,
    conditioning: PoseConditioning,
    keypoints: FoundKeypoints,
    progress: ReviewProgress,
) -> ClipQuality:
    """All measures of ``clip``. Its frames are decoded once per measure and streamed; the pose networks cost the most.

    Args:
        clip: the video.
        summary: ``summary.json`` of the animation, which says where its chunks begin.
        conditioning: what the clip was asked to show.
        keypoints: ``PoseEstimator.keypoints``.
        progress: is told what is finished.

    Raises:
        MediaError: the clip cannot be read.
        InputError: the clip does not have the frames it was asked to have.
    """
    starts, continued = _chunks(summary)
    image, mask = conditioning.image, conditioning.mask
    asked = asked_poses(conditioning)
    found = found_poses(read_frames(clip), keypoints, progress.found)
    if len(found) != len(asked):
        raise InputError(f"{clip}: has {len(found)} frames and was asked to have {len(asked)}; make the clip again")
    agreement, faces = measure_pose_agreement(asked, found), measure_face_share(asked, found)
    flicker = measure_flicker(read_frames(clip))
    progress.finished("flicker")
    drift = measure_colour_drift(read_frames(clip), starts, image, mask)
    progress.finished("colours")
    seams = measure_chunk_seams(read_frames(clip), starts, continued)
    progress.finished("seams")
    sharpness = measure_sharpness(read_frames(clip), image, mask)
    progress.finished("sharpness")
    return ClipQuality(
        pose_correct_share=agreement.correct_share if agreement else None,
        pose_mean_distance=agreement.mean_distance if agreement else None,
        pose_found_share=agreement.found_share if agreement else None,
        flicker=flicker.mean if flicker else None,
        flicker_maximum=flicker.maximum if flicker else None,
        colour_drift=drift.maximum,
        colour_drift_per_chunk=list(drift.from_first_chunk),
        colour_from_reference_per_chunk=list(drift.from_reference),
        seam=seams.maximum,
        seam_per_border=list(seams.excess),
        sharpness=sharpness.mean if sharpness else None,
        sharpness_minimum=sharpness.minimum if sharpness else None,
        face_share=faces.share if faces else None,
    )


def _chunks(path: Path) -> tuple[list[int], int]:
    """The starts of the chunks and the number of frames each repeats; older summaries have neither.

    Raises:
        InputError: the summary is damaged.
    """
    try:
        summary = json.loads(path.read_text())
        continued = PREVIOUS_FRAMES if summary.get("chunk_overlap", 0) >= PREVIOUS_FRAMES else 0
        return [int(start) for start in summary.get("chunk_starts", [0])], continued
    except (OSError, ValueError, TypeError, AttributeError):
        raise InputError(f"{path}: holds no summary of a clip; materialize animation again") from None
